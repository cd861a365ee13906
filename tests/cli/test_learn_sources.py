"""`cascade learn --from-traces` and `--ask` as they are typed."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from scripting import scripted, write
from typer.testing import CliRunner

from cascade import Cascade
from cascade.cli.main import app
from cascade.errors import RequestError
from cascade.lab.reading.answers import answers_path, read_answers

pytest.importorskip("llama_cpp", reason="needs the extra local")

COMMAND = [sys.executable, "-m", "cascade.cli.main", "learn"]
WORDS = {"printer": "the printer in room {} jams", "vpn": "the tunnel to office {} is down"}


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["learn", *map(str, arguments)])
    assert isinstance(done.exception, RequestError), done.output
    return str(done.exception)


def rows(folder: Path) -> Path:
    """Labelled rows, one of them wrongly."""
    path = folder / "desk.csv"
    names = ["blue", "tall", "north", "old", "glass", "green", "small", "south", "new", "brick"]
    lines = [f"{words.format(name)},{label}" for label, words in WORDS.items() for name in names]
    path.write_text("\n".join(["text,label", *lines, "the printer has no paper,vpn"]) + "\n")
    return path


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    path = rows(tmp_path)
    assert "or --from-traces GRAPH; neither is given" in refused()
    assert "or --from-traces GRAPH; both are given" in refused(path, "--from-traces", path)
    assert "--since is for --from-traces GRAPH" in refused(path, "--since", "30d")
    assert "--ask needs a person at a terminal" in refused(path, "--ask", "3")


def test_runs_that_tell_nothing_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    graph, db = write(tmp_path, {"a": scripted("x")}, [{"name": "s", "ask": ["a"]}]), tmp_path / "t.db"
    told = refused("--from-traces", graph, "--trace-db", db)
    assert "no run of test in" in told
    assert "run the graph" in told
    with Cascade.load(graph, trace_db=str(db)) as cascade:
        cascade.invoke("one", local_only=True)
    assert "left out: 1 private" in refused("--from-traces", graph, "--trace-db", db)


@pytest.mark.slow
def test_a_person_is_asked_at_a_terminal_and_the_answers_join_the_next_call(tmp_path: Path) -> None:
    path = rows(tmp_path)
    shown = typed([*COMMAND, str(path), "--ask", "1"], "print\n1\n")
    assert "the file: 'vpn', the expert: 'printer'" in shown
    assert "labelled: 1 of 1 texts" in shown
    assert [each.label for each in read_answers(answers_path(path)).values()] == ["printer"]
    out = tmp_path / "desk.gguf"
    made = ["--out", str(out), "--graph-out", str(tmp_path / "g.yaml"), "--max-risk", "0.3"]
    done = subprocess.run([*COMMAND, str(path), *made], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 answers of a person count instead of other labels" in done.stderr
    assert "11 rows of 'printer' (most), 10 of 'vpn'" in done.stderr
    assert out.exists()


def typed(command: list[str], keys: str, seconds: float = 120.0) -> str:
    """Run a command in a terminal and type a line each time that it asks for a label."""
    main, other = pty.openpty()
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other)
    os.close(other)
    shown, waiting, deadline = "", keys.splitlines(keepends=True), time.monotonic() + seconds
    total = len(waiting)
    try:
        while time.monotonic() < deadline:
            if not select.select([main], [], [], 1.0)[0]:
                continue
            try:
                shown += os.read(main, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                break
            while waiting and shown.count("label: ") >= total - len(waiting) + 1:
                os.write(main, waiting.pop(0).encode())
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        assert process.returncode == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(main)
    return shown
