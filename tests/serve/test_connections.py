"""Half-sent, slow and too many connections end by themselves and keep nobody else out."""

from __future__ import annotations

import logging
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from scripting import scripted, write
from serving import serving
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from cascade.serve.connections import Connections, Limits, Seldom, affordable, client_of, guarded

HEAD = b"POST /read HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"
WATCHDOG = 30.0  # seconds: everything here ends much sooner


async def _read(request: Request) -> PlainTextResponse:
    try:
        return PlainTextResponse((await request.body()).decode())
    except ClientDisconnect:
        return PlainTextResponse("gone", 400)


def _flood(_request: Request) -> StreamingResponse:
    return StreamingResponse(b"x" * 2**16 for _ in range(2**12))


APP = Starlette(routes=[Route("/read", _read, methods=["POST", "GET"]), Route("/flood", _flood)])


@contextmanager
def listening(**limits: Any) -> Iterator[tuple[int, Connections]]:
    """A server with `limits` in a thread; yields its port and its connections."""
    protocol = guarded(Limits(**limits))
    server = uvicorn.Server(uvicorn.Config(APP, http=protocol, log_level="error", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1], protocol.open
    finally:
        server.should_exit = True
        thread.join(WATCHDOG)
        listener.close()


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WATCHDOG, (source, 0))


def until_closed(connection: socket.socket) -> bytes:
    """Return what the server says before it closes the connection."""
    said = b""
    try:
        while piece := connection.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    return said


def emptied(connections: Connections) -> bool:
    end = time.monotonic() + WATCHDOG
    while connections._open and time.monotonic() < end:
        time.sleep(0.01)
    return not connections._open


def halves() -> list[bytes]:
    """Beginnings of requests, cut anywhere before their end, alone and after a whole one."""
    draw = random.Random(5)
    whole = HEAD + b'{"a": "b"}'
    cuts = [b"", *(whole[: draw.randrange(1, len(whole))] for _ in range(20))]
    return [*cuts, *(whole + cut for cut in cuts[1:6])]


def test_half_sent_requests_are_told_and_ended() -> None:
    with listening(headers=0.3, body=0.3) as (port, connections), ExitStack() as stack:
        opened = [stack.enter_context(closing(connect(port))) for _ in halves()]
        for connection, half in zip(opened, halves(), strict=True):
            connection.sendall(half)
        for connection, half in zip(opened, halves(), strict=True):
            said = until_closed(connection)
            first = b"HTTP/1.1 200" if half.startswith(HEAD + b'{"a": "b"}') else b"HTTP/1.1 408"
            assert said.startswith(first), (half, said)
        assert emptied(connections)


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_drip_does_not_hold_a_connection(part: str) -> None:
    with listening(headers=0.5, body=0.5, rate=1e9) as (port, connections), closing(connect(port)) as drip:
        drip.sendall(HEAD if part == "body" else b"POST /read HTTP/1.1\r\n")
        end = time.monotonic() + WATCHDOG
        while connections._open and time.monotonic() < end:
            try:
                drip.sendall(b"x" if part == "body" and connections._open else b"A: b\r\n")
            except OSError:
                break
            time.sleep(0.1 if part == "headers" else 0.2)
        assert emptied(connections)


def test_a_slow_but_steady_body_arrives() -> None:
    with listening(headers=WATCHDOG, body=1.0, rate=0.5) as (port, _), closing(connect(port)) as slow:
        slow.sendall(HEAD.replace(b"Length: 10", b"Length: 12"))
        for piece in (b"abc", b"def", b"ghi", b"jkl"):  # 6 s more for each
            slow.sendall(piece)
            time.sleep(0.4)
        assert b"abcdefghijkl" in slow.recv(65536)


def test_who_reads_nothing_of_an_answer_is_cut_off() -> None:
    with listening(stalled=0.3) as (port, connections), closing(connect(port)) as deaf:
        deaf.sendall(b"GET /flood HTTP/1.1\r\nHost: here\r\n\r\n")
        assert emptied(connections)


def test_one_client_has_so_many_connections_and_others_have_theirs() -> None:
    with listening(per_client=5, headers=WATCHDOG) as (port, connections), ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(closing(connect(port)))
        answers = []
        for _ in range(20):
            with closing(connect(port)) as more:
                answers.append(until_closed(more))
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 429"}
        with closing(connect(port, "127.0.0.2")) as other:
            other.sendall(HEAD + b'{"a": "b"}')
            assert other.recv(65536).startswith(b"HTTP/1.1 200")
        stack.close()
        assert emptied(connections)
        assert httpx2.post(f"http://127.0.0.1:{port}/read", content="again").text == "again"


def test_all_clients_together_leave_file_handles() -> None:
    with listening(per_client=5, in_all=8, headers=WATCHDOG) as (port, _), ExitStack() as stack:
        for number in range(8):
            stack.enter_context(closing(connect(port, f"127.0.0.{number + 2}")))
        with closing(connect(port, "127.0.0.99")) as more:
            assert until_closed(more).startswith(b"HTTP/1.1 429")


def test_addresses_that_one_client_has_are_counted_together() -> None:
    same = [("2001:db8:1:2::1", 1), ("2001:db8:1:2:ffff::9", 2, 0, 0)]
    assert len({client_of(peer) for peer in same}) == 1
    assert client_of(("2001:db8:1:3::1", 1)) != client_of(same[0])
    assert client_of(("::ffff:10.0.0.1", 1)) == client_of(("10.0.0.1", 2)) == "10.0.0.1"
    assert client_of(("fe80::1%eth0", 1, 0, 2)) == client_of(("fe80::2", 1, 0, 2))
    assert client_of("") == client_of(None) == ""


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from cascade.serve.connections import affordable
limits = affordable(512)
print(limits.per_client, limits.in_all, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "limits"), [(256, 256, "64 128 256"), (256, 4096, "512 3968 4096"), (64, 64, "1 1 64")]
)
def test_the_limits_leave_the_handles_that_there_are(soft: int, hard: int, limits: str) -> None:
    command = [sys.executable, "-c", LIMITED, str(soft), str(hard)]
    assert subprocess.check_output(command, text=True, timeout=60).strip() == limits
    assert affordable(3).per_client == 3


def test_a_flood_of_one_message_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    logger = logging.getLogger("cascade.test_flood")
    logger.addFilter(Seldom(60, lambda: now[0]))
    for moment in (*range(50), 61, 62, 125):
        now[0] = float(moment)
        logger.warning("refused %s", moment)
        logger.error("broken")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines == ["refused 0", "refused 61 (49 more times before)", "refused 125 (1 more times before)"]
    assert len(caplog.records) == 3 + 53


def test_without_a_key_nobody_keeps_others_out_or_fills_the_log(tmp_path: Path) -> None:
    graph = write(tmp_path, {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}])
    body = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}
    head = HEAD.replace(b"/read", b"/v1/chat/completions").replace(b"Host: here", b"Host: 127.0.0.1")
    beginnings = (b"", b"GET / HT", head, b"\x00\xff nonsense\r\n\r\n")
    with serving(graph, "--connections", "40") as (process, url), ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        for number in range(400):  # more than 40 of one address, which are refused
            half = stack.enter_context(closing(connect(port, f"127.0.0.{2 + number % 3}")))
            try:
                half.sendall(beginnings[number % 4])
            except OSError:
                continue
        assert httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=WATCHDOG).status_code == 200
        stack.close()
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert len(errors.splitlines()) <= 4, errors
