"""The trace store is lossless and durable, and reports what goes wrong."""

from __future__ import annotations

import asyncio
import math
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from drawn_records import values
from hypothesis import HealthCheck, given, settings
from sqlalchemy import text

from cascade.errors import TraceError
from cascade.records import Call, Decision, Request, Result, Step, Token, new_run_id
from cascade.trace import TraceStore, default_url, verify
from cascade.trace._redact import redact


def result(run: str | None = None, **fields: Any) -> Result:
    call = Call(model="nano", tier="haiku", text="card_arrival", labels={"card_arrival": 0.9, "oos": 0.1})
    step = Step(stage="first", decision=Decision(action="accept", rule="unchecked"), calls=(call,))
    given: dict[str, Any] = {
        "run": run or new_run_id(),
        "graph": "support@9f2c41ab",
        "status": "accepted",
        "rule": "unchecked",
        "text": "card_arrival",
        "tier": "haiku",
        "started": "2026-11-21T03:00:00.000+00:00",
        "request": Request(text="where has my card got to?"),
        "trace": (step,),
    }
    return Result(**(given | fields))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceStore]:
    with TraceStore(str(tmp_path_factory.mktemp("lossless") / "runs.db")) as store:
        yield store


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values(Result))
def test_a_result_survives_a_round_trip(shared: TraceStore, drawn: Result) -> None:
    drawn = drawn.model_copy(update={"run": new_run_id()})
    shared.write(drawn)
    assert shared.get(drawn.run) == drawn


def test_infinite_log_probabilities_survive(path: Path) -> None:
    call = Call(model="m", tier="t", tokens=(Token(text="x", logprob=-math.inf, entropy=0.5),))
    step = Step(stage="s", decision=Decision(action="abstain", rule="no_estimate"), calls=(call,))
    with TraceStore(str(path)) as store:
        store.write(result("A", trace=(step,)))
        assert store.get("A").trace[0].calls[0].tokens[0].logprob == -math.inf


def test_a_lone_surrogate_from_a_model_does_not_lose_the_run(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result("A", text="bad \ud83d half", request=Request(text="x", metadata={"k": "\udcff"})))
        assert store.get("A").text == "bad \ufffd half"
        assert store.get("A").request.metadata == {"k": "\ufffd"}


def test_runs_are_listed_newest_first_filtered_and_paged(path: Path) -> None:
    with TraceStore(str(path)) as store:
        for index in range(6):
            tier = "haiku" if index % 2 else "opus"
            store.write(result(f"RUN{index}", graph=f"g{index % 3}@d{index}", tier=tier, confidence=0.5))
        store.write(
            result("RUN9", status="abstained", rule="over_cost", text=None, draft="d" * 500, tier=None)
        )
        assert [row.run for row in store.runs(limit=2)] == ["RUN9", "RUN5"]
        assert [row.run for row in store.runs(before="RUN2")] == ["RUN1", "RUN0"]
        assert [row.run for row in store.runs(tier="haiku", graph="g0")] == ["RUN3"]
        assert [row.run for row in store.runs(graph="g1@d4")] == ["RUN4"]
        assert [row.run for row in store.runs(status="abstained", rule="over_cost")] == ["RUN9"]
        assert store.runs(graph="g") == []
        summary = store.runs(limit=1)[0]
        assert summary.text == "d" * 200
        assert summary.graph == "support@9f2c41ab"


def test_runs_keep_the_order_of_submission(path: Path) -> None:
    with TraceStore(str(path)) as store:
        names = [f"R{index:03}" for index in range(300)]
        for future in [store.submit(result(name)) for name in names]:
            future.result(30)
        assert [row.run for row in store.runs(limit=1000)] == names[::-1]


def test_a_prefix_of_a_run_id_finds_it_and_others_are_suggested(path: Path) -> None:
    with TraceStore(str(path)) as store:
        for name in ("01ABCD", "01ABXY", "01ABX", "01%_"):
            store.write(result(name))
        assert store.get("01abc").run == "01ABCD"
        assert store.get("01ABX").run == "01ABX"
        assert store.get("01%").run == "01%_"
        with pytest.raises(TraceError, match="01ABCD, 01ABX, 01ABXY"):
            store.get("01AB")
        with pytest.raises(TraceError, match=r"'01ABCE' is not in .*nearest: 01ABCD"):
            store.get("01ABCE")
        with pytest.raises(TraceError, match="nearest"):
            store.get("")


def test_a_run_id_can_be_used_once_and_others_of_its_group_are_stored(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result("A"))
        futures = [store.submit(result(name)) for name in ("B", "A", "C", "B")]
        errors = [future.exception(30) for future in futures]
        assert [type(error) for error in errors] == [type(None), TraceError, type(None), TraceError]
        assert "run 'A' is already in" in str(errors[1])
        assert [row.run for row in store.runs()] == ["C", "B", "A"]


