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
from loopback import Gate, Loopback, chat
from scripting import checked, scripted, write

from cascade import Cascade, RequestError, Result
from cascade.config.load import load_graph
from cascade.explain import explain, render_text
from cascade.trace import TraceStore, default_url, verify


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


UNSURE = chat("no", logprobs=[("no", -3.0)])
SURE = chat("yes", logprobs=[("yes", -0.01)])


def gated(folder: Path, url: str, last: dict[str, object], **settings: object) -> Path:
    far = {
        "kind": "openai",
        "model": "m",
        "url": url,
        "key_env": None,
        "price": {"input": 1.0, "output": 2.0},
    }
    stages = [checked("first", "far"), {"name": "last", "ask": ["last"]}]
    return write(folder, {"far": far, "last": last}, stages, **settings)


async def drained(path: Path, gate: Gate) -> Result:
    """Drain a run that is in its first stage."""
    async with Cascade.load(path) as cascade:
        task = asyncio.create_task(cascade.ainvoke("hello"))
        await asyncio.to_thread(gate.asked.wait, 120)
        cascade.drain()
        gate.open.set()
        return await task


async def test_a_drained_run_stops_before_its_next_stage_and_goes_on_elsewhere(tmp_path: Path) -> None:
    with Loopback() as server:
        path = gated(tmp_path, server.url, scripted("done"))
        stopped = await drained(path, Gate(server, UNSURE))
    assert (stopped.status, stopped.text, len(stopped.trace)) == ("waiting", None, 1)
    assert "the run waits" in render_text(explain(stopped, load_graph(path).graph))
    async with Cascade.load(path) as cascade:
        with pytest.raises(RequestError, match="is not waiting for an answer"):
            await cascade.aresume(stopped.run, "yes")
        result = await cascade.aresume(stopped.run)
        with pytest.raises(RequestError, match="is not waiting for a next stage"):
            await cascade.aresume(stopped.run)
    assert (result.run, result.status, result.text) == (stopped.run, "accepted", "done")
    assert [step.stage for step in result.trace] == ["first", "last"]
    assert result.trace[0] == stopped.trace[0]
    assert result.cost_usd == pytest.approx(stopped.cost_usd)
    with TraceStore(default_url(), create=False) as store:
        assert store.get(stopped.run) == result
    assert verify(default_url()).problems == ()


async def test_a_drained_run_in_its_last_stage_answers(tmp_path: Path) -> None:
    with Loopback() as server:
        result = await drained(gated(tmp_path, server.url, scripted("done")), Gate(server, SURE))
    assert (result.status, result.text) == ("accepted", "yes")


async def test_a_run_without_its_texts_could_not_go_on_and_is_not_stopped(tmp_path: Path) -> None:
    with Loopback() as server:
        path = gated(tmp_path, server.url, scripted("done"), trace={"store_text": False})
        result = await drained(path, Gate(server, UNSURE))
    assert (result.status, result.text) == ("accepted", "done")


async def test_a_drained_run_goes_on_to_a_person(tmp_path: Path) -> None:
    with Loopback() as server:
        path = gated(tmp_path, server.url, {"kind": "human", "tier": "human"})
        stopped = await drained(path, Gate(server, UNSURE))
    async with Cascade.load(path) as cascade:
        waiting = await cascade.aresume(stopped.run)
        with pytest.raises(RequestError, match="waits for a person"):
            await cascade.aresume(stopped.run)
        result = await cascade.aresume(stopped.run, "forty-two")
    assert (stopped.status, waiting.status, result.status) == ("waiting", "waiting", "accepted")
    assert ([step.stage for step in result.trace], result.text) == (["first", "last"], "forty-two")


async def test_another_version_of_the_graph_does_not_go_on_with_a_drained_run(tmp_path: Path) -> None:
    with Loopback() as server:
        path = gated(tmp_path, server.url, scripted("done"))
        stopped = await drained(path, Gate(server, UNSURE))
    path.write_text(path.read_text() + "# changed\n")
    async with Cascade.load(path) as cascade:
        with pytest.raises(RequestError, match="was begun by"):
            await cascade.aresume(stopped.run)
