"""Runs that wait for a person outlive their process, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scripting import checked, scripted, write

from cascade import Cascade, RequestError
from cascade.trace.store import TraceStore, default_url


def asking(folder: Path, **settings: object) -> Path:
    models = {"small": scripted("no", confidence=0.1), "person": {"kind": "human", "tier": "human"}}
    return write(folder, models, [checked("first", "small"), {"name": "last", "ask": ["person"]}], **settings)


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    strict = {"LANGGRAPH_STRICT_MSGPACK": "true"}
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, str(path)],
        capture_output=True, text=True, timeout=60, env=os.environ | strict,
    )  # fmt: skip


KILLED = """
import os, signal, sys
from cascade import Cascade
cascade = Cascade.load(sys.argv[1])
result = cascade.invoke("hello")
print(result.run, result.status, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_run_of_a_killed_process_is_resumed_by_the_command_line(tmp_path: Path) -> None:
    done = run(KILLED, asking(tmp_path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    name, status = done.stdout.split()
    assert status == "waiting"
    command = [sys.executable, "-m", "cascade.cli.main", "resume", name, "forty-two", "--json"]
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert resumed.returncode == 0, resumed.stderr
    assert "msgpack" not in done.stderr + resumed.stderr
    row = json.loads(resumed.stdout)
    assert (row["run"], row["status"], row["text"]) == (name, "accepted", "forty-two")
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stdout) == (1, "")
    assert "is not waiting for an answer" in again.stderr
    with TraceStore(default_url(), create=False) as store:
        found = store.get(name)
    assert [step.decision.rule for step in found.trace] == ["below_threshold", "unchecked"]


def test_another_cascade_resumes_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = asking(tmp_path)
    with Cascade.load(path) as cascade:
        waiting = [cascade.invoke(f"question {number}", account="acme") for number in range(3)]
    with Cascade.load(path) as cascade:
        done = [cascade.resume(result.run, f"answer {number}") for number, result in enumerate(waiting)]
        checkpoints = cascade._stores.checkpoints
        assert checkpoints is not None
        left = [checkpoints.get_tuple({"configurable": {"thread_id": result.run}}) for result in waiting]
    assert [result.text for result in done] == ["answer 0", "answer 1", "answer 2"]
    assert {result.request.account for result in done} == {"acme"}
    assert left == [None] * 3


def test_what_a_run_waited_with_is_overwritten_once_it_is_answered(tmp_path: Path) -> None:
    path = asking(tmp_path, trace={"store_text": False})
    with Cascade.load(path) as first:
        name = first.invoke("my word is PELICAN4711").run
    with Cascade.load(path) as second:
        assert second.resume(name, "mine is HERON4712").status == "accepted"
    held = b"".join(file.read_bytes() for file in tmp_path.glob("traces.db*"))
    assert held
    assert b"PELICAN4711" not in held
    assert b"HERON4712" not in held


def test_a_changed_graph_does_not_go_on_with_the_runs_of_the_old_one(tmp_path: Path) -> None:
    with Cascade.load(asking(tmp_path)) as cascade:
        waiting = cascade.invoke("hello")
    with Cascade.load(asking(tmp_path, description="another")) as cascade:
        with pytest.raises(RequestError, match=rf"was begun by {waiting.graph}; this is test@"):
            cascade.resume(waiting.run, "answer")
        assert cascade.version != waiting.graph


async def test_several_event_loops_wait_in_the_same_database(tmp_path: Path) -> None:
    async with Cascade.load(asking(tmp_path)) as cascade:
        here = await asyncio.gather(*(cascade.ainvoke("hello") for _ in range(4)))
        there = await asyncio.to_thread(cascade.invoke, "hello")
        texts = [(await cascade.aresume(result.run, "yes")).text for result in [*here, there]]
    assert texts == ["yes"] * 5


def test_without_a_store_runs_wait_in_memory(tmp_path: Path) -> None:
    with Cascade.load(asking(tmp_path), record=False) as cascade:
        waiting = cascade.invoke("hello")
        assert cascade.resume(waiting.run, "yes").text == "yes"
