"""A GGUF model in a process of its own: the same answers, and no fault of the process reaches the parent."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import faults
import pytest
from gguf_maker import make_gguf
from scripting import checked, load, scripted

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp import LlamaCppSettings, children, process, supervisor
from cascade.models.llamacpp.isolated import Isolated

TASKS = {"colours": ["red", "green", "blue"], "sizes": ["small", "large"]}
Build = Callable[..., Isolated]


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "expert.gguf", tasks=TASKS, max_tokens=16)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says the same two words until it is stopped."""
    return make_gguf(tmp_path_factory.mktemp("gguf") / "endless.gguf", says="on and", ends=False, n_ctx=8192)


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    """Makes isolated models; closes them after the test, which must leave no process."""
    made: list[Isolated] = []

    def isolated(path: Path, **settings: Any) -> Isolated:
        fields = {"kind": "llamacpp", "path": path.name, "isolate": "process"} | settings
        model = build_model("nano", LlamaCppSettings.model_validate(fields), path.parent)
        assert isinstance(model, Isolated)
        made.append(model)
        return model

    yield isolated
    for model in made:
        await model.aclose()
    assert supervisor.supervisor().processes() == {}


@pytest.fixture
def with_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    faults.install(monkeypatch)


def worker(path: Path) -> supervisor.WorkerProcess:
    return supervisor.supervisor()._workers[supervisor.WorkerKey(path, None)]


def pid(path: Path) -> int:
    """Return the id of the process that has `path` loaded."""
    return next(pid for place, pid in supervisor.supervisor().processes().items() if place.path == path)


def gone(pid: int) -> bool:
    """Whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


async def failure(call: Any) -> str:
    with pytest.raises(ModelError) as caught:
        await call
    return str(caught.value)


def speaking(model: Isolated) -> tuple[asyncio.Task[Reply], asyncio.Event, list[str]]:
    """Start an endless answer; the event is set when it has begun."""
    begun, spoken = asyncio.Event(), []

    def listen(piece: str) -> None:
        spoken.append(piece)
        begun.set()

    return asyncio.create_task(model.ask(Prompt("hi"), listen)), begun, spoken


async def test_it_answers_like_the_same_model_in_this_process(
    expert: Path, endless: Path, build: Build
) -> None:
    for path, settings in ((expert, {"task": "colours"}), (endless, {"max_tokens": 6})):
        here = build_model(
            "nano",
            LlamaCppSettings.model_validate({"kind": "llamacpp", "path": str(path)} | settings),
            path.parent,
        )
        there = build(path, **settings)
        heard: tuple[list[str], list[str]] = ([], [])
        one, other = (
            await here.ask(Prompt("hello card"), heard[0].append),
            await there.ask(Prompt("hello card"), heard[1].append),
        )
        await here.aclose()
        assert (one.text, one.billed) == (other.text, other.billed)
        # The company in a batch may move a probability a little.
        assert one.labels == (other.labels and pytest.approx(other.labels, abs=0.01))
        assert [token.text for token in one.tokens] == [token.text for token in other.tokens]
        for mine, theirs in zip(one.tokens, other.tokens, strict=True):
            assert (mine.logprob, mine.entropy) == pytest.approx((theirs.logprob, theirs.entropy), abs=0.05)
        assert (one.tokens_in, one.tokens_out) == (other.tokens_in, other.tokens_out)
        assert heard[0] == heard[1]
        assert list(one.labels or ()) == list(other.labels or ())
        assert other.meta.keys() == one.meta.keys() | {"isolated", "restarts"}
        assert (other.meta["isolated"], other.meta["restarts"]) == (True, 0)
        assert (there.name, there.tier, there.local, there.price, there.timeout) == (
            here.name, here.tier, here.local, here.price, here.timeout,
        )  # fmt: skip


async def test_models_of_one_file_share_a_process_and_many_calls_are_in_it(
    expert: Path, build: Build
) -> None:
    colours, sizes = build(expert, task="colours"), build(expert, task="sizes")
    asked = [(model, f"hello card {i} {'os ' * (i % 5)}") for i in range(24) for model in (colours, sizes)]
    together = await asyncio.gather(*(model.ask(Prompt(text)) for model, text in asked))
    assert list(supervisor.supervisor().processes()) == [supervisor.WorkerKey(expert, None)]
    alone = [await model.ask(Prompt(text)) for model, text in asked]
    for one, other in zip(together, alone, strict=True):
        assert one.labels == pytest.approx(other.labels, abs=0.01)
    first = pid(expert)
    await colours.aclose()
    await colours.aclose()
    assert (await sizes.ask(Prompt("hi"))).labels is not None
    assert pid(expert) == first
    await sizes.aclose()
    assert supervisor.supervisor().processes() == {}
    assert gone(first)
    assert (await colours.ask(Prompt("hi"))).meta["restarts"] == 0


async def test_models_of_one_file_are_closed_together(expert: Path, build: Build) -> None:
    """As a graph closes them: the last one ends the process while the others' notices are under way."""
    models = [build(expert, task=task) for task in ("colours", "sizes", "colours")]
    await asyncio.gather(*(model.ask(Prompt("hi")) for model in models))
    first = pid(expert)
    await asyncio.gather(*(model.aclose() for model in models))
    assert supervisor.supervisor().processes() == {}
    assert gone(first)


