"""`cascade outcomes`: every model over labelled rows, resumed where it was cut off; and graded runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from scripting import REMOTE, checked, load, scripted, write
from typer.testing import CliRunner
from typer.testing import Result as Done

from cascade.cli.outcomes import outcomes
from cascade.errors import CascadeError
from cascade.trace import TraceStore

MODELS: dict[str, Any] = {
    "small": scripted(replies={"q1": "Yes", "q2": "no", "q3": "no"}, confidence=0.75),
    "voter": scripted(replies={f"q{k}": ["yes", "no", "yes"] for k in (1, 2, 3)}, confidence=0.5),
    "broken": scripted("never seen", fail="no luck", **REMOTE),
    "big": scripted("yes", **REMOTE),
    "keyless": {"kind": "openai", "model": "m", "key_env": "NO_SUCH_KEY", "price": {"input": 1, "output": 1}},
    "person": {"kind": "human"},
    "router": scripted("first", labels=["first", "second"], confidence=0.9),
}
STAGES = [
    {
        "name": "gate",
        "gate": {"by": "classifier", "model": "router", "to": {"first": "first", "second": "last"}},
    },
    checked("first", "small"),
    {"name": "votes", "ask": ["voter"], "samples": 3, "confidence": {"by": "agreement"}, "accept": 0.9},
    checked("fails", "broken"),
    {"name": "both", "ask": ["big", "keyless"]},
    {"name": "last", "ask": ["person"]},
]
DATA = [{"id": str(k), "text": f"q{k}", "label": "yes"} for k in (1, 2, 3)]


def run(*arguments: object) -> Done:
    app = typer.Typer()
    app.command()(outcomes)
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "120"})


def prepare(folder: Path) -> list[object]:
    """Write a graph and labelled rows; return the arguments that name them and the table."""
    graph = write(folder, MODELS, STAGES)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in DATA))
    return [graph, "--data", data, "--out", folder / "table.jsonl"]


def table(folder: Path) -> list[dict[str, Any]]:
    return sorted(
        map(json.loads, (folder / "table.jsonl").read_text().splitlines()), key=lambda row: row["id"]
    )


def test_every_model_that_answers_is_asked_about_every_row(tmp_path: Path) -> None:
    done = run(*prepare(tmp_path))
    assert done.exit_code == 0, done.exception
    rows = table(tmp_path)
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert [set(row["models"]) for row in rows] == [{"small", "voter", "big"}] * 3
    assert [row["models"]["small"]["correct"] for row in rows] == [1, 0, 0]
    assert rows[0]["models"]["small"]["text"] == "Yes"
    assert rows[0]["models"]["small"]["signals"]["p10"] == pytest.approx(0.75)
    assert rows[0]["models"]["small"]["confidence"] == pytest.approx(0.75)
    assert rows[0]["models"]["big"]["cost_usd"] == pytest.approx(3e-6)
    assert "confidence" not in rows[0]["models"]["big"]
    assert "left out: keyless: model 'keyless' needs NO_SUCH_KEY" in done.stderr


def test_a_failed_call_is_no_answer_but_has_its_price(tmp_path: Path) -> None:
    run(*prepare(tmp_path))
    failed = table(tmp_path)[0]["failed"]
    assert failed.keys() == {"broken"}
    assert failed["broken"]["error"] == "model 'broken': no luck"
    assert failed["broken"]["cost_usd"] == 0.0


def test_samples_are_asked_as_the_stage_asks_them(tmp_path: Path) -> None:
    run(*prepare(tmp_path))
    voter = table(tmp_path)[0]["models"]["voter"]
    assert (voter["text"], voter["correct"]) == ("yes", 1)
    assert voter["signals"]["agreement"] == pytest.approx(2 / 3)
    assert voter["confidence"] == pytest.approx(2 / 3)


def test_an_interrupted_table_is_resumed_and_its_rows_are_not_asked_again(tmp_path: Path) -> None:
    arguments = prepare(tmp_path)
    run(*arguments, "--concurrency", 1)
    out = tmp_path / "table.jsonl"
    first, second, _ = out.read_text().splitlines()
    marked = first.replace('"text": "Yes"', '"text": "kept"')
    out.write_text(f"{marked}\n{second[:40]}")
    done = run(*arguments)
    assert done.exit_code == 0, done.exception
    rows = table(tmp_path)
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["models"]["small"]["text"] == "kept"
    assert run(*arguments).exit_code == 0
    assert table(tmp_path) == rows


def test_kept_rows_that_lack_a_model_are_counted(tmp_path: Path) -> None:
    arguments = prepare(tmp_path)
    (tmp_path / "table.jsonl").write_text(
        '{"id": "1", "prompt": "q1", "label": "yes", "models": {"small": {"correct": 1, "cost_usd": 0}}}\n'
    )
    done = run(*arguments)
    assert done.exit_code == 0
    assert "note: 1 kept rows lack big" in done.stderr
    assert "lack small" not in done.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"id": "9", "prompt": "q9", "label": "yes", "models": {}}\n', "kept row '9' is not in the data"),
        ('{"id": "1", "prompt": "q0", "label": "yes", "models": {}}\n', "has another text or label"),
        ('{"text": "no table"}\n', "table.jsonl:1: id is None"),
    ],
)
def test_a_file_of_other_rows_is_never_touched(content: str, expected: str, tmp_path: Path) -> None:
    arguments = prepare(tmp_path)
    (tmp_path / "table.jsonl").write_text(content)
    done = run(*arguments)
    assert isinstance(done.exception, CascadeError)
    assert expected in str(done.exception)
    assert (tmp_path / "table.jsonl").read_text() == content


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "t.jsonl"], "give GRAPH and --data FILE; or --from-traces"),
        (["g.yaml", "--from-traces", "--out", "t.jsonl"], "leave out GRAPH and --data"),
        (["g.yaml", "--data", "d.jsonl", "--out", "t.csv"], "give a .jsonl file for --out"),
        (["--from-traces", "--grades", "g", "--graph-name", "x", "--out", "t.csv"], "leave out --graph-name"),
        (["--from-traces", "--out", "t.csv"], "no graded run"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: list[str], expected: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, CascadeError)
    assert expected in str(done.exception)


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    arguments = prepare(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"id": "7", "text": "q"}\n')
    assert "row '7' has no 'label'" in str(run(*arguments).exception)


def traced(folder: Path) -> tuple[TraceStore, list[str]]:
    """Run two requests through two label models; return the store and the runs' ids."""
    labels = ["yes", "no", "maybe"]
    models = {
        "small": scripted(replies={"q1": "yes", "q2": "no"}, labels=labels, confidence=0.6),
        "big": scripted("yes", labels=labels, confidence=0.95, **REMOTE),
    }
    stages = [checked("first", "small", by="labels"), checked("second", "big", by="labels")]
    with load(folder, models, stages) as cascade:
        runs = [cascade.invoke(text, metadata={"team": "red"}).run for text in ("q1", "q2")]
        location = cascade.trace_db
    assert location is not None
    return TraceStore(location), runs


