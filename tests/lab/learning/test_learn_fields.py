"""From a file of mails to an expert that answers with JSON, with a card, a graph, and a promise."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cascade import Cascade
from cascade.cli.main import app
from cascade.engine.experts import read_learned_task
from cascade.errors import RequestError
from cascade.formats.schemas import value_problem
from cascade.lab.learning.field_rows import read_field_rows, read_schema
from cascade.lab.learning.learn_fields import LearnedFields, learn_fields

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["order", "complaint"]},
        "pieces": {"type": ["integer", "null"]},
        "due": {"type": "string", "format": "date"},
    },
    "required": ["kind", "pieces", "due"],
    "additionalProperties": False,
}
ORDERS = (
    "Please send {n} lamps by {day}.",
    "We order {n} lamps, delivery on {day}.",
    "{n} lamps until {day} please",
)
COMPLAINTS = (
    "The lamps of {day} are broken.",
    "I am angry: delivery of {day} was late",
    "Terrible quality on {day}!",
)


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        kind, n = draw.choice(SCHEMA["properties"]["kind"]["enum"]), draw.randrange(2, 900)
        month, day = draw.randrange(1, 13), draw.randrange(13, 29)
        written = draw.choice((f"{day}.{month}.2026", f"2026-{month:02}-{day}"))
        text = draw.choice(ORDERS if kind == "order" else COMPLAINTS).format(n=n, day=written)
        pieces = n if kind == "order" else None
        answer = {"kind": kind, "pieces": pieces, "due": f"2026-{month:02}-{day}"}
        found.append({"text": f"{text} Ref {draw.randrange(10**6)}", "answer": answer})
    return found


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> LearnedFields:
    folder = tmp_path_factory.mktemp("mails")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    return learn_fields(
        write(folder / "mails.jsonl", rows(90)), folder / "schema.json",
        out=folder / "experts/mails.gguf", graph_out=folder / "graphs/mails.yaml", max_risk=0.2,
    )  # fmt: skip


def test_the_card_tells_what_each_field_and_the_whole_answer_are_worth(learnt: LearnedFields) -> None:
    figures = learnt.card["figures"]["held_out"]
    assert set(figures["fields"]) == set(SCHEMA["properties"])
    assert figures["accuracy"] >= 0.85
    assert figures["accuracy_ci"][0] <= figures["accuracy"] <= figures["accuracy_ci"][1]
    assert json.loads(learnt.card_path.read_text())["sha256"] == learnt.card["sha256"]
    assert (learnt.verdict.certificate is None) == (learnt.card["promise"]["certificate"] is None)


@pytest.mark.parametrize("isolate", ["none", pytest.param("process", marks=pytest.mark.slow)])
def test_the_expert_answers_with_json_in_a_graph(learnt: LearnedFields, tmp_path: Path, isolate: str) -> None:
    graph = tmp_path / "graph.yaml"
    model = f"{{kind: llamacpp, tier: haiku, path: {learnt.expert}, task: mails, isolate: {isolate}}}"
    graph.write_text(f"name: g\nmodels:\n  m: {model}\nstages:\n  - {{name: s, ask: [m]}}\n")
    with Cascade.load(graph, trace_db=f"sqlite:///{tmp_path}/t.db") as cascade:
        result = cascade.invoke("We order 44 lamps, delivery on 17.3.2026 Ref 4711", output_schema=SCHEMA)
    assert json.loads(result.text or "") == {"kind": "order", "pieces": 44, "due": "2026-03-17"}
    expert = result.trace[0].calls[0].meta["expert"]
    assert set(expert["fields"]) == set(SCHEMA["properties"])
    assert 0 < expert["confidence"] < 1


def test_the_graph_accepts_what_the_expert_is_sure_of(learnt: LearnedFields, tmp_path: Path) -> None:
    with Cascade.load(learnt.graph, trace_db=f"sqlite:///{tmp_path}/t.db") as cascade:
        sure = cascade.invoke(rows(1, seed=5)[0]["text"], local_only=True)
        odd = cascade.invoke("what a day", local_only=True)
    assert sure.status == "accepted"
    assert sure.calibrated
    assert json.loads(sure.text or "") == rows(1, seed=5)[0]["answer"]
    assert sure.trace[0].estimate is not None
    assert sure.trace[0].estimate.signals == {"expert": pytest.approx(sure.confidence)}
    assert odd.status == "abstained"


@pytest.mark.slow
def test_the_same_rows_give_the_same_file(learnt: LearnedFields, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    again = learn_fields(
        write(tmp_path / "mails.jsonl", rows(90)), tmp_path / "schema.json",
        out=tmp_path / "mails.gguf", graph_out=tmp_path / "mails.yaml", max_risk=0.2,
    )  # fmt: skip
    assert again.card["sha256"] == learnt.card["sha256"]


def test_every_answer_satisfies_the_schema(learnt: LearnedFields) -> None:
    task = read_learned_task(learnt.expert, "mails")
    assert task is not None
    draw = np.random.default_rng(0)
    for text in ("", "x", "7 7 7", "(" * 50, "31.2.2026 or 99", "\n\n12.12.26\n", "ü" * 500):
        vector = draw.normal(size=384).astype(np.float32)
        found = task.head.answer(vector / np.linalg.norm(vector), text)
        assert value_problem(SCHEMA, found.answer) is None  # type: ignore[union-attr]


def test_a_graph_that_is_there_is_kept(learnt: LearnedFields, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    with pytest.raises(RequestError, match="already"):
        learn_fields(
            write(tmp_path / "m.jsonl", rows(30)), tmp_path / "schema.json",
            out=tmp_path / "m.gguf", graph_out=learnt.graph,
        )  # fmt: skip
    assert not (tmp_path / "m.gguf").exists()


def test_columns_of_a_csv_are_fields(tmp_path: Path) -> None:
    found = rows(25)
    path = tmp_path / "mails.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["mail", "kind", "pieces", "due"])
        for row in found:
            answer = row["answer"]
            table.writerow([row["text"], answer["kind"], answer["pieces"] or "", answer["due"]])
    read = read_field_rows(path, SCHEMA)
    assert list(read.rows.answers) == [row["answer"] for row in found]
    assert list(read.rows.texts) == [row["text"] for row in found]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"answer": "{"}, "is no JSON"),
        ({"answer": 3}, "expected a JSON object"),
        ({"answer": {"kind": "order", "pieces": 1, "due": "2026-01-01", "x": 1}}, "'x'"),
        ({"answer": {"kind": "gift", "pieces": 1, "due": "2026-01-01"}}, "gift"),
        ({"answer": {"kind": "order", "pieces": "many", "due": "2026-01-01"}}, "number"),
        ({"answer": {"kind": "order", "pieces": 1}}, "'due' is missing"),
        ({"text": " "}, "has no text"),
    ],
)
def test_a_broken_row_is_refused_by_its_line(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    found = rows(25)
    found[6] |= change
    with pytest.raises(RequestError, match="line 7") as caught:
        read_field_rows(write(tmp_path / "mails.jsonl", found), SCHEMA)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "schema.json"),
        ('{"type": "object", "properties": {"a": {"type": "array"}}}', "#/properties/a"),
        ("[]", "expected an object"),
    ],
)
def test_a_schema_that_is_not_flat_is_refused_with_its_path(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(RequestError, match=r"schema\.json") as caught:
        read_schema(tmp_path / "schema.json")
    assert expected in str(caught.value)


def test_too_few_rows_and_a_missing_column_are_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="at least 20"):
        read_field_rows(write(tmp_path / "a.jsonl", rows(3)), SCHEMA)
    without = [{"text": row["text"], "kind": "order"} for row in rows(30)]
    with pytest.raises(RequestError, match="--label COL"):
        read_field_rows(write(tmp_path / "b.jsonl", without), SCHEMA)
    with pytest.raises(RequestError, match="'nope'"):
        read_field_rows(write(tmp_path / "a.jsonl", rows(30)), SCHEMA, text="nope")


@pytest.mark.slow
def test_the_command_says_what_each_field_is_worth(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    mails = write(tmp_path / "mails.jsonl", rows(60))
    places = ["--out", str(tmp_path / "m.gguf"), "--graph-out", str(tmp_path / "m.yaml")]
    command = ["learn", str(mails), "--schema", str(tmp_path / "schema.json"), *places]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert all(name in done.output for name in ("whole answer", *SCHEMA["properties"], "promise"))


def test_an_option_without_effect_is_refused(tmp_path: Path) -> None:
    command = ["learn", str(tmp_path / "m.jsonl"), "--schema", str(tmp_path / "s.json"), "--size", "tiny"]
    with pytest.raises(RequestError, match="--size has no effect with --schema"):
        CliRunner().invoke(app, command, catch_exceptions=False)
