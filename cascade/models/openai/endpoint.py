"""The connection to an OpenAI-compatible endpoint: address, key, client, and failures in plain words."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

import httpx2
import openai

from cascade.errors import ModelError
from cascade.models.openai import OpenAISettings
from cascade.models.openai.answer import UnusableError
from cascade.models.openai.documents import Documents, NotJsonError
from cascade.models.openai.hosts import DEFAULT_URL, key_problem, local_problem
from cascade.models.openai.words import words

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 16 << 20  # of one response; an answer of 100,000 tokens with log-probabilities has 10 MB
_MAX_QUOTED = 300  # characters of a server's message that an error quotes
# All that the client raises because of what a server does. RecursionError: JSON nested too deep.
_FAILURES = (
    openai.OpenAIError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
    ValueError,
    RecursionError,
)
_OUR_FAULT = (400, 413, 422)  # the server works and the request is wrong
_CHANGE = "change what it names: model, temperature, logprobs: false, max_tokens; or leave it out by omit"
_AZURE_DEPLOYMENT = re.compile(r"(?i)^https?://[^/?#]+\.azure\.com(:\d+)?/openai/deployments/")
_SECRET_NAME = re.compile(r"(?i)key|token|secret|sig|pass|auth|code")
_DRAIN_SECONDS = 0.1
_Loop = asyncio.AbstractEventLoop
# Of the call that is being made: set as soon as its request goes out.
_SENT: ContextVar[asyncio.Event | None] = ContextVar("cascade_request_sent", default=None)


class RefusedError(ModelError):
    """The server answered with an error status, or with an error that names one.

    Attributes:
        said: the body of its answer, not scrubbed: for finding names in it, never for showing.
    """

    def __init__(self, text: str, status: int, said: object, billed: tuple[int, int] = (0, 0)) -> None:
        super().__init__(text, billed, healthy=status in _OUR_FAULT, reason=f"http_{status}", status=status)
        self.said = said


class Endpoint:
    """Sends chat-completion requests of one model; every failure is a `ModelError` without keys in it.

    A client belongs to the event loop that it was made in, so there is one per loop, closed by `aclose` or
    with its loop. Retries are the client's own (`max_retries`); nothing above it retries. Redirects are
    errors: a request must not wander to another machine. For the same reason a local endpoint is never
    asked through a proxy.
    """

    def __init__(self, name: str, config: OpenAISettings) -> None:
        self._name = name
        self._config = config
        self._clients: dict[_Loop, tuple[openai.AsyncOpenAI, AsyncGenerator[None]]] = {}

    @property
    def url(self) -> str:
        """The base URL: the model's own, else the environment's, else OpenAI's."""
        return self._config.url or os.environ.get(self._config.url_env) or DEFAULT_URL

    @property
    def place(self) -> str:
        """The URL without credentials."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def who(self) -> str:
        """The model and its URL, without credentials, for messages."""
        return f"model {self._name!r} at {self.place}"

    def problem(self) -> str | None:
        """Return what is wrong with the address or the key, so that no call can be made, or None."""
        name, config = self._name, self._config
        setting = "url" if config.url else config.url_env
        if not _is_http(self.url):
            return f"model {name!r}: {setting} is no http(s) URL; write one like http://localhost:8080/v1"
        if config.local and self.url == DEFAULT_URL:
            return f"model {name!r} is local: true but has no URL on this machine; set its url, or {setting}"
        if config.local and (reason := local_problem(self.url)):
            return f"model {name!r}: {reason}"
        if config.key_env is None:
            return None
        key = os.environ.get(config.key_env)
        if not key:
            server = f"{config.url_env} and " if config.url is None else ""
            return (
                f"model {name!r} needs {config.key_env}; "
                f"set it, or {server}key_env: null for a server without keys"
            )
        if not re.fullmatch(r"[!-~]+", key):
            return f"model {name!r}: {config.key_env} holds spaces or characters that no key has; set it anew"
        reason = self._key_problem()
        return f"model {name!r}: {reason}" if reason else None

    def _key_problem(self) -> str | None:
        config = self._config
        from_environment = config.url is None and self.url != DEFAULT_URL
        return config.key_env and key_problem(config.key_env, self.url, from_environment=from_environment)

    async def documents(
        self, body: dict[str, Any], seconds: float, sent: asyncio.Event
    ) -> AsyncGenerator[Any]:
        """Send `body` and yield the JSON values of the answer as they come.

        Args:
            body: the JSON of the request.
            seconds: time-out of each wait; the caller bounds the whole.
            sent: set as soon as the server may have read of the request.

        Raises:
            ModelError: whatever went wrong. What it costs is for the caller to say.
        """
        client = await self._client()
        try:
            async with (
                await self._post(client, body, seconds, sent) as stream,
                aclosing(_values(stream.response)) as values,
            ):
                async for value in values:
                    yield value
        except _FAILURES as error:
            raise self._failure_of(error) from None  # the client's own errors hold the request with its key

    async def _post(
        self, client: openai.AsyncOpenAI, body: dict[str, Any], seconds: float, sent: asyncio.Event
    ) -> openai.AsyncStream[object]:
        watched = _SENT.set(sent)
        try:
            wait = httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
            return await client.post(
                "/chat/completions",
                cast_to=object,
                body=body,
                options={"timeout": wait},
                stream=True,  # the body is read as it comes, whatever the request asks for
                stream_cls=openai.AsyncStream[object],
            )
        finally:
            _SENT.reset(watched)

    def failure(self, unusable: UnusableError, billed: tuple[int, int]) -> ModelError:
        """Return the failure of a call whose answer cannot be used."""
        text = f"{self.who} {self._scrub(str(unusable))[: 2 * _MAX_QUOTED]}"
        if unusable.status in _OUR_FAULT:
            return RefusedError(text, unusable.status, str(unusable), billed)
        return ModelError(
            text, billed, healthy=unusable.healthy, reason=unusable.reason, status=unusable.status
        )

    def _failure_of(self, error: Exception) -> ModelError:
        text = f"{self.who} {self._scrub(self._explain(error))}"
        if isinstance(error, openai.APIStatusError):
            return RefusedError(text, error.status_code, error.body)
        return ModelError(text, reason=_reason(_cause(error)))

    async def aclose(self) -> None:
        """Close the client of the running event loop; those of other loops close with them."""
        _, lifetime = self._clients.pop(asyncio.get_running_loop(), (None, None))
        if lifetime is not None:
            await lifetime.aclose()

    async def _client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for old in [old for old in list(self._clients) if old.is_closed()]:
                self._clients.pop(old, None)
            client = self._make_client()
            lifetime = _lifetime(client)
            self._clients[loop] = client, lifetime
            await anext(lifetime)
        return self._clients[loop][0]

    def _make_client(self) -> openai.AsyncOpenAI:
        try:
            return openai.AsyncOpenAI(
                api_key=self._key() or "none",
                base_url=urlunsplit(urlsplit(self.url)._replace(query="", fragment="")),
                default_query=dict(self._query()),
                max_retries=self._config.max_retries,
                http_client=openai.DefaultAsyncHttpx2Client(
                    follow_redirects=False,
                    trust_env=not self._config.local,
                    headers={"Accept-Encoding": "identity"},
                    event_hooks={"request": [_watch, self._sign], "response": [_bound]},
                ),
            )
        except (*_FAILURES, OSError, ImportError) as error:  # a proxy or certificate file that does not work
            raise ModelError(
                f"{self.who} cannot be asked: its client could not be made ({type(error).__name__}); "
                "check ALL_PROXY, HTTP_PROXY, HTTPS_PROXY, SSL_CERT_FILE and OPENAI_* in the environment"
            ) from None

    def _key(self) -> str | None:
        if self._config.key_env is None or self._key_problem():
            return None
        return os.environ.get(self._config.key_env)

    def _query(self) -> list[tuple[str, str]]:
        """Return the query of the URL, such as Azure's `api-version`; it goes with every request."""
        return parse_qsl(urlsplit(self.url).query, keep_blank_values=True)

    async def _sign(self, request: httpx2.Request) -> None:
        """Send the key as Azure's deployments want it: its usual header is for other tokens there."""
        if _AZURE_DEPLOYMENT.search(self.url) and (key := self._key()):
            request.headers.pop("Authorization", None)
            request.headers["api-key"] = key

    def _quoted(self, text: str) -> str:
        return self._scrub(text)[:_MAX_QUOTED]

    def _scrub(self, text: str) -> str:
        """Return `text` on one line and without the key or password, which servers sometimes repeat."""
        for secret in self._secrets():
            for form in {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}:
                text = text.replace(form, "***")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def _secrets(self) -> list[str]:
        """Return the key and what the URL holds that may be one, the longest first."""
        parts = urlsplit(self.url)
        named = [value for name, value in self._query() if _SECRET_NAME.search(name) and len(value) > 5]
        password = unquote(parts.password) if parts.password else None
        basic = f"{unquote(parts.username or '')}:{password}" if password else ""
        encoded = base64.b64encode(basic.encode()).decode() if basic else None
        found = {self._key(), parts.password, password, encoded, *named}
        return sorted((secret for secret in found if secret), key=len, reverse=True)

    def _explain(self, error: Exception) -> str:
        """Return what went wrong and what to do about it."""
        address = "url" if self._config.url else self._config.url_env
        if isinstance(error, openai.APIStatusError):
            return self._explain_status(error.status_code, self._quoted(words(error.body)))
        if isinstance(error, NotJsonError):
            said = self._quoted(words(error.excerpt))
            return f"sent no chat completion ({error}): {said}; {address} must be the base, often …/v1"
        cause = _cause(error)
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            detail = str(cause) or f"no connection within {CONNECT_SECONDS:g} s"
            return f"cannot be reached ({detail}); check that it runs, and {address}"
        if isinstance(cause, httpx2.TimeoutException):
            return "sent nothing for too long; raise the model's timeout"
        if isinstance(cause, httpx2.HTTPError | httpx2.StreamError | openai.APIConnectionError):
            return f"broke the call off ({cause}); if it happens again, look at the server's log"
        return f"sent an answer that cannot be read ({type(error).__name__}); look at the server's log"

    def _explain_status(self, status: int, message: str) -> str:
        key = self._config.key_env or "key_env (it is null)"
        fixes = {
            400: _CHANGE,
            401: f"check the key in {key}",
            403: f"check what the key in {key} may do",
            404: f"check model ({self._config.model!r}) and URL",
            413: "the request is too long for it",
            422: _CHANGE,
            429: "wait, ask less often, or check the account's quota",
        }
        fix = fixes.get(status, "look at the server's log")
        if status >= 500:
            fix = "try again later"
        elif status < 400:
            fix = "it redirects, which is not followed; set the URL that it redirects to"
        return f"answered {status}{f' ({message})' if message else ''}; {fix}"


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response, up to a limit: a server may send any amount."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body
        self._chunks = self._read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        """Close the body and its generators now; the garbage collector might do so in another thread."""
        await self._chunks.aclose()
        await self._body.aclose()

    async def _read(self) -> AsyncGenerator[bytes]:
        size = 0
        chunks = aiter(self._body)
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > MAX_ANSWER_BYTES:
                    raise httpx2.ReadError(f"it sent more than {MAX_ANSWER_BYTES >> 20} MB")
                yield chunk
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Bound a response before its body is read, and refuse a compressed one: its size has no bound."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        await response.aclose()
        raise httpx2.ReadError("it sent a compressed answer, which was not asked for")
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


