"""Reads bodies off the server's event loop: small plain ones at once, all others in processes with bounds.

A thread would not do: a long call of one C function keeps all threads waiting. A process can be ended within
any call, and has a limit of its own for memory.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import BinaryIO, TypeVar, cast

from cascade.errors import RequestError
from cascade.requests import check_request
from cascade.serve.openai import checker, reading
from cascade.serve.openai.errors import ApiError
from cascade.serve.openai.reading import Api, Asked, UnreadableError, read_form

T = TypeVar("T")
WORKERS = 2
SMALL = 16 * 1024  # bytes of a body that is read at once if it has no schema
_PATIENCE = 60.0  # seconds that a process may take at all, on a machine that is busy with other things
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from cascade.serve.openai.checker import main; main()"
_TOO_LONG = f"the request takes more than {checker.CPU_SECONDS:g} s to check; make it smaller"
_log = logging.getLogger("cascade.serve")


async def read_body(api: Api, data: bytes) -> Asked:
    """Return what a body asks, checked.

    Raises:
        ApiError: 400, it is no request that can be answered, or takes too long to check.
    """
    try:
        if len(data) <= SMALL:
            asked = read_form(api, data)
            if not asked.request.tools and asked.request.output_schema is None:
                return asked.model_copy(update={"request": check_request(asked.request)})
        return await _in_pool(_Pool.read, api, data)
    except UnreadableError as error:
        raise ApiError(400, str(error), param=error.param, code=error.code) from None
    except RequestError as error:
        raise ApiError(400, str(error), code="invalid_request") from None


async def read_answer(data: bytes) -> str:
    """Return a person's answer to a waiting run.

    Raises:
        UnreadableError: the body is no answer.
    """
    return reading.read_answer(data) if len(data) <= SMALL else await _in_pool(_Pool.read_answer, data)


async def _in_pool(work: Callable[..., T], *arguments: object) -> T:
    pool = _pool(os.getpid())
    return await asyncio.get_running_loop().run_in_executor(pool.threads, work, pool, *arguments)


class _Pool:
    """Processes that read bodies, each for one thread at a time; they end with this one."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="cascade-checks")
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()

    def read(self, api: Api, data: bytes) -> Asked:
        """Have a process read a body, and check what it says once more, which is quick for what is good."""
        asked = Asked.model_validate_json(self._ask(api.encode(), data))
        check_request(asked.request)  # so that the checks of its schemas are remembered in this process
        return asked

    def read_answer(self, data: bytes) -> str:
        """Have a process read a person's answer."""
        return self._ask(checker.ANSWER, data).decode()

    def _ask(self, kind: bytes, data: bytes) -> bytes:
        worker = self._worker()
        late = threading.Timer(_PATIENCE, worker.kill)
        late.start()
        try:
            checker.write_frame(cast("BinaryIO", worker.stdin), kind + b"\n" + data)
            reply = checker.read_frame(cast("BinaryIO", worker.stdout))
        except OSError:
            reply = None
        finally:
            late.cancel()
        if reply is None:
            _end(worker)
            _log.warning("a request was refused, because it takes too long to check")
            raise UnreadableError(_TOO_LONG, code="too_complex")
        self._idle.put(worker)
        if reply[:1] == checker.BAD:
            message, param, code = json.loads(reply[1:])
            raise UnreadableError(message, param, code)
        return reply[1:]

    def close(self) -> None:
        """End the processes, unless this is a fork's copy of another one's pool."""
        with suppress(queue.Empty):
            while os.getpid() == self._pid:
                _end(self._idle.get_nowait())

    def _worker(self) -> subprocess.Popen[bytes]:
        with suppress(queue.Empty):
            while (idle := self._idle.get_nowait()).poll() is not None:
                _end(idle)
            return idle
        return subprocess.Popen(  # noqa: S603 - this interpreter, and paths that it imports from
            [sys.executable, "-P", "-c", _BOOT, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    with suppress(OSError):
        worker.communicate()


@cache
def _pool(pid: int) -> _Pool:
    """Return the pool of this process; a fork has one of its own."""
    pool = _Pool(pid)
    atexit.register(pool.close)
    return pool
