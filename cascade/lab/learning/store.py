"""What an interrupted call of `learn` leaves for the next one: a hidden folder beside the expert.

Each file's name holds a hash of all that decides its content, so that nothing stale is ever taken. Files are
replaced whole; one that cannot be read counts as missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cascade.errors import RequestError
from cascade.files import replace_file
from cascade.lab.learning.session import Note

Arrays = dict[str, NDArray[Any]]
_LOCK, _FACTS = "lock", "facts"


class Store:
    """The folder, locked while a call works in it."""

    def __init__(self, out: Path, *, resume: bool, note: Note) -> None:
        """Make the folder, or find the one of an interrupted call.

        Args:
            out: the expert's file.
            resume: keep what is there; otherwise the call starts from nothing.
            note: called with remarks for the user.

        Raises:
            RequestError: the folder cannot be made, or another call is at work in it.
        """
        self.folder = out.parent / f".{out.name}.learning"
        self._note = note
        self._full = False
        found = self.folder.is_dir() and any(path.name != _LOCK for path in self.folder.iterdir())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.folder / _LOCK)
        except BlockingIOError:
            text = f"another 'cascade learn' is making {out}; wait for it, or give another --out"
            raise RequestError(text) from None
        except OSError as error:
            text = f"{error.filename}: {error.strerror}; give an --out that can be written"
            raise RequestError(text) from None
        if resume and not found:
            note(f"note: nothing to go on with beside {out}; starting from the beginning")
        if found and not resume:
            note(f"note: what an interrupted call left beside {out} is dropped; --resume would go on with it")
            self._clear()

    def load(self, name: str, *key: object) -> tuple[Arrays, Any] | None:
        """Return arrays and facts that `save` kept under this name and key; None if there are none."""
        try:
            data = io.BytesIO(self._path(name, key).read_bytes())
            with np.load(data, allow_pickle=False) as file:
                arrays = {each: file[each] for each in file.files}
            return arrays, json.loads(bytes(arrays.pop(_FACTS)))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, name: str, *key: object, arrays: Mapping[str, NDArray[Any]], facts: object = None) -> None:
        """Keep arrays and facts (plain JSON); a disk without room is a remark, not an error."""
        if self._full:
            return
        data = io.BytesIO()
        text = json.dumps(facts).encode()
        np.savez(data, **{_FACTS: np.frombuffer(text, np.uint8)}, **arrays)  # type: ignore[arg-type]
        try:
            replace_file(self._path(name, key), data.getvalue())
        except OSError as error:
            self._full = True
            self._note(
                f"warning: {self.folder}: {error.strerror}; --resume will not be able to go on from here"
            )

    def close(self, *, keep: bool) -> None:
        """Let go of the folder; remove it unless the next call may go on with it."""
        if keep and any(path.name != _LOCK for path in self.folder.iterdir()):
            self._lock.close()
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _path(self, name: str, key: tuple[object, ...]) -> Path:
        return self.folder / f"{name}-{digest(*key)[:16]}.npz"

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink(missing_ok=True)


def digest(*parts: object) -> str:
    """Return a SHA-256 (hex) over parts that are plain JSON."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()


def _locked(path: Path) -> IO[bytes]:
    """Open a file and lock it until it is closed or the process ends.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    file = path.open("ab")
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
    return file
