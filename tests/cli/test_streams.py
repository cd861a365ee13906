"""Standard streams that are closed, full, cut off, or cannot hold what is printed; and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripting import checked, scripted, write

from cascade.trace import TraceStore

CASCADE = [sys.executable, "-m", "cascade.cli.main"]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write(tmp_path, {"m": scripted("yes – ja", delay=0.05)}, [checked("first", "m")])


def shell(command: str, graph: Path, **env: str) -> subprocess.CompletedProcess[str]:
    settings = {"GRAPH": str(graph), "RUN": " ".join(CASCADE), **env}
    return subprocess.run(
        ["bash", "-c", command],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["run $GRAPH hello", "check $GRAPH", "trace list"])
def test_a_full_disk_under_the_output_is_a_message(graph: Path, command: str) -> None:
    done = shell(f"$RUN {command} > /dev/full", graph)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the output: No space left on device; make room")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_output_is_no_place_but_the_run_is_kept(graph: Path, tmp_path: Path) -> None:
    done = shell("$RUN run $GRAPH hello >&-", graph)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        assert len(store.runs()) == 1


def test_a_closed_input_has_no_rows(graph: Path) -> None:
    done = shell("$RUN run $GRAPH --input - <&-", graph)
    assert done.returncode == 1
    assert "error: standard input: no rows" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(graph: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "hello"}\n' * 300)
    done = shell(f"$RUN run $GRAPH --input {rows} --concurrency 64 | head -1", graph)
    assert done.stdout.startswith("request")
    assert done.stderr.strip() == ""


def test_what_the_terminal_cannot_print_is_escaped(graph: Path) -> None:
    done = shell("$RUN run $GRAPH 'héllo 中'", graph, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_request_cannot_steer_the_terminal(graph: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(2 * (json.dumps({"text": "red \x1b[31m \x1b[2J \u202e end"}) + "\n"))
    done = shell(f"$RUN run $GRAPH --input {rows}", graph)
    assert done.returncode == 0, done.stderr
    assert not {"\x1b", "\u202e"} & set(done.stdout)


def test_after_an_interrupt_everything_finished_is_kept(graph: Path, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text('{"text": "hello"}\n' * 2000)
    # A shell's background jobs ignore Ctrl-C and so would the command; it is to be tried here in any case.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from cascade.cli.main import main; main()"
    )
    args = ["run", str(graph), "--input", str(rows), "--output", str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        for _ in range(12):  # the heading and eleven answers
            process.stdout.readline()  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert b"Task was destroyed" not in errors
    assert time.monotonic() - began < 30
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(written) >= 8
    assert [row["id"] for row in written] == [str(i + 1) for i in range(len(written))]
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        kept = {run.run for run in store.runs(limit=5000)}
    assert {row["run"] for row in written} <= kept
