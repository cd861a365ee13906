"""Connections as strangers open them: half-sent, slow, or too many, and what they may cost without a key.

Uvicorn has a time-out between requests, but none for one that never becomes whole: each would hold a file
handle for ever. The limits have the form of Apache's mod_reqtimeout: a fixed time for the headers, and for
the body a time that grows with what arrives.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_log = logging.getLogger("cascade.serve")
_SPARE_FILES = 128  # handles kept for the trace store, models and calls
_MOST_FILES = 4096  # more are not asked for
_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
)
Phase = Literal["headers", "body"]


@dataclass(frozen=True)
class Limits:
    """What a connection may cost.

    Attributes:
        per_client: connections of one address, or of one /64 network of IPv6.
        in_all: connections of everybody.
        headers: seconds until a request's headers are whole.
        body: seconds until its body is whole, and one more for each `rate` bytes of it.
        rate: bytes a second.
        stalled: seconds in which a client reads nothing of an answer.
    """

    per_client: int = 512
    in_all: int = _MOST_FILES - _SPARE_FILES
    headers: float = 10.0
    body: float = 20.0
    rate: float = 500.0
    stalled: float = 60.0


@dataclass
class Connections:
    """The open connections of a server, counted by client."""

    limits: Limits
    _open: Counter[str] = field(default_factory=Counter)

    def enter(self, client: str) -> bool:
        """Count a connection of `client`; return False where it has too many, or all have."""
        if self._open[client] >= self.limits.per_client or self._open.total() >= self.limits.in_all:
            return False
        self._open[client] += 1
        return True

    def leave(self, client: str) -> None:
        """Count one connection less."""
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]


class GuardedProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1 with limits; `guarded` makes the class that a server uses."""

    open: Connections
    _client: str | None = None  # under which this connection is counted
    _phase: Phase | None = None
    _deadline = 0.0
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or refuse it with 429."""
        client = client_of(transport.get_extra_info("peername"))
        if not self.open.enter(client):
            _log.warning("a connection was refused: its client, or all together, have too many open")
            self.transport = transport
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._client = client
        super().connection_made(transport)
        self._watch(0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._client is None:
            return
        self.open.leave(self._client)
        self._look_at(None)
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a piece of a request."""
        if self._client is None:
            return
        super().data_received(data)
        self._watch(len(data))

    def handle_events(self) -> None:
        """Act on what has arrived, which may be a part of the next request already."""
        super().handle_events()
        self._watch(0)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.open.limits.stalled, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def _watch(self, received: int) -> None:
        """Set the deadline for what is still to come of a request."""
        limits, now = self.open.limits, self.loop.time()
        phase = _phase_of(self.conn.their_state)
        if phase != self._phase:
            self._phase = phase
            self._deadline = now + (limits.headers if phase == "headers" else limits.body)
            self._look_at(None if phase is None else self._deadline)
        elif phase == "body":
            self._deadline += received / limits.rate

    def _look_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self.loop.call_at(when, self._look)

    def _look(self) -> None:
        """End a connection whose request is late."""
        now = self.loop.time()
        if self.flow.read_paused:  # it is the application that is late
            self._deadline = now + self.open.limits.body
        if now < self._deadline:
            self._look_at(self._deadline)
            return
        if self._phase == "headers" or not self.cycle.response_started:
            self.transport.write(_TIMEOUT)
        if self.cycle is not None:
            self.cycle.disconnected = True  # nobody reads what the application would still send
        self.transport.close()


def _phase_of(state: object) -> Phase | None:
    if state is h11.IDLE:
        return "headers"
    return "body" if state is h11.SEND_BODY else None


def client_of(peer: Any) -> str:
    """Return under which name a peer's connections are counted."""
    host = str(peer[0]) if isinstance(peer, tuple) else ""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return address.exploded[:19]  # the /64 network, which one client may have all of
    return str(getattr(address, "ipv4_mapped", None) or address)


def guarded(limits: Limits) -> type[GuardedProtocol]:
    """Return the protocol of one server, whose connections are counted together."""
    return type("Protocol", (GuardedProtocol,), {"open": Connections(limits)})


def affordable(per_client: int) -> Limits:
    """Return limits that leave file handles for everything else; the process is allowed more if need be."""
    in_all = max(1, _file_limit() - _SPARE_FILES)
    return Limits(per_client=min(per_client, max(1, in_all // 2)), in_all=in_all)


def _file_limit() -> int:
    if sys.platform == "win32":
        return _MOST_FILES
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft


class Seldom(logging.Filter):
    """Passes a message once a minute, with the number of times that it was left out; errors always.

    What a stranger can cause by one connection must not fill a disk.
    """

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds, self._clock = seconds, clock
        self._last: dict[str, tuple[float, int]] = {}  # message → when, and left out since

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is logged."""
        if record.levelno >= logging.ERROR:
            return True
        now, key = self._clock(), str(record.msg)
        when, left_out = self._last.get(key, (-self._seconds, 0))
        if now - when < self._seconds:
            self._last[key] = (when, left_out + 1)
            return False
        if left_out:
            record.msg = f"{key} ({left_out} more times before)"
        self._last[key] = (now, 0)
        return True


def run_server(app: Any, listener: socket.socket, per_client: int, **settings: Any) -> None:
    """Serve an ASGI application until the process is told to end; `settings` are uvicorn's."""
    protocol = guarded(affordable(per_client))
    config = uvicorn.Config(
        app, http=protocol, log_level="warning", access_log=False, server_header=False, proxy_headers=False,
        **settings,
    )  # fmt: skip
    for name in ("uvicorn.error", "cascade.serve"):
        logging.getLogger(name).addFilter(Seldom())
    uvicorn.Server(config).run(sockets=[listener])
