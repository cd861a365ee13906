"""What a batch says at its end: which rows are wrong, why the others have no answer, and what to set."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from scripting import REMOTE, checked, scripted, write
from typer.testing import CliRunner, Result

from cascade import Cascade
from cascade.cli.calibrate import calibrate
from cascade.cli.run import run
from cascade.cli.warming import warm
from cascade.config.load import load_graph
from cascade.policy.intervals import wilson

KEY = "A_KEY_THAT_NOBODY_SETS"
KEYLESS = {"kind": "openai", "model": "m", "key_env": KEY, "price": {"input": 1, "output": 1}}


def batch(graph: Path, rows: list[dict[str, Any]], *options: object) -> Result:
    source = graph.parent / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    app = typer.Typer()
    app.command()(run)
    arguments = [graph, "--input", source, *options]
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "160"})


def unsure(last: dict[str, Any], folder: Path) -> Path:
    """A model that is never sure, and `last`."""
    doubtful = scripted("yes", confidence=0.1, tier="haiku")
    stages = [checked("first", "doubtful"), {"name": "last", "ask": ["last"]}]
    return write(folder, {"doubtful": doubtful, "last": last}, stages)


@pytest.mark.parametrize(
    ("last", "options", "reason"),
    [
        (KEYLESS, [], f"model 'last' needs {KEY}; set it, or"),
        (scripted("yes", **REMOTE), ["--local-only"], "it is not on this machine"),
        (scripted("never", fail="the disk is full"), [], "the disk is full"),
    ],
)
def test_rows_without_an_answer_say_what_to_set(
    tmp_path: Path, last: dict[str, Any], options: list[str], reason: str
) -> None:
    count = random.Random(reason).randrange(2, 12)
    done = batch(unsure(last, tmp_path), [{"text": f"q{k}"} for k in range(count)], *options)
    assert f"           {count} rows without last: " in done.stdout
    assert reason in done.stdout
    body = json.loads(
        batch(unsure(last, tmp_path), [{"text": f"q{k}"} for k in range(count)], *options, "--json").stdout
    )
    assert [(hint["rows"], hint["model"]) for hint in body["summary"]["hints"]] == [(count, "last")]
    assert reason in body["summary"]["hints"][0]["reason"]


def test_a_dead_endpoint_is_named_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        remote = {
            "kind": "openai",
            "model": "m",
            "url": url,
            "key_env": None,
            "price": {"input": 0, "output": 0},
        }
        body = json.loads(batch(unsure(remote, tmp_path), [{"text": "q1"}, {"text": "q2"}], "--json").stdout)
    assert [hint["model"] for hint in body["summary"]["hints"]][:1] == ["last"]
    assert url.removesuffix("/v1") in body["summary"]["hints"][0]["reason"]


def test_a_limit_that_is_too_small_is_named_once_for_all_rows(tmp_path: Path) -> None:
    dear = scripted("yes", price={"input": 1000.0, "output": 1000.0})
    graph = unsure(dear, tmp_path)
    graph.write_text(graph.read_text() + "\nlimits: {cost_usd: 0.0645}\n")
    rows = [{"text": "word " * (k + 1)} for k in range(9)]  # each with a worst case of its own
    hints = json.loads(batch(graph, rows, "--json").stdout)["summary"]["hints"]
    assert [(hint["rows"], hint["model"]) for hint in hints] == [(9, "stage last")]
    assert "worst case $0.065000, $0.064500 left" in hints[0]["reason"]
    assert "raise limits.cost_usd of the graph" in hints[0]["reason"]


def test_answered_rows_need_no_hint(tmp_path: Path) -> None:
    body = json.loads(batch(unsure(scripted("yes"), tmp_path), [{"text": "q1"}], "--json").stdout)
    assert body["summary"]["hints"] == []


@pytest.mark.parametrize("seed", range(3))
def test_wrong_answers_are_marked_with_the_right_one(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = [{"text": f"question {k}", "label": draw.choice(["yes", "YES ", "no"])} for k in range(12)]
    rows[0]["label"] = "no"
    graph = write(tmp_path, {"m": scripted("yes", confidence=0.9)}, [checked("first", "m", accept=0.5)])
    out = tmp_path / "out.jsonl"
    done = batch(graph, rows, "--output", out)
    lines = [line for line in done.stdout.splitlines() if line.startswith("question")]
    assert [line.endswith("  no") for line in lines] == [row["label"] == "no" for row in rows]
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["right"] for row in written] == [row["label"] != "no" for row in rows]
    assert [row["label"] for row in written] == [row["label"] for row in rows]
    assert "wrong: right is" in done.stdout
    wrong = sum(row["label"] == "no" for row in rows)
    low, high = wilson(12 - wrong, 12)
    assert f"95 % intervals: right {low:.1%} to {high:.1%}, wrong" in done.stdout


def test_without_labels_no_column_and_no_keys_are_added(tmp_path: Path) -> None:
    graph = write(tmp_path, {"m": scripted("yes", confidence=0.9)}, [checked("first", "m", accept=0.5)])
    out = tmp_path / "out.jsonl"
    done = batch(graph, [{"text": "a"}, {"text": "b"}], "--output", out)
    assert "wrong: right is" not in done.stdout
    assert not {"label", "right"} & json.loads(out.read_text().splitlines()[0]).keys()


def test_models_are_loaded_before_the_first_row(tmp_path: Path) -> None:
    """The file that both models share is in memory, and a hub file that is not here is left alone."""
    tiny = {"kind": "llamacpp", "path": "bundled:tiny"}
    missing = {"kind": "llamacpp", "path": "hf:nobody/nothing/none.gguf"}
    models = {"a": {**tiny, "task": "clinc150"}, "b": {**tiny, "task": "banking77"}, "hub": missing}
    stages = [checked(name, name, by="labels") for name in ("a", "b")]
    graph = write(tmp_path, models, [*stages, {"name": "last", "ask": ["hub"]}])
    loaded = load_graph(graph)
    assert [loaded.graph.models[name].file_is_here(tmp_path) for name in models] == [True, True, False]
    with Cascade.load(loaded, record=False) as cascade:
        sessions = [vars(cascade.models[name])["_session"] for name in ("a", "b")]
        assert sessions == [None, None]
        cascade.run_sync(warm(cascade))
        assert all(vars(cascade.models[name])["_session"] is not None for name in ("a", "b"))
        assert vars(cascade.models["hub"])["_session"] is None


def test_labels_in_other_words_than_the_answers_are_shown(tmp_path: Path) -> None:
    graph = write(tmp_path, {"m": scripted("yes", confidence=0.9)}, [checked("first", "m", accept=0.5)])
    rows = [{"text": f"q{k}", "label": "positive"} for k in range(40)]
    done = batch(graph, rows)
    assert "no answer is right; the first was 'yes', its label 'positive'" in done.stdout
    app = typer.Typer()
    app.command()(calibrate)
    arguments = [graph, "first", "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "map.json"]
    refused = CliRunner().invoke(app, list(map(str, arguments)))
    assert refused.exit_code == 1
    assert "0 of 40 answers are right" in str(refused.exception)
    assert "the first answer was 'yes' for 'positive'" in str(refused.exception)
    rows[0]["label"] = "yes"
    assert "no answer is right" not in batch(graph, rows).stdout