def test_a_waiting_run_is_replaced_by_its_outcome(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result("A", status="waiting", rule=None, text=None))
        done = result("A", text="blocked_card")
        store.write(done)
        assert store.get("A") == done
        with pytest.raises(TraceError, match="already"):
            store.write(done)


def test_metadata_that_is_not_json_is_refused_and_the_writer_goes_on(path: Path) -> None:
    with TraceStore(str(path)) as store:
        with pytest.raises(TraceError, match=r"run 'A' cannot be stored: .*set.*JSON"):
            store.write(result("A", request=Request(text="x", metadata={"k": {1, 2}})))
        store.write(result("B"))
        assert [row.run for row in store.runs()] == ["B"]


async def test_a_submitted_run_can_be_awaited(path: Path) -> None:
    with TraceStore(str(path)) as store:
        await asyncio.gather(*(asyncio.wrap_future(store.submit(result())) for _ in range(20)))
        assert len(store.runs()) == 20


def test_cancelling_the_wait_does_not_cancel_the_write(path: Path) -> None:
    async def impatient(store: TraceStore) -> None:
        task = asyncio.ensure_future(asyncio.wrap_future(store.submit(result("A"))))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with TraceStore(str(path)) as store:
        asyncio.run(impatient(store))
    with TraceStore(str(path), create=False) as store:
        assert store.get("A").run == "A"


def test_close_stores_submitted_runs_and_accepts_no_more(path: Path) -> None:
    store = TraceStore(str(path))
    futures = [store.submit(result()) for _ in range(50)]
    store.close()
    store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(TraceError, match="closed"):
        store.write(result())
    with TraceStore(str(path), create=False) as reader:
        assert len(reader.runs()) == 50


def test_many_threads_write_at_once(path: Path) -> None:
    with TraceStore(str(path)) as store, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: store.write(result()), range(160)))
        assert len(store.runs(limit=1000)) == 160


def test_sqlite_syncs_its_log_at_each_commit(path: Path) -> None:
    with TraceStore(str(path)) as store, store._engine.connect() as connection:  # type: ignore[union-attr]
        pragmas = [
            connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")
        ]
        assert pragmas == ["wal", 2]  # 2 is FULL


WRITER = """
import sys
from cascade.records import Request, Result
from cascade.trace import TraceStore
name, path, count = sys.argv[1:]
store = TraceStore(path)
print("ready", flush=True)
for index in range(int(count)):
    run = f"{name}-{index}"
    store.write(Result(run=run, graph="g", status="abstained", request=Request(text="x" * 500)))
    print(run, flush=True)
"""


def writer(name: str, path: Path, count: int = 10**6) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, name, str(path), str(count)], stdout=subprocess.PIPE, text=True
    )


