"""An evaluated prompt's beginning in a file.

llama.cpp loads a damaged state as a success, or aborts the process. So nothing of a file reaches it unless
the checksum is right, and a file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import version
from cascade.engine.generate import decode
from cascade.engine.scheduler import Scheduler
from cascade.engine.sequence import Sequence
from cascade.engine.ticket import Ticket
from cascade.files import replace_file

IntArray = npt.NDArray[np.int32]
ByteArray = npt.NDArray[np.uint8]

_DIGEST = 32
_log = logging.getLogger("cascade.engine")


class PrefixFiles:
    """A folder of saved beginnings, for one model file and kind of context.

    Files are named by what they belong to, so another model, or the same one exported anew, never finds them.
    """

    def __init__(self, folder: Path, model: Path, kind: str) -> None:
        about = model.stat()
        self._folder = folder
        # Another llama.cpp may lay a state out in another way.
        self._owner = f"1 {version} {model.resolve()} {about.st_size} {about.st_mtime_ns} {kind}".encode()

    def load(self, tokens: IntArray) -> ByteArray | None:
        """Return the state of `tokens`; None if there is none, or it is damaged."""
        path = self._path(tokens)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if data[:_DIGEST] != self._digest(tokens, data[_DIGEST:]):
            _log.warning("%s is damaged and not used; it is written anew", path)
            return None
        return np.frombuffer(data, np.uint8, offset=_DIGEST).copy()

    def save(self, tokens: IntArray, state: ByteArray) -> None:
        """Write the state of `tokens`; a folder that cannot be written costs a warning."""
        path = self._path(tokens)
        data = state.tobytes()
        try:
            replace_file(path, self._digest(tokens, data) + data)
        except OSError as error:
            _log.warning(
                "%s cannot be written: %s; the next process evaluates it again; make 'prefix_dir' a folder "
                "with room that can be written",
                path,
                error.strerror,
            )

    def _path(self, tokens: IntArray) -> Path:
        name = hashlib.sha256(self._owner + b"\0" + tokens.tobytes()).hexdigest()[:32]
        return self._folder / f"{name}.prefix"

    def _digest(self, tokens: IntArray, data: bytes) -> bytes:
        return hashlib.sha256(self._owner + b"\0" + tokens.tobytes() + b"\0" + data).digest()


def fetch(files: PrefixFiles, scheduler: Scheduler, tokens: IntArray) -> Generator[Ticket | None, None, None]:
    """Have the state of `tokens` in the scheduler's memory: from disk, else evaluated and written there."""
    prefixes = scheduler.prefixes
    state = files.load(tokens)
    if state is not None and prefixes is not None:
        prefixes.put(tokens, state)
        return
    states: list[ByteArray] = []
    sequence = Sequence(
        scheduler, tokens, lambda _row, _index: states.append(scheduler.context.save(sequence.slot))
    )
    yield from decode(scheduler, sequence)
    files.save(tokens, states[0])
