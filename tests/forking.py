"""Helper of the tests: runs a function in a forked child, under a watchdog."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

SECONDS = 60.0


def fork(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start `work` in a forked child; return what waits for its result, which must be JSON.

    The result of a child that raises is `["TypeName", "message"]`.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            signal.alarm(int(SECONDS) + 10)  # nobody is left behind
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - handed over to the test
                traceback.print_exc()
                result = [type(error).__name__, str(error)]
            os.write(writer, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(writer)

    def wait() -> Any:
        ready, _, _ = select.select([reader], [], [], SECONDS)
        data = os.read(reader, 2**16) if ready else b""
        os.close(reader)
        if not data:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert data, f"the child hangs, or died: nothing came in {SECONDS} s"
        return json.loads(data)

    return wait


def in_child(work: Callable[[], Any]) -> Any:
    """Return the result of `work` in a forked child; see `fork`."""
    return fork(work)()
