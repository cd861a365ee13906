"""`cascade experts challenge`: real experts against a real server, and the words that follow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import Answer, Loopback, Seen, chat, status
from scripting import write
from typer.testing import CliRunner

from cascade import Cascade, lab
from cascade.cli.experts import app
from cascade.errors import ConfigError, RequestError
from cascade.lab.inventory.challenge import Challenger
from cascade.lab.inventory.contest import contest
from cascade.lab.inventory.words import conclusions
from cascade.trace import TraceStore

PRICE = (2.0, 8.0)
main = typer.Typer()
main.add_typer(app, name="experts")


@pytest.fixture
def rows(root: Path) -> list[dict[str, str]]:
    lines = (root / "examples/messages.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def knows(
    rows: list[dict[str, str]], say: Callable[[str], str] = lambda label: label
) -> Callable[[Seen], Answer]:
    """A server that finds its rows' text in the prompt, and says what `say` makes of the label."""

    def answer(seen: Seen) -> Answer:
        prompt = seen.json["messages"][-1]["content"]
        row = next(row for row in rows if row["text"] in prompt)
        return chat(say(row["label"]), usage=(900, 4))

    return answer


def challenger(server: Loopback, **more: Any) -> Challenger:
    return Challenger(name="big", url=server.url, price=PRICE, keyed=False, **more)


def graph(folder: Path, server: Loopback) -> Path:
    models = {
        "nano": {"kind": "llamacpp", "path": "bundled:tiny", "task": "clinc150", "tier": "haiku"},
        "strong": {
            "kind": "openai", "model": "big", "url": server.url, "key_env": None, "logprobs": False,
            "labels": "bundled:tiny#clinc150", "prompt": "One of\n{labels}\n\nText: {text}",
            "price": {"input": 2.0, "output": 8.0},
        },
    }  # fmt: skip
    first = {"name": "first", "ask": ["nano"], "confidence": {"by": "labels"}, "accept": 0.9}
    return write(folder, models, [first, {"name": "last", "ask": ["strong"]}], name="intents")


def test_an_expert_that_a_better_model_beats_by_far_should_retire(
    rows: list[dict[str, str]], server: Loopback, root: Path
) -> None:
    server.answers = [knows(rows)]
    data = root / "examples/messages.jsonl"
    report = lab.challenge("bundled:tiny#clinc150", challenger(server), data=data, margin=0.0)
    (duel,) = report.duels
    assert report.rows == len(rows) == len(server.requests)
    assert duel.everywhere.challenger == len(rows)
    assert duel.everywhere.expert == duel.everywhere.rows - duel.everywhere.lost
    assert duel.judged.finding == "retire"
    assert duel.judged.p_value < 0.05
    assert report.spent_usd == pytest.approx(len(rows) * (900 * 2 + 4 * 8) / 1e6)
    assert report.spent_usd <= report.most_usd <= 1.0
    assert duel.usd_a_thousand == (0.0, pytest.approx(1.832))
    assert conclusions(report)[0].startswith("expert should retire: big is better by ")


def test_an_expert_beats_a_worse_model(rows: list[dict[str, str]], server: Loopback, root: Path) -> None:
    server.answers = [knows(rows, lambda _: "balance")]
    report = lab.challenge(
        "bundled:tiny#clinc150", challenger(server), data=root / "examples/messages.jsonl", rows=40
    )
    (duel,) = report.duels
    assert report.rows == 40
    assert duel.judged.finding == "keep"
    assert duel.judged.high < 0
    assert "expert beats big on quality" in conclusions(report)[0]


def test_in_a_graph_it_counts_what_the_expert_would_answer(
    rows: list[dict[str, str]], server: Loopback, tmp_path: Path, root: Path
) -> None:
    server.answers = [knows(rows)]
    path = graph(tmp_path, server)
    report = lab.challenge(path, Challenger(name="strong"), data=root / "examples/messages.jsonl")
    (duel,) = report.duels
    assert (duel.expert, duel.accept) == ("nano", 0.9)
    assert duel.answering is not None
    assert 0 < duel.answering.rows < duel.everywhere.rows
    assert duel.judged is (duel.answering if duel.answering.rows >= 30 else duel.everywhere)


@pytest.mark.slow
def test_graded_runs_are_rows_and_favour_who_answered(
    rows: list[dict[str, str]], server: Loopback, tmp_path: Path
) -> None:
    server.answers = [knows(rows)]
    path = graph(tmp_path, server)
    with Cascade.load(path) as cascade, TraceStore(os.environ["CASCADE_TRACE_DB"]) as traces:
        for row in rows[:40]:
            result = cascade.invoke(row["text"])
            traces.grade(result.run, result.text == row["label"])
    report = lab.challenge(path, Challenger(name="strong"))
    assert 30 <= report.graded == report.rows <= len(rows)
    assert any("favours the model that gave them" in line for line in conclusions(report))
    with pytest.raises(RequestError, match=r"a person gave|tells a label"):
        lab.challenge(path, Challenger(name="strong"), since="2200-01-01")


