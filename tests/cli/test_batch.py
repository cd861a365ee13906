"""A batch that is stopped in any way goes on where it was; every row is in the output exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripting import scripted, write

from cascade.cli.batch import open_output
from cascade.errors import RequestError
from cascade.lab.tables.rows import Row

ROWS = [Row(str(number), f"text {number}") for number in range(20)]


def ask(path: Path, stop: int, rows: list[Row] = ROWS, batch: str = "g@1", restart: bool = False) -> int:
    """Play a batch that stops after row `stop`; return how many rows it found done."""
    with open_output(path, rows, batch, restart=restart) as output:
        begun = len(output.done)
        for row in rows[begun:stop]:
            output.write({"id": row.id, "status": "accepted", "text": f"é\ud800 {row.text}"})
        if stop >= len(rows):
            output.finish()
    return begun


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def test_a_stopped_batch_goes_on_and_a_complete_one_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert [ask(out, 7), ask(out, 7), ask(out, 20)] == [0, 7, 7]
    assert ids(out) == [row.id for row in ROWS]
    assert not list(tmp_path.glob("*.progress"))
    assert ask(out, 3) == 0
    assert len(ids(out)) == 3


@given(
    cut=st.integers(0, 700), junk=st.sampled_from([b"", b"\0\0", b'{"id"', b'{"id": "x"}\n', b"[]\n", b"\n"])
)
def test_whatever_is_torn_off_the_end_is_asked_again(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    out = tmp_path_factory.mktemp("batch") / "out.jsonl"
    ask(out, 12)
    whole = out.read_bytes()
    out.write_bytes(whole[: max(0, len(whole) - cut)] + junk)
    assert ask(out, 20) <= 12
    assert ids(out) == [row.id for row in ROWS]


def test_another_batch_is_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    ask(out, 7)
    for rows, batch in ((ROWS, "g@2"), (ROWS[:-1], "g@1"), ([*ROWS[:-1], Row("19", "other")], "g@1")):
        with pytest.raises(RequestError, match=r"another batch \(g@1, 20 rows; .*--restart"):
            ask(out, 20, rows, batch)
    assert len(ids(out)) == 7
    assert ask(out, 20, batch="g@2", restart=True) == 0
    assert len(ids(out)) == 20


def test_two_processes_cannot_write_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with (
        open_output(out, ROWS, "g@1", restart=False),
        pytest.raises(RequestError, match="another process is writing it"),
        open_output(out, ROWS, "g@1", restart=False),
    ):
        pass


def test_a_device_is_written_and_never_continued() -> None:
    assert ask(Path(os.devnull), 7) == 0
    assert ask(Path(os.devnull), 20) == 0
    assert not Path(f"{os.devnull}.progress").exists()


@pytest.mark.parametrize("name", ["out.csv", "out.TSV", "out.parquet"])
def test_a_file_whose_name_promises_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=r"give a \.jsonl file for --output"):
        ask(tmp_path / name, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no/out.jsonl: No such file .* --output"):
        ask(tmp_path / "no" / "out.jsonl", 1)


def batch(folder: Path, rows: int, delay: float) -> list[str]:
    graph = write(folder, {"m": scripted("yes", delay=delay)}, [{"name": "s", "ask": ["m"]}])
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"id": f"r{n}", "text": f"text {n}"}) + "\n" for n in range(rows)))
    command = [sys.executable, "-m", "cascade.cli.main", "run", str(graph), "--input", str(source)]
    return [*command, "--output", str(folder / "out.jsonl"), "--concurrency", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_process_killed_at_random_points_loses_and_repeats_no_row(tmp_path: Path, seed: int) -> None:
    command, out, draw = batch(tmp_path, 400, 0.02), tmp_path / "out.jsonl", random.Random(seed)
    kills = 0
    for _ in range(40):
        size = out.stat().st_size if out.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        more = draw.randrange(2000, 20_000)
        while process.poll() is None and (not out.exists() or out.stat().st_size < size + more):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        message = process.communicate()[1].decode()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, message
        kills += 1
        if draw.random() < 0.5:  # a torn line, as a power cut leaves one
            os.truncate(out, out.stat().st_size - draw.randrange(1, 60))
    assert kills >= 2
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [f"r{n}" for n in range(400)]
    assert not list(tmp_path.glob("*.progress"))


@pytest.mark.slow
def test_the_summary_of_a_continued_batch_counts_every_row(tmp_path: Path) -> None:
    command, out = batch(tmp_path, 60, 0.02), tmp_path / "out.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not out.exists() or out.stat().st_size < 2000:
        time.sleep(0.002)
    process.kill()
    process.wait()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    body: dict[str, Any] = json.loads(done.stdout)
    assert "of 60 rows are done already" in done.stderr
    assert (body["summary"]["requests"], len(body["rows"])) == (60, 60)
    assert body["summary"]["status"] == {"accepted": 60}
