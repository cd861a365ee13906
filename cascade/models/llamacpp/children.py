"""The calls to one worker process of isolated models: sending, streaming, cancelling, and failing with it.

The process is a plain subprocess that speaks `frames` over a socket pair, not `multiprocessing`: that
runs the user's main module again, brings a resource tracker, and unpickles what a broken child sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from cascade.engine import MAX_WAITING
from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp.frames import Frame, dump_prompt, load_reply, pack, read_frame
from cascade.models.llamacpp.process import Process

START_SECONDS = 60.0
DOUBT_SECONDS = 1.0
_log = logging.getLogger("cascade.isolated")


class ChildError(Exception):
    """A worker process failed under a call; `sent` says whether the call had reached it."""

    def __init__(self, text: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(text)


class Refused(Exception):  # noqa: N818 - the answer of a live worker, not a fault
    """A worker answered with an error: its text, the tokens to pay for, whether the call timed out there."""

    def __init__(self, text: str, billed: tuple[int, int], late: bool) -> None:
        self.billed, self.late = billed, late
        super().__init__(text)


class WorkerModel(NamedTuple):
    """What a worker needs to make a model; `number` names it in this process.

    `facts` are the labels and the grammar that loading the graph resolved.
    """

    number: int
    name: str
    config: Frame
    base: str
    facts: Frame


class _Call(NamedTuple):
    future: asyncio.Future[Reply | None]
    on_piece: Callable[[str], object] | None = None


class Child:
    """One worker process. Made and used on the event loop of `supervisor.WorkerProcess`.

    Attributes:
        ended: done when the process is gone and everything that it left undone has failed.
        settled: not set while a call that timed out is still in the engine: it may hang.
        stopping: whether it was told to end.
    """

    def __init__(self, memory_mb: int | None, patience: float) -> None:
        """Start the process; `ready` tells when it takes calls.

        Args:
            memory_mb: most address space in MiB.
            patience: seconds that it may take to leave a call that was cancelled, else it is killed.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = Process(theirs, memory_mb)
            except BaseException:
                ours.close()
                raise
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count()
        self._known: set[int] = set()
        self._leaving: dict[int, list[asyncio.TimerHandle]] = {}
        self._doubted: set[int] = set()
        self.settled = asyncio.Event()
        self.settled.set()
        self._writer: asyncio.StreamWriter | None = None
        self.stopping = False
        self.ended = asyncio.create_task(self._live(ours))

    async def ready(self) -> None:
        """Return when it takes calls.

        Raises:
            ChildError: it ended before, or does not get there.
        """
        timer = self._loop.call_later(
            START_SECONDS, self.process.kill, f"did not start within {START_SECONDS:.3g} s and was killed"
        )
        try:
            await asyncio.shield(self._ready)
        finally:
            timer.cancel()

    async def ask(
        self, model: WorkerModel, prompt: Prompt, on_piece: Callable[[str], object] | None, deadline: float
    ) -> Reply:
        """Have `model` answer `prompt`; cancelling this cancels the call in the process.

        A cancellation after `deadline` (monotonic seconds) is a time-out: the process may hang.

        Raises:
            ChildError: the process failed, or cannot take the call.
            Refused: the model's own error.
        """
        if len(self._calls) >= MAX_WAITING:
            text = f"{MAX_WAITING} calls are waiting already; lower the number of concurrent requests"
            raise ChildError(text, sent=False)
        data, callbacks = dump_prompt(prompt)
        frame = {"op": "ask", "model": model.number, "prompt": data, "stream": on_piece is not None}
        if model.number not in self._known:
            frame["settings"] = {
                "name": model.name,
                "config": model.config,
                "base": model.base,
                "facts": model.facts,
            }
        reply = await self._request(frame, on_piece, deadline)
        if reply is None:
            raise ChildError("its process answered without a reply; report this", sent=True)
        if callbacks:
            reply.meta["ignored"] = callbacks
        return reply

    async def close_model(self, number: int) -> None:
        """Free what the process holds for a model. Nothing to do if the process has ended, or ends now."""
        if number in self._known and not self.ended.done():
            with contextlib.suppress(ChildError):  # the file's last model was closed, or it died
                await self._request({"op": "close", "model": number})
            self._known.discard(number)

    async def stop(self) -> None:
        """End the process: the system frees what it holds at once, whatever it is doing."""
        self.stopping = True
        self.process.kill("was stopped because its model was closed")
        await asyncio.shield(self.ended)

    async def _request(
        self, frame: Frame, on_piece: Callable[[str], object] | None = None, deadline: float = inf
    ) -> Reply | None:
        number = next(self._numbers)
        data = pack(frame | {"call": number})
        if self._writer is None or self.ended.done():
            raise ChildError("its process has ended", sent=False)
        call = self._calls[number] = _Call(self._loop.create_future(), on_piece)
        try:
            self._known.add(frame["model"])
            self._writer.write(data)
            with contextlib.suppress(ConnectionError):  # the process is dying; `_live` reports how
                await self._writer.drain()
            return await call.future
        except asyncio.CancelledError:
            self._leave(number, late=time.monotonic() >= deadline)
            raise
        except Refused as error:
            if error.late:
                self._leave(number, late=True)
            raise
        finally:
            self._calls.pop(number, None)

    def _leave(self, number: int, *, late: bool) -> None:
        """Cancel a call in the process, and watch that the engine leaves it; after a time-out it may hang."""
        if self.ended.done() or self._writer is None or self._writer.is_closing():
            return
        self._writer.write(pack({"op": "cancel", "call": number}))
        why = (
            f"hung: it did not leave a call within {self._patience:.3g} s of its time-out or cancellation, "
            "so it was killed; use a smaller model if this repeats"
        )
        self._leaving[number] = [
            self._loop.call_later(DOUBT_SECONDS, self._doubt, number),
            self._loop.call_later(self._patience, self.process.kill, why),
        ]
        if late:
            self._doubt(number)

    def _doubt(self, number: int) -> None:
        """Keep new calls out until the engine has left call `number`: they would share its fate."""
        self._doubted.add(number)
        self.settled.clear()

    def _left(self, number: int) -> None:
        for timer in self._leaving.pop(number, ()):
            timer.cancel()
        self._doubted.discard(number)
        if not self._doubted:
            self.settled.set()

    async def _live(self, connection: socket.socket) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=connection)
        tasks = {asyncio.create_task(self._read(reader)), asyncio.create_task(self.process.listen())}
        await self.process.code
        await asyncio.wait(tasks, timeout=1)  # its last lines of output may still arrive
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writer.close()
        for number in list(self._leaving):
            self._left(number)
        text = self.process.exit_reason()
        _log.info("%s", text)
        if not self._ready.done():
            self._ready.set_exception(ChildError(text, sent=False))
            self._ready.exception()  # retrieved, so that asyncio does not warn if nobody waits
        for call in self._calls.values():
            if not call.future.done():
                call.future.set_exception(ChildError(text, sent=True))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Handle its frames until the stream ends; kill a process that sends anything else."""
        try:
            while (frame := await read_frame(reader)) is not None:
                self._take(frame)
        except Exception as error:  # noqa: BLE001 - whatever it sends, it harms its own calls only
            self.process.kill(f"sent nonsense ({type(error).__name__}: {error}), so it was killed")
        else:
            self.process.kill("")  # it closed the connection, so it is of no use any more

    def _take(self, frame: Frame) -> None:
        event = frame["event"]
        if event == "ready":
            self._ready.set_result(None)
            return
        call = self._calls.get(frame["call"])
        if event == "ended":
            self._left(frame["call"])
        if call is None or call.future.done():  # it has been cancelled
            return
        if event == "text" and call.on_piece is not None:
            call.on_piece(frame["text"])
        elif event == "reply":
            call.future.set_result(load_reply(frame["reply"]))
        elif event == "error":
            billed = (int(frame["billed"][0]), int(frame["billed"][1]))
            call.future.set_exception(Refused(frame["text"], billed, frame["late"]))
        elif event == "ended":
            call.future.set_result(None)
