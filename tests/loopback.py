"""A real HTTP server on 127.0.0.1, in a thread, that plays whatever a test wants a server to be.

    with Loopback() as server:
        server.answers = [status(500, "busy"), chat("Paris", logprobs=[("Paris", -0.1)])]
        ...                                   # ask http server.url
        assert server.requests[0].json["model"] == "gpt"

Answers are used in order and the last one is repeated. An entry is an `Answer`, or a function from the
`Seen` request to one. `chat`, `stream` and `status` make the usual ones; anything else is
`Answer(code, headers, chunks, pause)`: raw bytes, sent chunk by chunk with `pause` seconds before each.
All methods and paths are served alike. `cut=True` closes the connection without the proper end.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What is sent back; without a content-length in `headers` the chunks are sent chunked."""

    code: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    chunks: Sequence[bytes] = ()
    pause: float = 0.0
    cut: bool = False


def chat(
    text: str | None,
    *,
    logprobs: Sequence[tuple[str, float]] | None = None,
    usage: tuple[int, int] | None = (11, 3),
    finish_reason: str | None = "stop",
    pause: float = 0.0,
    **message: Any,
) -> Answer:
    """A chat completion; the top list of each token is the token and one that is 1 nat less likely."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish_reason,
        "logprobs": _logprobs(logprobs),
    }
    body = {
        "id": "c1",
        "object": "chat.completion",
        "model": "played",
        "choices": [choice],
        "usage": _usage(usage),
    }
    return Answer(chunks=[json.dumps(body).encode()], pause=pause)


def stream(
    pieces: Sequence[str],
    *,
    usage: tuple[int, int] | None = (11, 3),
    finish_reason: str | None = "stop",
    pause: float = 0.0,
    cut: bool = False,
) -> Answer:
    """The same, streamed as server-sent events; each piece is a token of log-probability -0.5."""
    choices = [[{"delta": {"content": piece}, "logprobs": _logprobs([(piece, -0.5)])}] for piece in pieces]
    events: list[dict[str, Any]] = [{"model": "played", "choices": choice} for choice in choices]
    if finish_reason is not None:
        events.append({"model": "played", "choices": [{"delta": {}, "finish_reason": finish_reason}]})
    if usage is not None:
        events.append({"model": "played", "choices": [], "usage": _usage(usage)})
    chunks = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    if not cut:
        chunks.append(b"data: [DONE]\n\n")
    return Answer(headers={"Content-Type": "text/event-stream"}, chunks=chunks, pause=pause, cut=cut)


def status(code: int, message: str = "", **headers: str) -> Answer:
    """An error in OpenAI's shape; `retry_after="0"` becomes the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()
    return Answer(code, {"Content-Type": "application/json", **named}, [body])


def _logprobs(tokens: Sequence[tuple[str, float]] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    content = [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": token, "logprob": value}, {"token": "?", "logprob": value - 1.0}],
        }
        for token, value in tokens
    ]
    return {"content": content}


def _usage(usage: tuple[int, int] | None) -> dict[str, int] | None:
    return None if usage is None else {"prompt_tokens": usage[0], "completion_tokens": usage[1]}


class Loopback:
    """The server; `url` is its base URL for OpenAI clients, `root` the one without `/v1`."""

    def __init__(self) -> None:
        self.answers: list[Answer | Callable[[Seen], Answer]] = []
        self.requests: list[Seen] = []
        self._stopped = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()  # ends the pauses, so that slow answers do not keep the test waiting
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_answer(self, seen: Seen) -> Answer:
        self.requests.append(seen)
        if not self.answers:
            return status(404, "the test gave no answer")
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, Answer) else answer(seen)

    def pause(self, seconds: float) -> None:
        self._stopped.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close joins them: no test leaves a thread behind
    request_queue_size = 128

    def __init__(self, owner: Loopback) -> None:
        self.owner = owner
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_close(self) -> None:
        for connection in list(self.open):  # wakes the threads that wait on a kept-alive connection
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: clients that go away in the middle are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else small chunks wait for 40 ms
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        try:
            super().finish()
        except OSError:
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        names = {name.lower(): value for name, value in self.headers.items()}
        owner = self.server.owner
        answer = owner.next_answer(Seen(self.command, self.path, names, body))
        try:
            self._send(answer, owner)
        except OSError:  # the client went away
            self.close_connection = True

    def _send(self, answer: Answer, owner: Loopback) -> None:
        sized = any(name.lower() == "content-length" for name in answer.headers)
        self.send_response(answer.code)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if not sized:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in answer.chunks:
            if answer.pause:
                owner.pause(answer.pause)
            if chunk:
                self.wfile.write(chunk if sized else b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if answer.cut:
            self.close_connection = True
        elif not sized:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet."""


class Gate:
    """A server that says when it is asked, and answers once it may."""

    def __init__(self, server: Loopback, answer: Answer) -> None:
        self.asked, self.open = threading.Event(), threading.Event()
        self._answer = answer
        server.answers = [self._play]

    def _play(self, _seen: Seen) -> Answer:
        self.asked.set()
        assert self.open.wait(120)
        return self._answer
