"""The worker process of isolated models: it runs the models of one file and answers over a socket.

Started by `children` as a fresh interpreter, never by fork: a forked copy of a process that has decoded
hangs. It lives exactly as long as its parent's end of the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path

from cascade.engine import decode_worker
from cascade.errors import CascadeError, ModelError
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.frames import Frame, dump_reply, load_prompt, pack, read_frame
from cascade.models.llamacpp.model import LlamaCpp
from cascade.spec.kinds import ModelFacts

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "500"  # makes the kernel kill this process before its parent when memory runs out


def main(arguments: list[str]) -> None:
    """Serve until the parent closes the socket or dies.

    Args:
        arguments: the socket's file descriptor, the parent's process id, most address space in MiB (0: no
            limit).
    """
    descriptor, parent, memory_mb = map(int, arguments)
    _guard(parent, memory_mb)
    asyncio.run(_serve(socket.socket(fileno=descriptor)))


def _guard(parent: int, memory_mb: int) -> None:
    """Die with the parent, ignore its signals, and be the first to be killed when memory runs out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)
    # Ctrl-C and a service manager's stop reach the whole group; the parent may still want answers then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold gigabytes of weights
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20, memory_mb * 2**20))


async def _serve(connection: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    server = _Server(writer)
    server.send({"event": "ready"})
    while (frame := await read_frame(reader)) is not None:
        server.handle(frame)
    os._exit(0)  # the parent is gone; exiting frees everything at once, even during a decode


class _Server:
    """Turns frames into calls of models, and their outcomes into frames."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._settings: dict[int, Frame] = {}
        self._models: dict[int, LlamaCpp] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()

    def send(self, frame: Frame) -> None:
        self._writer.write(pack(frame))

    def handle(self, frame: Frame) -> None:
        """Start what `frame` asks for; an unknown frame is a bug of the parent and ends the process."""
        call, op = int(frame["call"]), frame["op"]
        if op == "ask":
            if "settings" in frame:
                self._settings[frame["model"]] = frame["settings"]
            task = self._calls[call] = asyncio.create_task(self._ask(call, frame))
            task.add_done_callback(lambda _: self._calls.pop(call, None))
            return
        work = {"cancel": self._cancel, "close": self._close}[op]
        other = asyncio.create_task(work(call, frame))
        self._others.add(other)
        other.add_done_callback(self._others.discard)

    async def _ask(self, call: int, frame: Frame) -> None:
        def stream(piece: str) -> None:
            self.send({"event": "text", "call": call, "text": piece})

        try:
            model = self._model(frame["model"])
            reply = await model.ask(load_prompt(frame["prompt"]), stream if frame["stream"] else None)
            self.send({"event": "reply", "call": call, "reply": dump_reply(reply)})
        except CascadeError as error:
            self._fail(call, error)
        except Exception as error:  # noqa: BLE001 - becomes the caller's failed call; the others live on
            self._fail(
                call, ModelError(f"the worker failed with {type(error).__name__}: {error}; report this")
            )

    def _fail(self, call: int, error: CascadeError) -> None:
        late = isinstance(error.__cause__, TimeoutError)
        billed = getattr(error, "billed", (0, 0))
        self.send({"event": "error", "call": call, "text": str(error), "billed": billed, "late": late})

    def _model(self, number: int) -> LlamaCpp:
        if number not in self._models:
            settings = self._settings[number]
            config = LlamaCppSettings.model_validate(settings["config"])
            labels, grammar = settings["facts"]["labels"], settings["facts"]["grammar"]
            facts = ModelFacts(None if labels is None else tuple(labels), grammar=grammar)
            self._models[number] = LlamaCpp(settings["name"], config, Path(settings["base"]), facts)
        return self._models[number]

    async def _cancel(self, call: int, _frame: Frame) -> None:
        """Cancel a call, and report once the engine has left its current step."""
        task = self._calls.get(call)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await _engine_moves()
        self.send({"event": "ended", "call": call})

    async def _close(self, call: int, frame: Frame) -> None:
        model = self._models.pop(frame["model"], None)
        if model is not None:
            await model.aclose()
        self.send({"event": "ended", "call": call})


async def _engine_moves() -> None:
    """Return once the decode thread runs a new job, which shows that it does not hang."""

    def nothing(_library: object, _queued: float) -> Generator[None, None, None]:
        yield

    while True:
        try:
            await asyncio.wrap_future(decode_worker().submit(object(), nothing))
        except ModelError:  # its queue is full
            await asyncio.sleep(0.1)
        else:
            return
