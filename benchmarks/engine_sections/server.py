"""llama-server on loopback, asked over HTTP with streaming."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cascade.errors import ConfigError

SLOTS = 8
_HOST = "127.0.0.1"
_PATIENCE = 120.0  # seconds until it must have loaded


@asynccontextmanager
async def serving(program: Path, file: Path, threads: int, n_ctx: int) -> AsyncIterator[int]:
    """Run `llama-server -np 8` with `n_ctx` tokens for each slot; gives its port.

    Raises:
        ConfigError: it ended, or did not load in time.
    """
    port = _free_port()
    options = {
        "-m": file, "--host": _HOST, "--port": port, "-np": SLOTS, "-c": SLOTS * n_ctx,
        "-t": threads, "-tb": threads, "--cache-ram": 0,
    }  # fmt: skip
    arguments = [str(part) for pair in options.items() for part in pair]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, "--no-ui", "--offline", stdout=quiet, stderr=quiet
    )
    try:
        await _healthy(process, port)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def stream(port: int, prompt: list[int], tokens: int) -> list[float]:
    """Ask for `tokens` more tokens and return the `time.perf_counter` at which each came.

    Raises:
        ConfigError: the server answered something else.
    """
    body = {
        "prompt": prompt, "n_predict": tokens, "stream": True, "temperature": 0.0, "cache_prompt": False,
        "ignore_eos": True,
    }  # fmt: skip
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        writer.write(_request("POST /completion", json.dumps(body).encode()))
        times = []
        last = b""
        async for line in reader:
            last = line
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                if event.get("stop"):
                    break
                times.append(time.perf_counter())
    finally:
        writer.close()
    if not times:
        raise ConfigError(f"llama-server streamed no tokens; its last line is {last[:200]!r}")
    return times


def _request(line: str, body: bytes = b"") -> bytes:
    head = f"{line} HTTP/1.1\r\nHost: {_HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def _healthy(process: Any, port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if process.returncode is not None:
            raise ConfigError(f"llama-server ended with {process.returncode} while loading")
        try:
            reader, writer = await asyncio.open_connection(_HOST, port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        writer.write(_request("GET /health"))
        status = await reader.readline()
        writer.close()
        if b" 200 " in status:
            return
        await asyncio.sleep(0.2)
    raise ConfigError(f"llama-server did not load in {_PATIENCE:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
