"""A chat-completions server that breaks in every way that it is told to, on one event loop in a thread.

The fault of a request is the first word of its last message: `ok`, or one of `FAULTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from loopback import chat, stream

USAGE = (11, 3)
BIG = 24 << 20  # bytes of a body that nobody wants


class Faulty:
    """The server; `url` is its base URL, `asked` counts the requests by fault."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faulty", daemon=True)
        self._port = 0
        self._begun: set[asyncio.Task[Any] | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Faulty:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        # CPython leaves sockets open that are being accepted when their server closes (gh-109564), and a
        # task that is cancelled before its first step never runs: first let begin what was accepted.
        while asyncio.all_tasks() - self._begun - {asyncio.current_task()}:  # noqa: ASYNC110
            await asyncio.sleep(0)
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begun.add(asyncio.current_task())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().splitlines()
                sizes = [line.split(":")[1] for line in lines if line.startswith("content-length:")]
                body = json.loads(await reader.readexactly(int(sizes[0])))
                fault = str(body["messages"][-1]["content"]).split()[0]
                self.asked[fault] += 1
                if not await FAULTS[fault](writer, body):
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self._begun.discard(asyncio.current_task())


Fault = Callable[[asyncio.StreamWriter, dict[str, Any]], Awaitable[bool]]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function  # type: ignore[attr-defined]
    return function


async def send(
    writer: asyncio.StreamWriter,
    body: bytes,
    *,
    status: str = "200 OK",
    size: int | None = None,
    **headers: str,
) -> bool:
    named = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in named.items())]
    lines.append(f"Content-Length: {len(body) if size is None else size}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    return True


def events(text: str) -> list[bytes]:
    return list(stream(text.split(), usage=USAGE).chunks)


async def start_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    await writer.drain()


@fault
async def ok(writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
    if body.get("stream"):
        await start_stream(writer)
        writer.write(b"".join(events("fine")))
        await writer.drain()
        return False
    return await send(writer, chat("fine", usage=USAGE, logprobs=[("fine", -0.01)]).chunks[0])


@fault
async def text_body(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"All good!", Content_Type="text/plain")


@fault
async def html(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"<html><h1>Welcome</h1></html>", Content_Type="text/html")


@fault
async def empty_body(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"")


@fault
async def wrong_json(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b'{"choices": [{"message": {"content": "fi')


@fault
async def wrong_shape(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b'{"choices": "none", "usage": []}')


@fault
async def deep_json(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"[" * 200_000)


@fault
async def cut_stream(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    await start_stream(writer)
    writer.write(events("one two three")[0])
    await writer.drain()
    return False


@fault
async def endless_stream(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    await start_stream(writer)
    piece = events("word")[0]
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)


@fault
async def slow_loris(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


@fault
async def slow_head(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Wait: yes\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@fault
async def silence(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    await asyncio.sleep(5)  # longer than any client here waits
    return False


@fault
async def reset(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


@fault
async def hang_up(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return False


@fault
async def not_http(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    writer.write(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n")
    await writer.drain()
    return False


@fault
async def error_500(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b'{"error": {"message": "boom"}}', status="500 Internal Server Error")


@fault
async def error_503(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"<html>gateway</html>", status="503 Service Unavailable")


@fault
async def too_many(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    body = b'{"error": {"message": "slow down"}}'
    return await send(writer, body, status="429 Too Many Requests", Retry_After="30")


@fault
async def redirect(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"", status="307 Temporary Redirect", Location="http://127.0.0.1:9/v1")


@fault
async def too_long(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    await send(writer, b'{"choices": []}', size=10_000)
    return False


@fault
async def too_short(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    await send(writer, chat("fine", usage=USAGE).chunks[0], size=20)
    return False


@fault
async def compressed(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    return await send(writer, b"\x1f\x8b\x08\x00", Content_Encoding="gzip")


@fault
async def huge_body(writer: asyncio.StreamWriter, _: dict[str, Any]) -> bool:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n".encode())
    for _part in range(BIG >> 20):
        writer.write(b" " * (1 << 20))
        await writer.drain()
    return True
