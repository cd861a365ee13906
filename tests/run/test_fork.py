"""A forked child works, whatever its parent did before: threads, locks and connections are its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from expert_maker import make_small_expert
from forking import fork, in_child
from gguf_maker import make_gguf
from hang import ends
from loopback import Loopback, chat, stream
from postgres import Server
from scripting import checked, scripted, write

from cascade import Cascade, TraceStore
from cascade._fork import ForkGate

# Python 3.12 and later warn of every fork with threads, which is what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ONLY = [{"name": "only", "ask": ["m"]}]
Use = Callable[[Cascade], object]


def invoked(cascade: Cascade) -> object:
    return cascade.invoke("one").text


def awaited(cascade: Cascade) -> object:
    return asyncio.run(cascade.ainvoke("one")).text


def streamed(cascade: Cascade) -> object:
    return list(cascade.stream("one"))[-1].text  # type: ignore[union-attr]


def batched(cascade: Cascade) -> object:
    return cascade.batch(["a", "b"])[0].text


def nothing(_: Cascade) -> object:
    return None


def half_read(cascade: Cascade) -> object:
    stream = cascade.stream("one")
    next(stream)
    _open_streams.append(stream)
    return None


def released(cascade: Cascade) -> object:
    cascade.invoke("one")
    return cascade.run_sync(cascade.release())


_open_streams: list[Any] = []


@pytest.fixture
def remote() -> Iterator[str]:
    with Loopback() as server:
        server.answers = [lambda seen: stream("yes") if seen.json.get("stream") else chat("yes")]
        yield server.url


KINDS = ["scripted", "openai", "llamacpp", "isolated", "graph"]


def load(kind: str, folder: Path, url: str, trace_db: str | None = None) -> Cascade:
    if kind == "scripted":
        model: dict[str, Any] = scripted("yes")
    elif kind == "openai":
        model = {"kind": "openai", "model": "gpt", "url": url, "key_env": None, "local": True}
    elif kind == "graph":
        inner = folder / "inner"
        inner.mkdir()
        model = {"kind": "cascade", "path": str(write(inner, {"m": scripted("yes")}, ONLY))}
    else:
        make_gguf(folder / "m.gguf", says="yes")
        model = {"kind": "llamacpp", "path": "m.gguf"}
        model |= {"isolate": "process"} if kind == "isolated" else {}
    return Cascade.load(write(folder, {"m": model}, ONLY), trace_db=trace_db)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [nothing, invoked, awaited, half_read, released])
def test_a_child_works_whatever_the_parent_did(tmp_path: Path, remote: str, kind: str, before: Use) -> None:
    with load(kind, tmp_path, remote) as cascade:
        before(cascade)
        uses = (invoked, awaited, streamed, batched)
        assert in_child(lambda: [use(cascade) for use in uses]) == ["yes"] * 4
        assert ends(lambda: invoked(cascade)) == "yes"
        _open_streams.clear()


def test_a_child_asks_a_learned_expert_as_its_parent_did(tmp_path: Path) -> None:
    make_small_expert(tmp_path / "m.gguf")
    with Cascade.load(write(tmp_path, {"m": {"kind": "llamacpp", "path": "m.gguf"}}, ONLY)) as cascade:
        expected = invoked(cascade)
        assert in_child(lambda: [use(cascade) for use in (invoked, awaited)]) == [expected] * 2
        assert invoked(cascade) == expected


@pytest.mark.parametrize("kind", ["scripted", "llamacpp", "isolated"])
def test_a_child_of_a_child_and_its_parents_work(tmp_path: Path, remote: str, kind: str) -> None:
    with load(kind, tmp_path, remote) as cascade:
        invoked(cascade)

        def child() -> list[Any]:
            return [invoked(cascade), in_child(lambda: invoked(cascade)), invoked(cascade)]

        assert in_child(child) == ["yes", "yes", "yes"]
        assert ends(lambda: invoked(cascade)) == "yes"


def test_a_child_closes_and_leaves_as_usual(tmp_path: Path, remote: str) -> None:
    for kind in ("scripted", "llamacpp", "isolated"):
        folder = tmp_path / kind
        folder.mkdir()
        with load(kind, folder, remote) as cascade:
            invoked(cascade)

            def closed(cascade: Cascade = cascade) -> str:
                cascade.close()
                return "closed"

            assert in_child(closed) == "closed"
            assert ends(lambda cascade=cascade: invoked(cascade)) == "yes"


def _ask(_: object = None) -> object:
    return invoked(_shared[0])


_shared: list[Cascade] = []


@pytest.mark.parametrize("kind", ["scripted", "llamacpp"])
def test_processes_of_the_standard_library_work(tmp_path: Path, remote: str, kind: str) -> None:
    with load(kind, tmp_path, remote) as cascade:
        invoked(cascade)
        _shared[:] = [cascade]
        method = multiprocessing.get_context("fork")
        process = method.Process(target=_ask)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        with ProcessPoolExecutor(2, mp_context=method) as pool:
            assert list(pool.map(_ask, range(6), timeout=60)) == ["yes"] * 6


def stores(folder: Path, postgres: Server) -> Iterator[str]:
    yield str(folder / "traces.db")
    yield postgres.database()


@pytest.mark.parametrize("number", [0, 1], ids=["sqlite", "postgres"])
def test_parents_and_children_lose_no_run_that_they_stored(
    tmp_path: Path, postgres: Server, number: int
) -> None:
    # Runs are at work in two threads of the parent at every fork.
    url = list(stores(tmp_path, postgres))[number]
    path = write(tmp_path, {"m": scripted("yes", delay=0.002)}, ONLY, budgets={"day_usd": 5.0})
    cascade = Cascade.load(path, trace_db=url)
    stop, mine = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            mine.append(cascade.invoke("parent").run)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    draw, waits = random.Random(0), []
    for _ in range(8):
        time.sleep(draw.random() * 0.05)
        waits.append(fork(lambda: [cascade.invoke("child").run for _ in range(5)]))
    theirs = [run for wait in waits for run in wait()]
    stop.set()
    for thread in threads:
        ends(thread.join)
    ends(cascade.close)
    with TraceStore(url, create=False) as store:
        stored = {run.run for run in store.runs(limit=100_000)}
    assert len(theirs) == 8 * 5
    assert {*mine, *theirs} <= stored


def test_no_sqlite_connection_crosses_a_fork(tmp_path: Path) -> None:
    # A child would believe that it holds its parent's locks, and lose what it commits.
    path = write(tmp_path, {"p": {"kind": "human"}}, [{"name": "only", "ask": ["p"]}])
    cascade = Cascade.load(path, trace_db=str(tmp_path / "t.db"))
    cascade.invoke("one")

    def opened() -> list[str]:
        links = [link for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link)]
        return [str(link.readlink()) for link in links if "t.db" in str(link.readlink())]

    assert opened()
    assert in_child(opened) == []
    cascade.close()


@pytest.mark.parametrize("number", [0, 1], ids=["sqlite", "postgres"])
def test_a_child_resumes_a_run_that_waits(tmp_path: Path, postgres: Server, number: int) -> None:
    url = list(stores(tmp_path, postgres))[number]
    path = write(tmp_path, {"p": {"kind": "human"}}, [{"name": "only", "ask": ["p"]}])
    with Cascade.load(path, trace_db=url) as cascade:
        runs = [cascade.invoke("who?").run for _ in range(2)]
        assert in_child(lambda: cascade.resume(runs[0], "me").text) == "me"
        assert ends(lambda: cascade.resume(runs[1], "you")).text == "you"


def test_a_child_does_not_end_the_runs_of_its_parent(tmp_path: Path) -> None:
    path = write(tmp_path, {"m": scripted("yes", delay=0.5)}, [checked("only", "m")])
    with Cascade.load(path) as cascade:
        running = threading.Thread(target=lambda: cascade.invoke("parent"))
        running.start()
        time.sleep(0.1)

        def child() -> list[object]:
            cascade.drain()  # nothing of its own is at work
            return [invoked(cascade), cascade.close()]

        assert in_child(child) == ["yes", None]
        ends(running.join)
        with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
            kept = sorted((run.status, run.text) for run in store.runs())
    assert [status for status, _ in kept] == ["accepted", "accepted"]


@pytest.mark.parametrize("held", ["work", "wait"])
def test_a_fork_in_the_middle_of_work_says_so_in_the_child(held: str) -> None:
    gate = ForkGate(seconds=0.2)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gate.work():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=work)
    if held == "work":
        thread.start()
        inside.wait()
    else:
        gate.enter()  # by the thread that forks, which would wait for itself
    began = time.monotonic()
    assert in_child(lambda: gate.clean) is False
    assert gate.clean
    assert time.monotonic() - began < 30
    leave.set()
    if held == "work":
        ends(thread.join)


def test_a_store_that_was_forked_in_use_is_one_clear_error(tmp_path: Path) -> None:
    with TraceStore(str(tmp_path / "t.db")) as store:
        with store._connection():
            said = in_child(store.runs)
        assert said[0] == "TraceError"
        assert "load the cascade after the fork" in said[1]
        assert store.runs() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_lives_of_parents_and_children(tmp_path: Path, remote: str, seed: int) -> None:
    draw = random.Random(seed)
    cascades = []
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        cascades.append(load(kind, tmp_path / kind, remote, str(tmp_path / "all.db")))
    uses: list[Use] = [invoked, awaited, streamed, batched, half_read, released]

    def live(depth: int) -> list[str]:
        said = []
        for _ in range(draw.randrange(1, 5)):
            if depth < 3 and draw.random() < 0.4:
                draw.seed(draw.random())
                said += in_child(lambda: live(depth + 1))
            else:
                said.append(draw.choice(uses)(draw.choice(cascades)))
        return [text for text in said if text is not None]  # type: ignore[misc]

    assert set(live(0)) <= {"yes"}
    _open_streams.clear()
    for cascade in cascades:
        ends(cascade.close)
