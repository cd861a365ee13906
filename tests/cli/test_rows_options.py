"""Every command that reads rows: columns of any name, and labels that no model can answer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from scripting import checked, scripted, write
from typer.testing import CliRunner, Result

from cascade.cli.calibrate import calibrate
from cascade.cli.evaluate import evaluate
from cascade.cli.outcomes import outcomes
from cascade.cli.rows import read_rows
from cascade.cli.run import run
from cascade.cli.tune import tune
from cascade.confidence.same import normalise
from cascade.config.load import load_graph
from cascade.errors import RequestError
from cascade.lab.tables.labels import LabelSet, check_labels, label_set
from cascade.lab.tables.outcomes import read_outcomes

LABELS = ["billing", "card_arrival", "shipping"]
NAMED = ["--text", "what is asked", "--label", "intent"]
READERS = ["run", "calibrate", "outcomes"]


def cascade(*arguments: object) -> Result:
    app = typer.Typer()
    for command in (run, calibrate, outcomes, tune, evaluate):
        app.command()(command)
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "160"})


def expert(folder: Path, **more: Any) -> Path:
    """A model that answers one of LABELS, right for two of three questions."""
    replies = {f"q{k}": LABELS[k % 3] if k % 3 else LABELS[1] for k in range(60)}
    models = {"small": scripted(replies=replies, labels=LABELS, confidence=0.8), **more}
    stages = [{"name": "first", "ask": ["small"], "confidence": {"by": "labels"}, "accept": 0.5}]
    return write(folder, models, [*stages, *(checked(name, name) for name in more)])


def table(folder: Path, labels: list[str], names: tuple[str, str] = ("text", "label")) -> Path:
    path = folder / "rows.csv"
    lines = [f"q{number},{label}" for number, label in enumerate(labels)]
    path.write_text("\n".join([",".join(names), *lines, ""]))
    return path


def arguments(command: str, graph: Path, data: Path) -> list[object]:
    return {
        "run": ["run", graph, "--input", data],
        "calibrate": ["calibrate", graph, "first", "--out", data.parent / "map.json", "--data", data],
        "outcomes": ["outcomes", graph, "--out", data.parent / "table.jsonl", "--data", data],
    }[command]


@pytest.mark.parametrize("command", READERS)
def test_columns_may_have_any_name(tmp_path: Path, command: str) -> None:
    graph = expert(tmp_path)
    data = table(tmp_path, [LABELS[k % 3] for k in range(60)], ("what is asked", "intent"))
    done = cascade(*arguments(command, graph, data), *NAMED)
    assert done.exit_code == 0, done.output
    assert "66.7%" in done.output or "accuracy    0.6667" in done.output
    unnamed = cascade(*arguments(command, graph, data))
    said = unnamed.stderr + str(unnamed.exception)
    assert unnamed.exit_code == 1
    assert "columns are ['what is asked', 'intent']" in said
    assert "--text COL" in said


def test_a_table_with_other_names_is_tuned_and_evaluated(tmp_path: Path) -> None:
    graph = expert(tmp_path)
    data = table(tmp_path, [LABELS[k % 3] for k in range(60)])
    assert cascade(*arguments("outcomes", graph, data)).exit_code == 0
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(
        (tmp_path / "table.jsonl")
        .read_text()
        .replace('"prompt"', '"what is asked"')
        .replace('"label"', '"intent"')
    )
    again = read_outcomes(renamed, "what is asked", "intent")
    plain = read_outcomes(tmp_path / "table.jsonl")
    assert (again.prompts, again.fields) == (plain.prompts, plain.fields)
    policy = tmp_path / "policy.json"
    assert cascade("tune", "--outcomes", renamed, *NAMED, "--budget", 1, "--out", policy).exit_code == 0
    judged = cascade("evaluate", "--outcomes", renamed, *NAMED, "--policy", policy, "--by", "label")
    assert judged.exit_code == 0, judged.output
    assert "label card_arrival" in judged.output
    wrong = cascade("tune", "--outcomes", renamed, "--text", "nowhere", "--budget", 1, "--out", policy)
    assert "no row has a 'nowhere'; known: " in str(wrong.exception)


@pytest.mark.parametrize("command", READERS)
def test_most_labels_outside_end_the_command_before_anything_is_asked(tmp_path: Path, command: str) -> None:
    graph = expert(tmp_path)
    draw = random.Random(command)
    wrong = draw.randrange(31, 61)
    labels = ["card-arival"] * wrong + ["billing"] * (60 - wrong)
    draw.shuffle(labels)
    data = table(tmp_path, labels)
    done = cascade(*arguments(command, graph, data))
    said = done.stderr + str(done.exception)
    assert done.exit_code == 1
    assert f"{wrong} of 60 labels are not among those that the models answer ('billing'," in said
    assert f"'card-arival' ({wrong} rows, did you mean 'card_arrival'?)" in said
    assert not list(tmp_path.glob("traces.db")) + list(tmp_path.glob("*.json*"))


@pytest.mark.parametrize("command", READERS)
def test_some_labels_outside_are_a_note(tmp_path: Path, command: str) -> None:
    labels = [LABELS[k % 3] for k in range(60)]
    labels[5:7] = ["unheard of", "unheard of"]
    done = cascade(*arguments(command, expert(tmp_path), table(tmp_path, labels)))
    assert done.exit_code == 0, done.output
    assert "note: " in done.stderr
    assert "2 of 60 labels are not among" in done.stderr
    assert "'unheard of' (2 rows)" in done.stderr


def test_tuning_for_a_graph_wants_that_graphs_labels(tmp_path: Path) -> None:
    graph = expert(tmp_path)
    rows = [
        {"id": str(k), "label": "other", "models": {"small": {"correct": k % 2, "cost_usd": 0}}}
        for k in range(40)
    ]
    source = tmp_path / "t.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cascade(
        "tune", "--outcomes", source, "--graph", graph, "--budget", 1, "--out", tmp_path / "p.json"
    )
    assert "40 of 40 labels are not among" in str(done.exception)


def test_a_model_that_answers_freely_may_answer_any_label(tmp_path: Path) -> None:
    graph = expert(tmp_path, free=scripted("anything", confidence=0.9))
    done = cascade(*arguments("run", graph, table(tmp_path, ["anything"] * 10)))
    assert done.exit_code == 0, done.output
    assert "only free may answer them" in done.stderr


def test_a_nested_graph_answers_what_its_stages_answer(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    inner = expert(tmp_path / "inner")
    outer = write(tmp_path, {"all": {"kind": "cascade", "path": str(inner)}}, [{"name": "s", "ask": ["all"]}])

    assert label_set(load_graph(outer), ["all"]) == LabelSet(tuple(LABELS), ())


words = st.text("abc_ .", min_size=1, max_size=5).filter(str.strip)


@given(known=st.sets(words, min_size=1, max_size=6), labels=st.lists(words, min_size=1, max_size=20))
def test_labels_are_counted_as_answers_are_compared(known: set[str], labels: list[str]) -> None:
    own = {normalise(label) for label in known}
    outside = sum(normalise(label) not in own for label in labels)
    closed, half_open = LabelSet(tuple(known), ()), LabelSet(tuple(known), ("free",))
    if 2 * outside > len(labels):
        with pytest.raises(RequestError, match=rf"rows: {outside} of {len(labels)} labels are not among"):
            check_labels(labels, closed, "rows")
    else:
        assert (check_labels(labels, closed, "rows") is None) == (outside == 0)
    assert (check_labels(labels, half_open, "rows") is None) == (outside == 0)
    assert check_labels(labels, LabelSet((), ("free",)), "rows") is None


def test_case_and_white_space_of_a_label_do_not_count(tmp_path: Path) -> None:
    labels = [f" {LABELS[k % 3].upper()} " for k in range(60)]
    done = cascade(*arguments("run", expert(tmp_path), table(tmp_path, labels)))
    assert "66.7% of 60 labelled rows" in done.output
    assert "labels are not among" not in done.stderr


def test_a_script_that_reads_bad_rows_ends_with_the_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n1,a,b\n")
    with pytest.raises(SystemExit) as end:
        read_rows(tmp_path / "rows.csv")
    assert end.value.code == 1
    assert "rows.csv:2: 3 cells, the header has 2" in capsys.readouterr().err


def test_columns_of_a_single_text_are_refused(tmp_path: Path) -> None:
    done = cascade("run", expert(tmp_path), "q1", "--label", "intent")
    assert "name columns of --input" in str(done.exception)


def test_a_model_that_gives_one_answer_is_said_where_its_table_is_made(tmp_path: Path) -> None:
    graph = write(tmp_path, {"small": scripted("billing", labels=LABELS)}, [{"name": "s", "ask": ["small"]}])
    done = cascade(*arguments("outcomes", graph, table(tmp_path, [LABELS[k % 3] for k in range(30)])))
    assert done.exit_code == 0, done.output
    assert "warning: small answers 'billing' to 30 of 30 rows, whatever they ask" in done.stderr
