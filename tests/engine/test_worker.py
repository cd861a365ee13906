"""The decode thread: lanes take turns, cancelled jobs stop, a failure ends only its own job."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from cascade.engine.worker import MAX_WAITING, JobSteps, decode_worker
from cascade.errors import ModelError


def job(log: list[str], name: str, steps: int, gate: threading.Event | None = None) -> JobSteps[str]:
    def run(_models: Any, _queued: float) -> Generator[None, None, str]:
        try:
            for step in range(steps):
                if gate:
                    gate.wait(30)
                log.append(f"{name}{step}")
                yield
        finally:
            log.append(f"{name} closed")
        return name

    return run


def wait(*futures: Future[Any]) -> list[Any]:
    return [future.result(timeout=30) for future in futures]


def test_jobs_of_one_lane_run_in_order_and_lanes_take_turns() -> None:
    log: list[str] = []
    gate = threading.Event()
    blocker = decode_worker().submit("gate", job([], "g", 1, gate))
    futures = [
        decode_worker().submit(lane, job(log, name, 2)) for lane, name in (("x", "a"), ("x", "b"), ("y", "c"))
    ]
    gate.set()
    assert wait(blocker, *futures) == ["g", "a", "b", "c"]
    steps = [line for line in log if "closed" not in line]
    assert steps.index("c0") < steps.index("a1")  # the other lane did not wait for job a
    assert [step for step in steps if step[0] != "c"] == ["a0", "a1", "b0", "b1"]


def test_all_jobs_run_on_one_thread() -> None:
    seen = set()

    def look(_models: Any, _queued: float) -> Generator[None, None, None]:
        seen.add(threading.current_thread().name)
        yield

    wait(*(decode_worker().submit(lane, look) for lane in range(20)))
    assert seen == {"cascade-decode"}
    assert [t.name for t in threading.enumerate()].count("cascade-decode") == 1


def test_a_job_cancelled_before_its_turn_never_runs() -> None:
    log: list[str] = []
    gate = threading.Event()
    blocker = decode_worker().submit("x", job([], "g", 1, gate))
    dropped = decode_worker().submit("x", job(log, "a", 1))
    after = decode_worker().submit("x", job(log, "b", 1))
    assert dropped.cancel()
    gate.set()
    assert wait(blocker, after) == ["g", "b"]
    assert log == ["b0", "b closed"]


def test_a_job_cancelled_while_it_runs_stops_before_its_next_step() -> None:
    log: list[str] = []
    entered, gate = threading.Event(), threading.Event()

    def run(_models: Any, _queued: float) -> Generator[None, None, None]:
        try:
            log.append("first")
            entered.set()
            gate.wait(30)
            yield
            log.append("second")
        finally:
            log.append("closed")

    future = decode_worker().submit("x", run)
    entered.wait(30)
    assert future.cancel()
    gate.set()
    wait(decode_worker().submit("x", job([], "next", 1)))
    assert log == ["first", "closed"]
    with pytest.raises(CancelledError):
        future.result()


def test_a_failure_stays_with_its_job_and_is_a_model_error() -> None:
    def fail(_models: Any, _queued: float) -> Generator[None, None, None]:
        yield
        raise ZeroDivisionError("by zero")

    bad, good = decode_worker().submit("x", fail), decode_worker().submit("x", job([], "a", 1))
    with pytest.raises(ModelError, match="the engine failed with ZeroDivisionError: by zero"):
        bad.result(timeout=30)
    assert wait(good) == ["a"]


def test_a_full_queue_refuses_and_recovers() -> None:
    gate = threading.Event()
    blocker = decode_worker().submit("x", job([], "g", 1, gate))
    futures: list[Future[str]] = []

    def flood() -> None:
        while len(futures) <= MAX_WAITING + 1:
            futures.append(decode_worker().submit("x", job([], "a", 1)))

    with pytest.raises(ModelError, match=f"{MAX_WAITING} calls are waiting already; lower the number"):
        flood()
    gate.set()
    assert wait(blocker, *futures)[-1] == "a"


def run_script(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_a_forked_child_has_a_thread_of_its_own() -> None:
    done = run_script(
        "import os\n"
        "from cascade.engine.worker import decode_worker\n"
        "def steps(models, queued):\n    yield\n    return 7\n"
        "print(decode_worker().submit('x', steps).result(), flush=True)\n"
        "if os.fork() == 0:\n"
        "    print(decode_worker().submit('x', steps).result(), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(decode_worker().submit('x', steps).result())\n"
    )
    assert (done.returncode, done.stdout.split()) == (0, ["7", "7", "7"]), done.stderr


def test_a_process_exits_cleanly_with_jobs_in_flight() -> None:
    done = run_script(
        "from cascade.engine.worker import decode_worker\n"
        "def endless(models, queued):\n    while True:\n        yield\n"
        "futures = [decode_worker().submit(lane, endless) for lane in (1, 1, 2)]\n"
        "print('leaving')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")
