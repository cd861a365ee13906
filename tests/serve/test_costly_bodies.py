"""No request keeps the server from answering others, whatever it costs to read."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from costly_requests import CHAT, PLAIN, Bomb, drawn_bombs, known_bombs
from scripting import scripted, write
from serving import serving

from cascade.serve.openai import checker, checks
from cascade.serve.openai.errors import ApiError

# How long an answer to /healthz may take here: a machine that runs other tests is no place to measure.
# Without the bounds it took 5 to 110 seconds; benchmarks/bombs.py measures it against 250 ms.
PATIENCE = 4.0
WATCHDOG = 120.0
MEMORY = 700  # MiB of the server's process; reading the worst took 3.2 GB
JSON = {"Content-Type": "application/json"}


class Watch(threading.Thread):
    """Asks for /healthz again and again, and keeps the longest that it took."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._over = url, threading.Event()
        self.longest, self.asked = 0.0, 0

    def run(self) -> None:
        with httpx2.Client(timeout=WATCHDOG) as http:
            while not self._over.wait(0.02):
                start = time.perf_counter()
                assert http.get(f"{self._url}/healthz").status_code == 200
                self.longest = max(self.longest, time.perf_counter() - start)
                self.asked += 1

    def stop(self) -> None:
        self._over.set()
        self.join(WATCHDOG)


def explode(folder: Path, bombs: Iterable[Bomb]) -> tuple[Watch, dict[str, int]]:
    """Send bombs, two at a time, while /healthz is watched; return the statuses that they got."""
    graph = write(folder, {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}])
    with serving(graph) as (process, url), httpx2.Client(timeout=WATCHDOG) as http:
        watch = Watch(url)

        def send(bomb: Bomb) -> tuple[str, int]:
            name, path, body = bomb
            return name, http.post(f"{url}{path}", content=body, headers=JSON).status_code

        watch.start()
        try:
            with ThreadPoolExecutor(2) as pool:
                statuses = dict(pool.map(send, list(bombs)))
        finally:
            watch.stop()
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) / 1024 < MEMORY
        assert http.post(f"{url}{CHAT}", json=PLAIN).json()["choices"][0]["message"]["content"] == "yes"
    return watch, statuses


def test_what_once_stopped_the_server_is_refused_beside_others(tmp_path: Path) -> None:
    watch, statuses = explode(tmp_path, [*known_bombs(), *drawn_bombs(8)])
    assert set(statuses.values()) <= {200, 400, 413}
    assert watch.asked > 3
    assert watch.longest < PATIENCE


@pytest.mark.slow
def test_so_are_two_hundred_drawn_ones(tmp_path: Path) -> None:
    watch, statuses = explode(tmp_path, drawn_bombs(200, seed=1))
    assert set(statuses.values()) <= {200, 400, 413}
    assert len(statuses) == 200
    assert watch.longest < PATIENCE


def test_small_plain_bodies_are_read_in_a_moment() -> None:
    """What is read on the event loop costs little, whatever it is."""
    worst = 0.0
    for _, path, body in drawn_bombs(300, seed=2, most=20_000):
        short = body[: checks.SMALL]
        for cut in (short, short + b"]}]}", short + b'"}]}'):
            start = time.process_time()
            with suppress(checks.UnreadableError):
                checks.read_form("chat" if path == CHAT else "responses", cut[: checks.SMALL])
            worst = max(worst, time.process_time() - start)
    assert worst < 1.0  # CPU seconds; some 0.02


def fresh_pool() -> None:
    checks._pool(os.getpid()).close()
    checks._pool.cache_clear()


async def test_a_body_that_takes_too_long_ends_its_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = checks._BOOT.replace(
        "main()", "import cascade.serve.openai.checker as c; c.CPU_SECONDS = 0.05; main()"
    )
    monkeypatch.setattr(checks, "_BOOT", slow)
    fresh_pool()
    try:
        [zeros] = [body for name, _, body in known_bombs() if "zeros" in name]
        for _ in range(3):
            with pytest.raises(ApiError, match="takes more than") as refused:
                await checks.read_body("chat", zeros)
            assert (refused.value.status, refused.value.code) == (400, "too_complex")
        long = b'{"model": "test", "input": "' + b"x" * checks.SMALL + b'"}'
        asked = await checks.read_body("responses", long)
        assert len(asked.request.text) == checks.SMALL
    finally:
        fresh_pool()


async def test_a_process_that_is_gone_is_replaced() -> None:
    long = b'{"model": "test", "input": "' + b"x" * checks.SMALL + b'"}'
    await checks.read_body("responses", long)
    pool = checks._pool(os.getpid())
    worker = pool._idle.get_nowait()
    worker.kill()
    worker.wait(WATCHDOG)
    pool._idle.put(worker)
    assert (await checks.read_body("responses", long)).model == "test"


def test_its_processes_end_with_the_server(tmp_path: Path) -> None:
    code = (
        "import asyncio, os; from cascade.serve.openai import checks\n"
        'body = b\'{"model": "test", "input": "\' + b\'x\' * checks.SMALL + b\'"}\'\n'
        "asyncio.run(checks.read_body('responses', body))\n"
        "print(checks._pool(os.getpid())._idle.get_nowait().pid, flush=True); os._exit(1)"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=WATCHDOG).stdout)
    end = time.monotonic() + WATCHDOG
    while Path(f"/proc/{pid}/status").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end


def test_a_frame_that_is_cut_off_is_the_end(tmp_path: Path) -> None:
    whole = tmp_path / "frames"
    with whole.open("wb") as file:
        checker.write_frame(file, b"chat\n{}")
        checker.write_frame(file, b"")
    data = whole.read_bytes()
    for length in range(len(data) + 1):
        whole.write_bytes(data[:length])
        with whole.open("rb") as file:
            frames = []
            while (frame := checker.read_frame(file)) is not None:
                frames.append(frame)
        assert frames == [b"chat\n{}", b""][: (length >= 11) + (length >= 15)]


async def test_large_and_small_bodies_are_refused_alike() -> None:
    """Where a body is read makes no difference to what is said of it."""
    wrong = (
        b'"messages": [{"role": "king", "content": "x"}]',
        b'"messages": [], "nn": 1',
        b'"messages": [{"role": "user", "content": "a\\u0000"}]',
        b'"messages": [{"role": "user"}]',
    )
    for part in wrong:
        said = []
        for padding in (b"", b" " * checks.SMALL):
            with pytest.raises(ApiError) as refused:
                await checks.read_body("chat", b'{"model": "test", ' + part + b"}" + padding)
            said.append((refused.value.status, str(refused.value), refused.value.param, refused.value.code))
        assert said[0] == said[1]
