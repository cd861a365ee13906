"""POST /v1/chat/completions and GET /v1/models."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response, StreamingResponse

from cascade.errors import CascadeError
from cascade.openai_fields import cut
from cascade.policy.result import finish_reason
from cascade.records import Request, Result, TextPiece, new_run_id
from cascade.run import Cascade
from cascade.serve.openai import convert
from cascade.serve.openai.errors import ERRORS, ApiError, as_api_error
from cascade.serve.openai.reading import Asked
from cascade.serve.openai.schema import ChatBody
from cascade.serve.openai.service import Asking, Caller, Service, parsed

BEAT_SECONDS = 15.0  # a comment that often keeps proxies from closing a quiet stream

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"], responses=ERRORS)


@router.get("/models")
async def list_models(who: Asking) -> dict[str, Any]:
    """Return the graphs that the key may ask, each as a model."""
    return {"object": "list", "data": [_model(who.service, name) for name in who.graphs()]}


@router.get("/models/{name}")
async def one_model(name: str, who: Asking) -> dict[str, Any]:
    """Return one graph as a model."""
    who.graph(name)
    return _model(who.service, name)


@router.post("/chat/completions", openapi_extra=parsed(ChatBody), response_model=None)
async def chat_completions(who: Asking) -> Response:
    """Answer a conversation: one run for each of `n` choices."""
    asked = await who.read("chat")
    cascade = who.graph(asked.model)
    if not asked.stream:
        results = await who.while_there(_several(who, cascade, asked))
        return JSONResponse(_completion(asked, results))
    if asked.n > 1:
        raise ApiError(400, "n is more than 1 in a stream; ask without stream", param="n")
    return StreamingResponse(_stream(who, cascade, asked), media_type="text/event-stream")


def _model(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": "cascade"}


async def _several(who: Caller, cascade: Cascade, asked: Asked) -> list[Result]:
    """Return the results of as many runs, each of which counts as a request of its own."""
    who.charge(asked.n - 1)
    tasks = [asyncio.create_task(_one(who, cascade, asked.request)) for _ in range(asked.n)]
    try:
        return await asyncio.gather(*tasks)
    finally:  # if one is refused, nobody will read the others
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(who: Caller, cascade: Cascade, request: Request) -> Result:
    try:
        async with who.place():
            result = await cascade.answer(request)
    except CascadeError as error:
        raise as_api_error(error) from error
    if (problem := convert.refused(result, cascade.config)) is not None:
        raise problem
    return result


def _completion(asked: Asked, results: list[Result]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{new_run_id()}",  # the runs' ids are in `cascade`
        "object": "chat.completion",
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": results[0].graph,
        "choices": [_choice(asked, index, result) for index, result in enumerate(results)],
        "usage": convert.usage(results),
        "cascade": convert.decision_summary(results[0])
        if len(results) == 1
        else {"runs": [convert.decision_summary(r) for r in results]},
    }


def _choice(asked: Asked, index: int, result: Result) -> dict[str, Any]:
    text = _text(asked, result)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": convert.refusal(result)}
    if result.tool_calls:
        message |= {"content": text or None, "tool_calls": convert.tool_calls(result.tool_calls)}
    return {
        "index": index,
        "message": message,
        "finish_reason": _finish(asked, result),
        "logprobs": _logprobs(asked, result),
    }


def _text(asked: Asked, result: Result) -> str | None:
    """Return the answer up to the request's `stop`."""
    return None if result.text is None else cut(result.text, asked.stops)


def _logprobs(asked: Asked, result: Result) -> dict[str, Any] | None:
    """Return the log-probabilities of the answer up to the request's `stop`, if they are asked for."""
    text = _text(asked, result)
    whole = text is None or text == result.text
    return convert.logprobs(result, None if whole or text is None else len(text)) if asked.logprobs else None


def _finish(asked: Asked, result: Result) -> str:
    reason = finish_reason(result)
    return "stop" if reason == "length" and _text(asked, result) != result.text else reason


async def _stream(who: Caller, cascade: Cascade, asked: Asked) -> AsyncIterator[str]:
    """Give the answer: live where its stage is unchecked, elsewhere in one piece once it is accepted."""
    head = {
        "id": f"chatcmpl-{new_run_id()}",  # a stream begins before there is a run
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": cascade.version,
    }
    try:
        async with who.place():
            sent = False
            async for event in beating(cascade.astream_request(asked.request)):
                if event is None:
                    yield ": at work\n\n"
                elif isinstance(event, TextPiece):
                    if asked.stops:  # what comes later may begin before here
                        continue
                    yield _chunk(head, {"content": event.text} if sent else _first(event.text))
                    sent = True
                elif isinstance(event, Result):
                    if (problem := convert.refused(event, cascade.config)) is not None:
                        raise problem
                    for chunk in _last(head, event, asked, sent=sent):
                        yield chunk
    except CascadeError as error:
        yield _data(as_api_error(error).body())
    except ApiError as error:
        yield _data(error.body())
    yield "data: [DONE]\n\n"


def _first(content: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def _last(head: dict[str, Any], result: Result, asked: Asked, *, sent: bool) -> list[str]:
    chunks = []
    delta: dict[str, Any] = {} if sent else _first(_text(asked, result))
    if result.tool_calls:
        calls = convert.tool_calls(result.tool_calls)
        delta |= {"tool_calls": [{"index": index} | call for index, call in enumerate(calls)]}
    if (reason := convert.refusal(result)) is not None:
        delta |= {"refusal": reason}
    if delta:
        chunks.append(_chunk(head, delta, logprobs=_logprobs(asked, result)))
    chunks.append(
        _chunk(head | {"cascade": convert.decision_summary(result)}, {}, finish=_finish(asked, result))
    )
    if asked.include_usage:
        chunks.append(_data(head | {"choices": [], "usage": convert.usage([result])}))
    return chunks


def _chunk(
    head: dict[str, Any], delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None
) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return _data(head | {"choices": [choice]})


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def beating(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield from `events`, and None whenever there was nothing for a while; ending it cancels the run."""
    pending: asyncio.Task[Any] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(events, _END))
            done, _ = await asyncio.wait({pending}, timeout=BEAT_SECONDS)
            if not done:
                yield None
                continue
            event, pending = pending.result(), None
            if event is _END:
                return
            yield event
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)


_END = object()
