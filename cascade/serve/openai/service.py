"""What the OpenAI-compatible endpoints share: graphs, authentication, and limits on concurrency."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from fastapi import Request as HttpRequest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from cascade.run import Cascade
from cascade.serve.openai.checks import read_body
from cascade.serve.openai.errors import ApiError
from cascade.serve.openai.keys import ApiKey, Keyring, Rate
from cascade.serve.openai.places import Places
from cascade.serve.openai.reading import Api, Asked

_log = logging.getLogger("cascade.serve")
A = TypeVar("A")
MAX_BYTES = 8 * 2**20
GONE_SECONDS = 0.5  # between checks for a client that has disconnected


class Service:
    """The graphs of a server with its limits.

    Args:
        graphs: name → cascade.
        keys: who may ask; None lets everybody who reaches the server.
        in_flight: maximum number of requests being answered.
        queue: maximum number of requests waiting; further ones are answered with 429 (see `Places`).
        max_bytes: maximum size of a request.
    """

    def __init__(
        self,
        graphs: Mapping[str, Cascade],
        keys: Keyring | None = None,
        *,
        in_flight: int = 64,
        queue: int = 256,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.graphs = dict(graphs)
        self.keys = keys
        self.max_bytes = max_bytes
        self.started = int(time.time())
        self.draining = False
        self.places = Places(in_flight, queue)
        self._rate = Rate()

    def stop(self, seconds: float) -> None:
        """Take no more requests; runs still at work in half of `seconds` stop before their next stage.

        Must be called on the server's event loop.
        """
        self.draining = True
        asyncio.get_running_loop().call_later(seconds / 2, self._stop_runs)

    def _stop_runs(self) -> None:
        _log.warning("%d requests at work: their runs stop before their next stage", self.places.at_work)
        for cascade in self.graphs.values():
            cascade.drain()

    def admit(self, secret: str | None) -> ApiKey | None:
        """Return the key of a request; None where the server needs none.

        Raises:
            ApiError: 401 no valid key, 429 too often, 503 the server is stopping.
        """
        if self.draining:
            raise ApiError(503, "the server is stopping; ask another one", code="draining", retry_after=1.0)
        if self.keys is None:
            return None
        key = None if secret is None else self.keys.find(secret)
        if key is None:
            what = "no API key" if secret is None else "an unknown API key"
            raise ApiError(401, f"{what} was given; send `Authorization: Bearer KEY`", code="invalid_api_key")
        self.charge(key, 1)
        return key

    def charge(self, key: ApiKey, requests: int) -> None:
        """Count requests against the key's rate.

        Raises:
            ApiError: 429 too often, 400 more at once than the key may ever ask.
        """
        if key.per_minute is None:
            return
        rate = f"key {key.name!r} may ask {key.per_minute} times a minute"
        if requests > key.per_minute:
            raise ApiError(400, f"{rate}; this asks {requests} more times at once", param="n")
        if wait := self._rate.take(key.name, key.per_minute, requests):
            message = f"{rate}; wait {wait:.1f} s"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=wait)


class Caller:
    """Who asks, with the request."""

    def __init__(self, service: Service, key: ApiKey | None, http: HttpRequest) -> None:
        self.service, self._key, self._http = service, key, http

    def place(self) -> AbstractAsyncContextManager[None]:
        """Return what holds a place while a request is being answered; see `Places.place`."""
        return self.service.places.place(self.account)

    def charge(self, requests: int) -> None:
        """Count further requests, beside this one, against the key's rate; see `Service.charge`."""
        if self._key is not None and requests > 0:
            self.service.charge(self._key, requests)

    @property
    def account(self) -> str | None:
        """The account whose budget pays."""
        return None if self._key is None else self._key.name

    def graphs(self) -> list[str]:
        """Return the graphs that may be asked."""
        allowed = None if self._key is None else self._key.graphs
        return [name for name in self.service.graphs if allowed is None or name in allowed]

    def graph(self, name: str) -> Cascade:
        """Return the graph called `name`.

        Raises:
            ApiError: 404, there is none, or the key may not ask it (nobody need know which).
        """
        known = self.graphs()
        if name not in known:
            message = f"model {name!r} does not exist, or the key may not ask it; known: {', '.join(known)}"
            raise ApiError(404, message, code="model_not_found", param="model")
        return self.service.graphs[name]

    async def read(self, api: Api) -> Asked:
        """Return what the body asks, for the account that asks.

        Raises:
            ApiError: 415 no JSON, 413 too large, 400 not what is expected.
        """
        kind = self._http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, f"Content-Type is {kind!r:.200}; expected application/json")
        asked = await read_body(api, await self._body())
        return asked.model_copy(
            update={"request": asked.request.model_copy(update={"account": self.account})}
        )

    async def while_there(self, answer: Coroutine[Any, Any, A]) -> A:
        """Await `answer`, and cancel it once the client has disconnected.

        Raises:
            ApiError: 499, nobody is there to read it.
        """
        task = asyncio.ensure_future(answer)
        try:
            while not (await asyncio.wait({task}, timeout=GONE_SECONDS))[0]:
                if await self._http.is_disconnected():
                    raise ApiError(499, "the client has gone away", code="client_gone")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _body(self) -> bytes:
        limit, parts, size = self.service.max_bytes, [], 0
        try:
            async for part in self._http.stream():
                size += len(part)
                if size > limit:
                    message = f"the request is longer than {limit} bytes; send less"
                    raise ApiError(413, message, code="too_large")
                parts.append(part)
        except ClientDisconnect:
            raise ApiError(499, "the client has gone away", code="client_gone") from None
        return b"".join(parts)


def service_of(http: HttpRequest) -> Service:
    """Return the service that a request came to."""
    service: Service = http.app.state.service
    return service


def caller(request: HttpRequest) -> Caller:
    """Return who asks; a FastAPI dependency."""
    service = service_of(request)
    return Caller(service, service.admit(secret_of(request)), request)


def administrator(request: HttpRequest) -> Caller:
    """Return who asks, if they may read runs; a FastAPI dependency."""
    service = service_of(request)
    return Caller(service, admit_admin(service, secret_of(request)), request)


def admit_admin(service: Service, secret: str | None) -> ApiKey | None:
    """Return the key of a request about runs.

    Raises:
        ApiError: 403 the key is not an administrator's; see `Service.admit` for others.
    """
    key = service.admit(secret)
    if key is not None and not key.admin:
        raise ApiError(403, f"key {key.name!r} may not read runs; use one made with --admin")
    return key


Asking = Annotated[Caller, Depends(caller)]
Administrating = Annotated[Caller, Depends(administrator)]


def secret_of(request: HttpRequest) -> str | None:
    """Return the key that a request carries: as a bearer token, or as a browser's password."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no Base64, or no text
            return None
    return None


def parsed(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI text of a body that is read by `Caller.read`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    # Resolved inline: FastAPI adds no schemas of models that it does not read itself.
    text = json.dumps(schema)
    return {"requestBody": {"required": True, "content": {"application/json": {
        "schema": _inline(json.loads(text), definitions)}}}}  # fmt: skip


def _inline(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            return _inline(definitions[reference.rpartition("/")[2]], definitions)
        return {key: _inline(item, definitions) for key, item in value.items()}
    return [_inline(item, definitions) for item in value] if isinstance(value, list) else value
