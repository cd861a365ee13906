"""The background loop: whatever happens in it reaches the caller who waits, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path

import pytest
from hang import ends
from scripting import checked, load, scripted, write

from cascade import Cascade
from cascade.observers import Observer
from cascade.run import BackgroundLoop


class Uncommon(BaseException):
    """No Exception, as those of some libraries (`trio.Cancelled`, pytest's `Failed`)."""


RAISED = [SystemExit(7), KeyboardInterrupt(), Uncommon("x"), BrokenPipeError(32, "pipe"), ValueError("x")]


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    background = BackgroundLoop()
    yield background
    ends(background.close)


async def directly(error: BaseException) -> None:
    raise error


async def later(error: BaseException) -> None:
    await asyncio.sleep(0.001)
    raise error


async def in_a_task(error: BaseException) -> None:
    await asyncio.create_task(later(error))


async def among_others(error: BaseException) -> None:
    await asyncio.gather(asyncio.sleep(5), later(error), asyncio.sleep(5))


async def while_ending(error: BaseException) -> None:
    try:
        await asyncio.create_task(asyncio.sleep(0))
    finally:
        raise error


async def in_a_thread(error: BaseException) -> None:
    await asyncio.to_thread(lambda: asyncio.run(directly(error)))


PLACES = [directly, later, in_a_task, among_others, while_ending, in_a_thread]


@pytest.mark.parametrize(("place", "error"), list(product(PLACES, RAISED)))
def test_the_caller_gets_what_a_coroutine_raises_and_the_loop_goes_on(
    loop: BackgroundLoop, place: object, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        ends(lambda: loop.run(place(error)))  # type: ignore[operator]
    assert ends(lambda: loop.run(asyncio.sleep(0, "on"))) == "on"


@pytest.mark.parametrize(("error", "after"), list(product(RAISED, [0, 1, 3])))
def test_iterating_gives_what_came_before_and_then_the_error(
    loop: BackgroundLoop, error: BaseException, after: int
) -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise error

    seen: list[int] = []

    def read() -> None:
        for item in loop.iterate(items()):
            seen.append(item)  # noqa: PERF402 - what came before the error is kept

    with pytest.raises(type(error)):
        ends(read)
    assert seen == list(range(after))


@pytest.mark.parametrize("error", RAISED)
def test_an_error_ends_its_own_caller_only(loop: BackgroundLoop, error: BaseException) -> None:
    async def patient() -> str:
        await asyncio.sleep(0.3)
        return "done"

    answers: list[str] = []
    others = [threading.Thread(target=lambda: answers.append(loop.run(patient()))) for _ in range(3)]
    for other in others:
        other.start()
    with pytest.raises(type(error)):
        ends(lambda: loop.run(later(error)))
    for other in others:
        ends(other.join)
    assert answers == ["done"] * 3


@pytest.mark.parametrize("error", RAISED)
def test_closing_survives_tasks_that_raise_when_they_are_cancelled(error: BaseException) -> None:
    loop = BackgroundLoop()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise error from None

    async def start() -> None:
        loop_tasks.extend(asyncio.create_task(stubborn()) for _ in range(3))
        await asyncio.sleep(0)

    loop_tasks: list[asyncio.Task[None]] = []
    loop.run(start())
    ends(loop.close)


@pytest.mark.parametrize("waiting", ["run", "iterate"])
def test_closing_ends_those_who_wait(waiting: str) -> None:
    for delay in (0.0, 0.0005, 0.002, 0.05):  # also in between a submission and its first step
        loop = BackgroundLoop()
        loop.run(asyncio.sleep(0))

        async def silent() -> AsyncIterator[int]:
            await asyncio.sleep(60)
            yield 1

        ended = threading.Event()

        def wait(loop: BackgroundLoop = loop, ended: threading.Event = ended) -> None:
            try:
                loop.run(asyncio.sleep(60)) if waiting == "run" else list(loop.iterate(silent()))
            except BaseException:  # noqa: BLE001 - cancelled
                ended.set()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        time.sleep(delay)
        ends(loop.close)
        if not ended.wait(0.2):  # it came after the close and started the loop again
            ends(loop.close)
        assert ended.wait(30)


def test_a_loop_that_breaks_fails_everybody_and_the_next_call_has_a_new_one() -> None:
    code = (
        "import asyncio\n"
        "from cascade.run import BackgroundLoop\n"
        "async def break_it():\n"
        "    asyncio.get_running_loop()._selector.close()\n"  # as by a program that closes all files
        "    await asyncio.sleep(60)\n"
        "loop = BackgroundLoop()\n"
        "try:\n    loop.run(break_it())\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print(loop.run(asyncio.sleep(0, 'on')))\n"
        "loop.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[1:]) == (0, ["on"]), done.stderr


def test_waiting_for_itself_is_an_error(loop: BackgroundLoop) -> None:
    async def inner() -> int:
        return loop.run(asyncio.sleep(0, 1))

    async def closing() -> None:
        loop.close()

    with pytest.raises(RuntimeError, match=r"own event loop.*ainvoke"):
        ends(lambda: loop.run(inner()))
    with pytest.raises(RuntimeError, match=r"own event loop"):
        ends(lambda: loop.run(closing()))
    assert ends(lambda: loop.run(asyncio.sleep(0, "on"))) == "on"


class Exits(Observer):
    """Exits at one point of every run."""

    def __init__(self, point: str, error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        setattr(self, point, fail)


POINTS = ["on_run_start", "on_stage_start", "on_stage_end", "on_run_end"]


@pytest.mark.parametrize(("point", "error"), list(product(POINTS, RAISED[:2])))
def test_an_exit_anywhere_in_a_run_reaches_the_caller(
    tmp_path: Path, point: str, error: BaseException
) -> None:
    path = write(tmp_path, {"m": scripted("yes")}, [checked("first", "m")])
    cascade = Cascade.load(path, observers=[Exits(point, error)])
    calls = (
        lambda: cascade.invoke("hello"),
        lambda: list(cascade.stream("hello")),
        lambda: cascade.batch(["a", "b", "c"]),
    )
    for call in calls:
        with pytest.raises(type(error)):
            ends(call)
    ends(cascade.close)


def test_a_cascade_goes_on_after_an_exit(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted("yes")}, [checked("first", "m")]) as cascade:
        with pytest.raises(SystemExit):
            ends(lambda: cascade.run_sync(later(SystemExit(3))))
        assert ends(lambda: cascade.invoke("hello")).text == "yes"