async def test_a_cancelled_call_ends_in_the_process_too(endless: Path, build: Build) -> None:
    task, begun, spoken = speaking(build(endless, n_ctx=8192, max_tokens=8000))
    await begun.wait()
    child = worker(endless)._child
    assert child is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    heard = len(spoken)
    reply = await build(endless, max_tokens=3).ask(Prompt("hi"))
    assert (reply.text, reply.meta["restarts"]) == ("on andon", 0)
    assert len(spoken) == heard < 8000
    assert not child._calls
    assert not child._leaving  # the process has said that its engine left the call


async def test_a_timeout_is_one_failed_call_and_the_process_lives(endless: Path, build: Build) -> None:
    short = build(endless, max_tokens=3)
    await short.ask(Prompt("hi"))
    nano = build(endless, n_ctx=8192, max_tokens=8000)
    first = pid(endless)
    with pytest.raises(
        ModelError, match=r"model 'nano' .*: timed out after 0.2 s .*raise 'timeout'"
    ) as caught:
        await nano.ask(Prompt("hi", timeout=0.2))
    unstarted = "before its turn came" in str(caught.value)
    assert caught.value.billed == ((0, 0) if unstarted else nano._worst(Prompt("hi")))
    assert (await short.ask(Prompt("hi"))).meta["restarts"] == 0
    assert pid(endless) == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\0b", r"model 'nano' \(.*expert.gguf\): text holds a NUL byte at position 1"),
        ("a\ud800", r"model 'nano' \(.*expert.gguf\): text is not valid Unicode"),
        (
            "abc " * 12,
            r"^model 'nano' \(\S*expert.gguf\): text has .* tokens; expert 'expert' task 'colours' reads at",
        ),
    ],
)
async def test_the_models_own_errors_come_through(
    expert: Path, build: Build, text: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        await build(expert, task="colours").ask(Prompt(text))
    assert caught.value.billed == (0, 0)


async def test_a_missing_or_broken_file_is_a_failed_call(tmp_path: Path, build: Build) -> None:
    path = make_gguf(tmp_path / "m.gguf", tasks=TASKS)
    nano, other = build(path, task="colours"), build(path, task="colours")
    path.unlink()
    assert "does not exist" in await failure(nano.ask(Prompt("hi")))
    path.write_bytes(b"GGUF" + bytes(100))
    assert "m.gguf" in await failure(other.ask(Prompt("hi")))
    make_gguf(path, tasks=TASKS)
    assert (await nano.ask(Prompt("hi"))).meta["restarts"] == 0  # none of it needed a new process


@pytest.mark.usefixtures("with_faults")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGABRT", "SIGKILL"])
async def test_a_crash_is_one_failed_call_and_a_restart(expert: Path, build: Build, name: str) -> None:
    nano = build(expert, task="colours")
    before = (await nano.ask(Prompt("hello"))).labels
    died = pid(expert)
    with pytest.raises(
        ModelError, match=rf"nano.*expert.gguf\): its process {died} died of {name}; .*; the next call"
    ):
        await nano.ask(Prompt(f"fault:{name}"))
    assert gone(died)
    reply = await nano.ask(Prompt("hello"))
    assert (reply.labels, reply.meta["restarts"]) == (before, 1)


@pytest.mark.usefixtures("with_faults")
async def test_a_crash_leaves_the_calls_in_other_processes_alone(
    expert: Path, endless: Path, build: Build
) -> None:
    nano, talker = build(expert, task="colours"), build(endless, n_ctx=8192, max_tokens=8000)
    other, begun, _ = speaking(talker)
    await begun.wait()
    assert "died of SIGKILL; if the machine is out of memory" in await failure(
        nano.ask(Prompt("fault:SIGKILL"))
    )
    begun.clear()
    await begun.wait()  # it speaks on
    assert not other.done()
    other.cancel()


@pytest.mark.usefixtures("with_faults")
async def test_every_call_that_was_in_a_crashed_process_fails_and_is_billed(
    endless: Path, build: Build
) -> None:
    nano = build(endless, n_ctx=8192, max_tokens=8000)
    task, begun, _ = speaking(nano)
    await begun.wait()
    waiting = [asyncio.create_task(nano.ask(Prompt("hi"))) for _ in range(4)]
    assert "ended with exit code 7" in await failure(nano.ask(Prompt("fault:exit")))
    for call in (task, *waiting):
        with pytest.raises(ModelError, match="ended with exit code 7") as caught:
            await call
        assert caught.value.billed == nano._worst(Prompt("hi"))


@pytest.mark.usefixtures("with_faults")
@pytest.mark.parametrize("fault", ["hang", "freeze"])
async def test_a_process_that_hangs_is_killed_and_the_next_call_is_answered(
    endless: Path, build: Build, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE", 0.3)
    nano = build(endless, max_tokens=3)
    await nano.ask(Prompt("hi"))
    hung = pid(endless)
    assert "timed out after 0.2 s" in await failure(nano.ask(Prompt(f"fault:{fault}", timeout=0.2)))
    reply = await nano.ask(Prompt("hi"))
    assert (reply.text, reply.meta["restarts"]) == ("on andon", 1)
    assert gone(hung)


@pytest.mark.usefixtures("with_faults")
async def test_what_the_process_prints_is_its_log_and_never_an_answer(
    expert: Path, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    nano = build(expert, task="colours")
    with caplog.at_level(logging.DEBUG, "cascade.isolated"):
        loud = await nano.ask(Prompt("fault:garbage"))
        assert (await nano.ask(Prompt("fault:garbage"))).labels == loud.labels
        await nano.aclose()
    assert "garbage on stderr" in caplog.text
    assert loud.meta["restarts"] == 0


@pytest.mark.usefixtures("with_faults")
async def test_a_process_that_breaks_the_protocol_is_ended(expert: Path, build: Build) -> None:
    nano = build(expert, task="colours")
    message = await failure(nano.ask(Prompt("fault:nonsense")))
    assert (
        "sent nonsense (ValueError: expected a mapping, got list), so it was killed; the next call" in message
    )
    assert (await nano.ask(Prompt("hello"))).meta["restarts"] == 1


async def test_a_process_that_does_not_start_says_why_and_backs_off(
    expert: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 1000.0)
    monkeypatch.setattr(supervisor, "MAX_DELAY", 1000.0)
    nano, boot = build(expert, task="colours"), process.BOOT
    monkeypatch.setattr(process, "BOOT", "import no_such_module")
    for _ in range(2):  # the first restart comes at once
        message = await failure(nano.ask(Prompt("hi")))
        assert "exit code 1 (ModuleNotFoundError: No module named 'no_such_module')" in message
    monkeypatch.setattr(process, "BOOT", boot)
    message = await failure(nano.ask(Prompt("hi")))
    assert "its process has failed 2 times in a row and starts again in" in message
    worker(expert)._not_before = 0.0
    assert (await nano.ask(Prompt("hi"))).meta["restarts"] == 2
    assert worker(expert)._failures == 0


async def test_a_process_that_never_gets_ready_is_killed(
    expert: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "START_SECONDS", 0.1)
    monkeypatch.setattr(process, "BOOT", "import time; time.sleep(3600)")
    message = await failure(build(expert, task="colours").ask(Prompt("hi")))
    assert "did not start within 0.1 s and was killed" in message


async def test_a_process_that_cannot_be_made_is_a_failed_call(
    expert: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = build(expert, task="colours")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        assert "its process cannot start: [Errno 2]" in await failure(nano.ask(Prompt("hi")))
    assert (await nano.ask(Prompt("hi"))).text


async def test_memory_beyond_the_limit_is_a_failed_call(tmp_path: Path, build: Build) -> None:
    n_ctx = 6_000_000  # 3 GiB of keys and values
    path = make_gguf(tmp_path / "m.gguf", n_ctx=n_ctx)
    message = await failure(build(path, n_ctx=n_ctx, memory_mb=2500, max_tokens=2).ask(Prompt("hi")))
    assert "m.gguf" in message
    small = build(path, n_ctx=512, memory_mb=2500, max_tokens=2)
    assert (await small.ask(Prompt("hi"))).tokens_out == 2


async def test_event_loops_in_several_threads_share_the_process(expert: Path, build: Build) -> None:
    nano = build(expert, task="colours")
    found: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(nano.ask(Prompt("hello")))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
    assert len(found) == 4
    for reply in found:  # company changes the last digits
        assert reply.labels == pytest.approx(found[0].labels, abs=1e-3)
    assert len(supervisor.supervisor().processes()) == 1


async def test_calls_beyond_the_bound_are_refused(
    endless: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "MAX_WAITING", 1)
    task, begun, _ = speaking(build(endless, n_ctx=8192, max_tokens=8000))
    await begun.wait()
    assert "1 calls are waiting already; lower the number" in await failure(build(endless).ask(Prompt("hi")))
    task.cancel()


@pytest.mark.usefixtures("with_faults")
def test_a_crash_in_a_graph_is_a_recorded_call_and_the_next_stage_answers(
    expert: Path, tmp_path: Path
) -> None:
    nano = {"kind": "llamacpp", "path": str(expert), "task": "colours", "isolate": "process"}
    stages = [checked("first", "nano", by="labels", accept=0.35), {"name": "last", "ask": ["large"]}]
    with load(tmp_path, {"nano": nano, "large": scripted("from the large one")}, stages) as cascade:
        died, answered = cascade.invoke("fault:SIGSEGV"), cascade.invoke("hello")
    assert died.text == "from the large one"
    assert "died of SIGSEGV" in str(died.trace[0].calls[0].error)
    assert died.trace[0].decision.rule == "no_draft"
    assert answered.text in TASKS["colours"]
    meta = answered.trace[0].calls[0].meta
    assert (meta["isolated"], meta["restarts"]) == (True, 1)
