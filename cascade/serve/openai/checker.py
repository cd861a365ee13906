"""The process that reads bodies for a server: a body that takes too long ends it, and nothing else.

Started by `checks` as a fresh interpreter. On standard input come frames, each a length and a body; for each
goes a frame out: a sign and JSON, of `Asked` or of an error.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import sys
from typing import BinaryIO, cast

from cascade.serve.openai.reading import Api, UnreadableError, read, read_answer

CPU_SECONDS = 2.0  # of one body
_MEMORY = 2 * 2**30  # bytes of address space
LENGTH = struct.Struct(">I")
ANSWER = b"answer"  # in place of an API: the body is a person's answer to a run
GOOD, BAD = b"+", b"-"


def main() -> None:
    """Answer frames until the server closes its end."""
    _limit()
    # Whatever prints must not end up between the frames.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    gc.disable()  # which would look at millions of lists again and again while they are read
    gc.freeze()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        write_frame(out, _answer(frame))
        gc.collect()


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next frame; None at the end of the stream."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = stream.read(length)
    return data if len(data) == length else None


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Write a frame."""
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def _answer(frame: bytes) -> bytes:
    """Read the body of a frame, `api`, a line end and the body, within the CPU time of one body."""
    api, _, body = frame.partition(b"\n")
    _alarm(CPU_SECONDS)
    try:
        if api == ANSWER:
            return GOOD + read_answer(body).encode()
        return GOOD + read(cast("Api", api.decode()), body).model_dump_json().encode()
    except UnreadableError as error:
        return BAD + json.dumps([str(error), error.param, error.code]).encode()
    except (MemoryError, RecursionError):
        message = "the request is too large or too deep to be read; make it smaller"
        return BAD + json.dumps([message, None, "too_large"]).encode()
    finally:
        _alarm(0)


def _limit() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server ends this one
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _alarm(seconds: float) -> None:
    """End the process after `seconds` of CPU time, even within one long call; 0: no longer."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)
