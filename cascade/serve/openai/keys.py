"""API keys: who may ask which graphs, how often, and for how much a day.

A key is 32 random bytes, so its SHA-256 hash cannot be guessed back: only that is in the file. The key
itself is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from cascade.errors import ConfigError
from cascade.files import read_record, sole_writer, write_whole
from cascade.records import Record
from cascade.spec.parts import NAME

_log = logging.getLogger("cascade.serve")
_PREFIX = "csk_"
_MAX_NAME = 64  # characters of an account's name
_REDO = "make keys with `cascade keys add`"


class ApiKey(Record):
    """One key: its account's name, the hash, and what it may do.

    `graphs` None means all; `per_minute` is the rate of requests, `day_usd` the most money of a UTC day;
    None means no limit. `admin` keys may read and grade runs, and see the viewer.
    """

    name: str = Field(pattern=NAME, max_length=_MAX_NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    graphs: tuple[str, ...] | None = None
    per_minute: int | None = Field(None, ge=1)
    day_usd: float | None = Field(None, ge=0.0)
    admin: bool = False
    created: str = ""


class KeyFile(Record):
    """The keys of a server."""

    keys: tuple[ApiKey, ...] = ()


def read_keys(path: Path) -> KeyFile:
    """Return the keys in the file at `path`.

    Raises:
        ConfigError: it is missing or broken.
    """
    return read_record(KeyFile, path, "keys", _REDO)


def add_key(path: Path, **fields: object) -> tuple[ApiKey, str]:
    """Add a key to the file at `path`, which is made if it is missing; return it with the key itself.

    Raises:
        ConfigError: the name is taken or none, or the file cannot be read or written.
    """
    secret = _PREFIX + secrets.token_urlsafe(32)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        made = ApiKey.model_validate({**fields, "sha256": digest(secret), "created": now})
    except ValidationError as error:
        if all(item["loc"] != ("name",) for item in error.errors()):
            raise
        text = f"a letter, then letters, digits, _ and -, at most {_MAX_NAME} in all"
        raise ConfigError(f"{fields.get('name')!r} is no name of an account; expected {text}") from error
    with _sole_writer(path):
        known = read_keys(path) if path.exists() else KeyFile()
        if any(key.name == made.name for key in known.keys):
            raise ConfigError(f"{path}: a key {made.name!r} exists; remove it first, or choose another")
        _write(KeyFile(keys=(*known.keys, made)), path)
    return made, secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key from the file at `path`; a running server refuses it from then on.

    Raises:
        ConfigError: there is no such key, or the file cannot be read or written.
    """
    with _sole_writer(path):
        known = read_keys(path)
        remaining = tuple(key for key in known.keys if key.name != name)
        if len(remaining) == len(known.keys):
            names = ", ".join(key.name for key in known.keys) or "none"
            raise ConfigError(f"{path}: no key {name!r}; known: {names}")
        _write(KeyFile(keys=remaining), path)


def digest(secret: str) -> str:
    """Return the hash of a key."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


@contextmanager
def _sole_writer(path: Path) -> Iterator[None]:
    try:
        with sole_writer(path):
            yield
    except OSError as error:
        raise ConfigError(f"{path}: keys file cannot be locked: {error.strerror}") from error


def _write(file: KeyFile, path: Path) -> None:
    write_whole(file.model_dump_json(indent=2) + "\n", path, "keys")
    path.chmod(0o600)


class Keyring:
    """The keys of a running server; a changed file is read again.

    While a file is broken, because somebody edits it, the keys before it hold. Without a file nobody has one.
    """

    def __init__(self, path: Path) -> None:
        """Read the file at `path`.

        Raises:
            ConfigError: it is missing or broken.
        """
        self._path = path
        self._read = self._broken = self._stamp()
        self._keys = {key.sha256: key for key in read_keys(path).keys}
        self._removed: set[str] = set()  # accounts that had a key once

    def find(self, secret: str) -> ApiKey | None:
        """Return the key that `secret` is, or None."""
        self._reread()
        return self._keys.get(digest(secret))

    def day_usd(self, account: str) -> float | None:
        """Return what an account may spend on a UTC day, in US dollars; None: no limit.

        An account whose key was removed may spend nothing more.
        """
        self._reread()
        if account in self._removed:
            return 0.0
        return next((key.day_usd for key in self._keys.values() if key.name == account), None)

    def _reread(self) -> None:
        stamp = self._stamp()
        if stamp == self._read:
            return
        try:
            keys = () if stamp is None else read_keys(self._path).keys
        except ConfigError as error:
            if stamp != self._broken:
                _log.warning("%s; the keys before it hold until it is mended", error)
            self._broken = stamp
            return
        before = {key.name for key in self._keys.values()}
        self._keys = {key.sha256: key for key in keys}
        self._removed = (self._removed | before) - {key.name for key in keys}
        self._read = stamp

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes with the file; None without one."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


class Rate:
    """A token bucket for each account, refilled at its requests per minute and holding one minute's worth."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # account → (tokens, when)

    def take(self, account: str, per_minute: int, count: int = 1) -> float:
        """Take `count` tokens, at most `per_minute`, and return 0, or the seconds until there are as many."""
        now = self._clock()
        tokens, at = self._buckets.get(account, (float(per_minute), now))
        tokens = min(float(per_minute), tokens + (now - at) * per_minute / 60)
        if tokens < count:
            self._buckets[account] = (tokens, now)
            return (count - tokens) * 60 / per_minute
        self._buckets[account] = (tokens - count, now)
        return 0.0