def test_the_price_is_checked_before_anything_is_asked(server: Loopback, root: Path) -> None:
    data = root / "examples/messages.jsonl"
    with pytest.raises(
        RequestError, match=r"may cost up to .* more than --budget 0.001; .* nothing was asked"
    ):
        lab.challenge("bundled:tiny#clinc150", challenger(server), data=data, budget=0.001)
    assert server.requests == []


def test_too_few_rows_are_refused(server: Loopback, root: Path) -> None:
    data = root / "examples/messages.jsonl"
    with pytest.raises(RequestError, match="7 labelled rows are too few to judge an expert: at least 30"):
        lab.challenge("bundled:tiny#clinc150", challenger(server), data=data, rows=7)
    assert server.requests == []


def test_a_server_that_fails_is_no_verdict(server: Loopback, root: Path) -> None:
    server.answers = [status(400, "no such model")]
    with pytest.raises(RequestError, match=r"48 of 48 rows got no answer .*no such model"):
        lab.challenge("bundled:tiny#clinc150", challenger(server), data=root / "examples/messages.jsonl")


@pytest.mark.parametrize(
    ("target", "more", "said"),
    [
        ("bundled:tiny", {}, "has several tasks; give one of bundled:tiny#"),
        ("bundled:tiny#nothing", {}, "unknown task 'nothing'"),
        ("bundled:nothing", {}, "nothing"),
        ("missing.yaml", {}, "graph file is missing"),
        ("missing.gguf", {}, "missing.gguf"),
        ("bundled:tiny#clinc150", {"kind": "opnai"}, "unknown kind 'opnai'; known: .*did you mean 'openai'"),
        ("bundled:tiny#clinc150", {"price": None}, "price"),
    ],
)
def test_what_cannot_be_challenged_is_told(
    server: Loopback, root: Path, target: str, more: dict[str, Any], said: str
) -> None:
    other = challenger(server).model_copy(update=more)
    with pytest.raises(ConfigError, match=said):
        lab.challenge(target, other, data=root / "examples/messages.jsonl")
    assert server.requests == []


def test_rows_of_other_labels_are_refused(server: Loopback, root: Path) -> None:
    with pytest.raises(RequestError, match="labels are none that an expert knows; left out: expert: 2%"):
        lab.challenge("bundled:tiny#banking77", challenger(server), data=root / "examples/messages.jsonl")


def test_an_expert_alone_needs_rows(server: Loopback) -> None:
    with pytest.raises(RequestError, match="give labelled rows with --data, or its graph"):
        lab.challenge("bundled:tiny#clinc150", challenger(server))


def test_the_command(rows: list[dict[str, str]], server: Loopback, root: Path) -> None:
    server.answers = [knows(rows)]
    arguments = [
        "experts", "challenge", "bundled:tiny#clinc150", "--with", "big", "--url", server.url, "--keyless",
        "--price", "2", "8",
        "--data", str(root / "examples/messages.jsonl"), "--margin", "0",
    ]  # fmt: skip
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["duels"][0]["finding"] == "retire"
    assert data["conclusions"][0].startswith("expert should retire")


booleans = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=24)


@settings(max_examples=12)
@given(pairs=booleans)
def test_the_interval_holds_the_difference_and_turns_with_the_sides(pairs: list[tuple[bool, bool]]) -> None:
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found, other = contest(left, right, margin=0.02), contest(right, left, margin=0.02)
    assert found.low <= found.difference <= found.high
    assert (found.low, found.high) == (-other.high, -other.low)
    assert found.p_value == pytest.approx(other.p_value)


def test_equal_models_are_only_equal_on_many_rows() -> None:
    few, many = ([True] * count for count in (30, 2000))
    assert contest(few, few, margin=0.02).finding == "undecided"
    assert (contest(few, few, margin=0.02).rows_needed or 0) > 30
    assert contest(many, many, margin=0.02).finding == "keep"


def test_a_model_that_is_better_on_few_rows_may_be_so_by_little() -> None:
    found = contest([True] * 38 + [False] * 10, [True] * 48, margin=0.02)
    assert found.finding == "watch"
    assert 0 < found.low <= 0.02
    assert contest([True] * 380 + [False] * 100, [True] * 480, margin=0.02).finding == "retire"


def test_mcnemar_is_exact() -> None:
    found = contest([True] * 90 + [False] * 10, [True] * 88 + [False] * 2 + [True] * 10, margin=0.02)
    assert (found.lost, found.won) == (10, 2)
    assert found.p_value == pytest.approx(2 * sum((1, 12, 66)) / 2**12)


def test_more_comparisons_widen_the_interval() -> None:
    right, wrong = [True] * 100, [True] * 90 + [False] * 10
    one, three = (contest(wrong, right, margin=0.02, compared=n) for n in (1, 3))
    assert three.low < one.low <= one.difference <= one.high < three.high