async def _watch(request: httpx2.Request) -> None:
    """Note when `request` goes out, for the call that makes it."""
    sent = _SENT.get()
    if sent is None:
        return

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started") and _method(info) != b"CONNECT":
            sent.set()

    request.extensions = {**request.extensions, "trace": trace}


def _method(info: Mapping[str, Any]) -> bytes | None:
    return getattr(info.get("request"), "method", None)


async def _values(response: httpx2.Response) -> AsyncGenerator[Any]:
    """Yield the JSON values in the body of `response`.

    After the event [DONE] the rest of the body is awaited for a moment, so that the connection can be used
    again.
    """
    documents = Documents()
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            for value in documents.feed(chunk):
                yield value
            if documents.done:
                break
        else:
            for value in documents.end():
                yield value
            return
        with suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in chunks:
                    pass


async def _lifetime(client: openai.AsyncOpenAI) -> AsyncGenerator[None]:
    """Close `client` together with the event loop, which finishes its open generators when it shuts down."""
    try:
        yield
    finally:
        await client.close()


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or a broken IPv6 address
        return False


def _cause(error: Exception) -> BaseException:
    """Return the error of the transport that the client's own error stands for."""
    return (error.__cause__ or error) if isinstance(error, openai.APIConnectionError) else error


def _reason(cause: BaseException) -> str:
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "connection"
    if isinstance(cause, httpx2.TimeoutException):
        return "timeout"
    broken = isinstance(cause, httpx2.HTTPError | httpx2.StreamError | openai.APIConnectionError)
    return "broken_off" if broken else "invalid_answer"