def test_graded_runs_become_a_table(tmp_path: Path) -> None:
    """The right answer also grades drafts: the same label is right, another label of a closed set wrong."""
    store, runs = traced(tmp_path)
    with store:
        for name in runs:
            store.grade(name, correct=True)
        done = run("--from-traces", "--out", tmp_path / "table.jsonl", "--trace-db", store.location)
    assert done.exit_code == 0, done.exception
    one, two = (next(row for row in table(tmp_path) if row["id"] == name) for name in runs)
    assert (one["models"]["small"]["correct"], one["models"]["big"]["correct"]) == (1, 1)
    assert (two["models"]["small"]["correct"], two["models"]["big"]["correct"]) == (0, 1)
    assert two["models"]["small"]["confidence"] == pytest.approx(0.6)
    assert two["models"]["small"]["signals"]["top1"] == pytest.approx(0.6)
    assert (two["prompt"], two["team"], two["graph"].partition("@")[0]) == ("q2", "red", "test")


def test_an_invalid_draft_of_a_graded_run_is_in_no_table(tmp_path: Path) -> None:
    models = {"small": scripted("no JSON"), "big": scripted('{"sum": 3}')}
    stages = [checked("first", "small"), {"name": "last", "ask": ["big"]}]
    with load(tmp_path, models, stages) as cascade:
        result = cascade.invoke("q1", output_schema={"type": "object"})
        location = cascade.trace_db
    assert result.trace[0].decision.rule == "invalid"
    with TraceStore(str(location)) as store:
        store.grade(result.run, correct=True)
    done = run("--from-traces", "--out", tmp_path / "table.jsonl", "--trace-db", location)
    assert done.exit_code == 0, done.exception
    assert table(tmp_path)[0]["models"].keys() == {"big"}


def test_a_wrong_answer_says_nothing_about_other_drafts(tmp_path: Path) -> None:
    store, runs = traced(tmp_path)
    grades = tmp_path / "grades.jsonl"
    grades.write_text(f'{{"run": "{runs[1]}", "correct": 0}}\n')
    with store:
        options = ["--grades", grades, "--out", tmp_path / "table.jsonl", "--trace-db", store.location]
        assert run("--from-traces", *options).exit_code == 0
        assert table(tmp_path)[0]["models"].keys() == {"big"}
        with grades.open("a") as file:
            file.write(f'{{"run": "{runs[1]}", "model": "small", "quality": 0.5}}\n')
        assert run("--from-traces", *options).exit_code == 0
    models = table(tmp_path)[0]["models"]
    assert (models["big"]["correct"], models["small"]["quality"]) == (0, 0.5)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"run": "01"}', "grades.jsonl:1: neither of 'correct' and 'quality'"),
        ('{"run": "01", "correct": 1, "quality": 1}', "both of"),
        ('{"run": 1, "correct": 1}', "run is 1"),
        ('{"run": "01", "correct": 2}', "correct is 2"),
        ('{"run": "01", "quality": 7}', "quality is 7"),
        ('{"run": "01", "correct": 1, "who": "me"}', "unknown key 'who'"),
        ('{"run": "01", "correct": 1, "model": 3}', "model is 3"),
        (
            '{"run": "01", "correct": 1}\n{"run": "01", "correct": 0}',
            "grades.jsonl:2: run '01' is graded twice",
        ),
        ("[]", "expected an object"),
        ("nonsense", "not JSON"),
        ("", "no rows"),
        ('{"run": "ZZ", "correct": 1}', "run 'ZZ' is not in"),
    ],
)
def test_wrong_grades_are_refused_with_their_line(line: str, expected: str, tmp_path: Path) -> None:
    grades = tmp_path / "grades.jsonl"
    grades.write_text(line + "\n")
    done = run("--from-traces", "--grades", grades, "--out", tmp_path / "t.jsonl")
    assert isinstance(done.exception, CascadeError)
    assert expected in str(done.exception)


def test_a_grade_for_a_model_that_did_not_answer_is_refused(tmp_path: Path) -> None:
    store, runs = traced(tmp_path)
    grades = tmp_path / "grades.jsonl"
    grades.write_text(f'{{"run": "{runs[0]}", "model": "tiny", "correct": 1}}\n')
    with store:
        done = run(
            "--from-traces", "--grades", grades, "--out", tmp_path / "t.jsonl", "--trace-db", store.location
        )
    assert "has no answer of model 'tiny'; known: small, big" in str(done.exception)
