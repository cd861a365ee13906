"""One worker process: started as a fresh interpreter, listened to, reaped, and its death explained."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque

# argv: paths to import from after "--", as in this process, whatever it has put there.
BOOT = (
    "import sys; at = sys.argv.index('--'); sys.path[:] = sys.argv[at + 1:]; "
    "from cascade.models.llamacpp.child import main; main(sys.argv[1:at])"
)
_LINES_KEPT = 20
_LINE_BYTES = 500
_FIXES = {
    signal.SIGKILL: "if the machine is out of memory, lower n_ctx or use a smaller file",
    signal.SIGABRT: "llama.cpp gave up; if this repeats, download or export the file again",
}
_FIX = "if this repeats, download or export the file again"
_FOLDER = re.compile(r"/\S*/")
_log = logging.getLogger("cascade.isolated")


class Process:
    """A process that runs `child`. Its stdout and stderr are its log, never an answer.

    Attributes:
        pid: its id.
        code: its exit code once it is gone, negative for a signal; it is reaped then.
    """

    def __init__(self, theirs: socket.socket, memory_mb: int | None) -> None:
        """Start it with `theirs` as its end of the connection and at most `memory_mb` MiB of address space.

        Raises:
            OSError: no process can be started.
        """
        limits = [str(theirs.fileno()), str(os.getpid()), str(memory_mb or 0)]
        self._popen = subprocess.Popen(  # noqa: S603 - this interpreter, and paths that it imports from
            [sys.executable, "-P", "-c", BOOT, *limits, "--", *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
        )
        self.pid = self._popen.pid
        self._loop = asyncio.get_running_loop()
        self.code: asyncio.Future[int] = self._loop.create_future()
        self._why = ""
        self._last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        threading.Thread(target=self._wait, name="cascade-reaper", daemon=True).start()

    def kill(self, why: str) -> None:
        """Kill it; of several calls, the first `why` becomes the exit reason."""
        self._why = self._why or why
        self._popen.kill()

    async def listen(self) -> None:
        """Read what it prints until it ends: the last lines may say why."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await self._loop.connect_read_pipe(lambda: protocol, self._popen.stdout)
        rest = b""
        try:
            while data := await reader.read(2**16):
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[:_LINE_BYTES]
                for line in lines:
                    self._note(line)
            self._note(rest)
        finally:
            transport.close()

    def exit_reason(self) -> str:
        """Return how it ended, its last line of output, and what to do. Call this only once it is gone."""
        code = self.code.result()
        last_words = f" ({_FOLDER.sub('', self._last_lines[-1])})" if self._last_lines else ""
        if self._why:
            how = self._why
        elif code < 0:
            cause = signal.Signals(-code)
            how = f"died of {cause.name}{last_words}; {_FIXES.get(cause, _FIX)}"
        else:
            how = f"ended with exit code {code}{last_words}; the log 'cascade.isolated' has its whole output"
        return f"its process {self.pid} {how}; the next call starts a new one"

    def _note(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode(errors="replace").strip()
        if text:
            self._last_lines.append(text)
            _log.debug("process %d: %s", self.pid, text)

    def _wait(self) -> None:
        """Reap it on a thread of its own. A forked copy of this process cannot delay this sign of death."""
        code = self._popen.wait()
        self._loop.call_soon_threadsafe(self.code.set_result, code)
