"""`cascade run` as a person types it: one text, files in and out, and input that is wrong."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from scripting import checked, scripted, write

ROWS = [("a", "hello", "yes"), ("b", "riddle", "no"), ("c", "stuck", "yes")]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    small = scripted("yes", confidence=0.9, tier="haiku")
    fallback = {"riddle": "no", "stuck": "perhaps"}
    models = {
        "small": {**small, "replies": {"riddle": "hm"}, "default": "yes"},
        "large": scripted(
            replies=fallback, confidence=0.95, tier="opus", price={"input": 1.0, "output": 2.0}
        ),
    }
    return write(tmp_path, models, [checked("first", "small", accept=0.85), checked("last", "large")])


def cascade(*args: object, stdin: bytes | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cascade.cli.main", *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=120,
        env=os.environ | env,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_one_text_prints_one_line_and_how_to_ask_why(graph: Path) -> None:
    done = cascade("run", graph, "hello")
    assert done.returncode == 0, done.stderr
    assert "yes" in done.stdout
    assert "confident" in done.stdout
    assert "cascade trace explain 01" in done.stderr


def test_how_to_ask_why_can_be_pasted_where_the_traces_are_elsewhere(graph: Path, tmp_path: Path) -> None:
    done = cascade("run", graph, "hello", "--trace-db", tmp_path / "my runs.db")
    command = shlex.split(done.stderr.partition("why: cascade ")[2].splitlines()[0])
    assert "small" in cascade(*command).stdout


def test_one_text_as_json_has_the_documented_fields(graph: Path) -> None:
    row = json.loads(cascade("run", graph, "hello", "--json").stdout)
    assert list(row) == [
        "id", "status", "text", "confidence", "calibrated", "stage", "model", "tier", "rule", "cost_usd",
        "seconds", "run",
    ]  # fmt: skip
    assert (row["text"], row["tier"], row["calibrated"]) == ("yes", "haiku", False)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "stdin"])
def test_a_file_of_rows_gives_one_output_row_each_in_order(graph: Path, tmp_path: Path, kind: str) -> None:
    rows = [{"id": name, "text": text, "label": label} for name, text, label in ROWS]
    source, stdin = jsonl(tmp_path / "in.jsonl", rows), None
    if kind == "csv":
        source = tmp_path / "in.csv"
        source.write_text("id,text,label\n" + "".join(f'{n},"{t}",{label}\n' for n, t, label in ROWS))
    elif kind == "stdin":
        stdin = source.read_bytes()
    out = tmp_path / "out.jsonl"
    done = cascade("run", graph, "--input", "-" if stdin else source, "--output", out, stdin=stdin)
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in written] == ["a", "b", "c"]
    assert all(row["run"] for row in written)
    assert "right" in done.stdout
    assert "traces" in done.stdout


def test_the_summary_as_json_counts_tiers_and_errors(graph: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for _, text, label in ROWS]
    body = json.loads(cascade("run", graph, "--input", jsonl(tmp_path / "in.jsonl", rows), "--json").stdout)
    assert body["summary"]["requests"] == len(body["rows"]) == 3
    assert body["summary"]["tiers"] == {"haiku": 1.0}
    assert body["summary"]["accuracy"] == pytest.approx(2 / 3)
    assert body["summary"]["selective_risk"] == pytest.approx(1 / 3)


BROKEN = {
    "not json": (b'{"text": "fine"}\n{"text": oops}\n', ":2: not JSON"),
    "a list": (b'["text"]\n', ":1: expected an object"),
    "no text": (b'{"id": "1", "body": "x"}\n', ":1: no 'text'; known keys here: id, body"),
    "empty text": (b'{"text": "  "}\n', ":1: text is empty"),
    "a number": (b'{"text": 7}\n', ":1: text is int"),
    "nul": (b'{"text": "a\\u0000b"}\n', ":1: text holds a NUL byte at position 1"),
    "surrogate": (b'{"text": "\\ud800"}\n', ":1: text is not valid Unicode"),
    "not utf-8": (b'{"text": "fine"}\n{"text": "\xff"}\n', ":2: not valid UTF-8"),
    "twice": (b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n', ":2: id '1' is used twice"),
    "nothing": (b"\n", "no rows"),
    "deep": (b"[" * 100_000 + b"\n", ":1: not JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rows_are_named_by_file_and_line_before_anything_runs(
    graph: Path, tmp_path: Path, case: str
) -> None:
    content, message = BROKEN[case]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content)
    done = cascade("run", graph, "--input", source, "--output", out)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert not (tmp_path / "traces.db").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give either TEXT or --input"),
        (["hello", "--input", "x.jsonl"], "give either TEXT or --input"),
        (["--input", "missing.jsonl"], "missing.jsonl: No such file"),
        ([""], "text is empty"),
        (["hello", "--output", "/no/such/folder/out.jsonl"], "/no/such/folder/out.jsonl: No such file"),
    ],
)
def test_a_wrong_call_is_one_clear_line(graph: Path, args: list[str], message: str) -> None:
    done = cascade("run", graph, *args)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_megabyte_of_text_is_refused_or_answered_but_never_a_crash(graph: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": "x" * 1_000_001}]
    done = cascade("run", graph, "--input", jsonl(tmp_path / "in.jsonl", rows))
    assert done.returncode == 1
    assert "1000001 bytes; a request takes at most 1000000" in done.stderr


def test_a_missing_or_broken_graph_is_a_message(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\nmodels: {}\nstages: [")
    for path in (tmp_path / "none.yaml", broken):
        done = cascade("run", path, "hello")
        assert done.returncode == 1
        assert path.name in done.stderr
        assert "Traceback" not in done.stderr


def test_the_output_of_an_earlier_run_survives_a_run_that_cannot_begin(tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.yaml", tmp_path / "out.jsonl"
    broken.write_text("name: x\nmodels: {}\nstages: [")
    out.write_text("kept\n")
    assert cascade("run", broken, "hello", "--output", out).returncode == 1
    assert out.read_text() == "kept\n"


def test_a_file_of_one_row_prints_its_line_too(graph: Path, tmp_path: Path) -> None:
    done = cascade("run", graph, "--input", jsonl(tmp_path / "in.jsonl", [{"text": "hello"}]))
    assert "confident" in done.stdout
    assert "answered   100% of 1" in done.stdout


def test_an_output_row_of_a_lone_surrogate_is_valid_unicode(tmp_path: Path) -> None:
    graph, out = write(tmp_path, {"m": scripted("\ud800")}, [checked("first", "m")]), tmp_path / "out.jsonl"
    done = cascade("run", graph, "hello", "--output", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["text"] == "\ufffd"


def test_a_trace_store_that_cannot_be_written_is_a_message(graph: Path, tmp_path: Path) -> None:
    not_a_database = tmp_path / "notes.db"
    not_a_database.write_text("these are my notes, keep them safe " * 50)
    done = cascade("run", graph, "hello", "--trace-db", not_a_database)
    assert done.returncode == 1
    assert "notes.db" in done.stderr
    assert "Traceback" not in done.stderr
    assert not_a_database.read_text().startswith("these are my notes")