def test_killing_the_process_loses_no_acknowledged_run(path: Path) -> None:
    acknowledged: list[str] = []
    for turn in range(3):
        process = writer(f"T{turn}", path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        threading.Timer(0.05 + 0.1 * turn, process.send_signal, [signal.SIGKILL]).start()
        lines = process.stdout.read().split("\n")[:-1]  # a line that was cut off acknowledges nothing
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        acknowledged += lines
    assert acknowledged
    with TraceStore(str(path), create=False) as store:
        stored = {row.run for row in store.runs(limit=10**6)}
    assert stored >= set(acknowledged)
    assert len(stored) <= len(acknowledged) + 3  # the run in flight may be stored, too
    assert verify(str(path)).count == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_the_log_is_synced_to_the_disk_before_a_run_is_acknowledged(path: Path, tmp_path: Path) -> None:
    """What a power cut needs, seen from outside: a sync of the log between any two acknowledgements."""
    log = tmp_path / "calls"
    strace = ["strace", "-f", "-y", "-qq", "-s", "8", "-e", "trace=write,fdatasync,fsync", "-o", str(log)]
    try:
        done = subprocess.run(
            [*strace, sys.executable, "-c", WRITER, "T", str(path), "5"], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("there is no `strace` here")
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.decode()[-200:]}")
    synced, acknowledged = 0, 0
    for line in log.read_text().splitlines():
        if "sync(" in line and "runs.db-wal>" in line:
            synced += 1
        elif "write(1<" in line and '"T-' in line:
            assert synced, line
            synced, acknowledged = 0, acknowledged + 1
    assert acknowledged == 5


def test_several_processes_create_and_write_the_same_file(path: Path) -> None:
    processes = [writer(name, path, 20) for name in "ABC"]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    with TraceStore(str(path), create=False) as store:
        assert len(store.runs(limit=1000)) == 60


def test_without_texts_only_hashes_and_numbers_are_stored(path: Path) -> None:
    secret, reply = "my card 4111 was swallowed in Ghent", "card_swallowed"
    call = Call(
        model="nano",
        tier="haiku",
        text=reply,
        labels={reply: 0.9, "lost_card": 0.1},
        tokens=(Token(text=reply, logprob=-0.1),),
        meta={"finish": "stop", "reasoning": f"they say {secret}", "batch": 3},
    )
    failed = Call(
        model="strong", tier="opus", error=f"HTTP 400: prompt {secret[3:30]!r}… refused; said {reply}"
    )
    decision = Decision(action="escalate", rule="no_draft", detail=failed.error)
    steps = tuple(Step(stage=name, decision=decision, calls=(call, failed)) for name in ("a", "b"))
    kept = Request(text=secret, metadata={"customer": "Ada Lovelace"})
    with TraceStore(str(path), store_text=False) as store:
        store.write(result("A", text=reply, draft=reply, request=kept, trace=steps))
        stored = store.get("A")
    assert not any(
        word in path.read_bytes() for word in (b"4111", b"Ghent", b"swallowed", b"Ada", b"lost_card", b"stop")
    )
    first, second = (step.calls[0] for step in stored.trace)
    assert stored.text == first.text == second.text == next(iter(first.labels or {}))
    assert (stored.text or "").startswith("sha256:")
    assert stored.request.metadata == {}
    assert first.labels is not None
    assert list(first.labels.values()) == [0.9, 0.1]
    assert first.tokens == (Token(text="", logprob=-0.1),)
    assert first.meta["batch"] == 3
    assert stored.trace[0].calls[1].error == "failed"


def test_no_part_of_an_echo_stays_in_the_error_of_a_trace_without_texts() -> None:
    """Servers echo prompts with other white space, case, quotes or escapes; none of it is stored."""
    for number in range(60):
        random = Random(f"echo {number}")
        words = ["Ada", "Lovelace", "owes", "4111", "euros", "for", "a", "boat", "in", "Ghent"]
        secret = " ".join(random.sample(words, 8))
        changed = [secret.upper(), "\n".join(secret.split()), repr(secret), " ".join(secret)]
        escaped = [secret.replace("e", "\\u0065"), secret[random.randrange(9) :]]
        echo = random.choice([secret, *changed, *escaped])
        status = random.choice([None, 400, 503])
        meta = {"reason": f"http_{status}", "status": status} if status else {"reason": echo}
        failed = Call(model="strong", tier="opus", error=f"HTTP 400: the prompt {echo} is refused", meta=meta)
        decision = Decision(action="escalate", rule="no_draft", detail=f"ValueError: could not read {echo}")
        steps = (Step(stage="a", decision=decision, calls=(failed,)),)
        kept = redact(result("A", request=Request(text=secret), trace=steps))
        call = kept.trace[0].calls[0]
        assert call.error == (f"http_{status} (HTTP {status})" if status else "failed")
        assert kept.trace[0].decision.detail == "ValueError"
        stored = kept.model_dump_json()
        assert not any(word in stored for word in ("Ghent", "Lovelace", "GHENT", "refused"))


def test_the_database_is_chosen_by_environment_or_by_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CASCADE_TRACE_DB", "sqlite:////srv/t.db")
    assert default_url() == "sqlite:////srv/t.db"
    monkeypatch.delenv("CASCADE_TRACE_DB")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))
    assert default_url() == str(tmp_path / "home" / "data" / "cascade" / "traces.db")
    with TraceStore(default_url(), create=False) as store:
        assert store.runs() == []
    assert not (tmp_path / "home").exists()
    with TraceStore(default_url()) as store:
        store.write(result())
    assert Path(default_url()).exists()
    with TraceStore(f"sqlite:///{tmp_path}/a b#c.db") as store:
        store.write(result())
    with TraceStore(str(tmp_path / "a b#c.db"), create=False) as store:
        assert len(store.runs()) == 1
        assert store.location == str(tmp_path / "a b#c.db")


def test_reading_creates_nothing_and_cannot_write(path: Path) -> None:
    with TraceStore(str(path), create=False) as store:
        assert store.runs() == []
        with pytest.raises(TraceError, match="no runs yet"):
            store.get("A")
        with pytest.raises(TraceError, match="read only"):
            store.write(result())
    assert list(path.parent.iterdir()) == []
    path.touch()
    with TraceStore(str(path), create=False) as store:
        assert store.runs() == []
    assert path.stat().st_size == 0
