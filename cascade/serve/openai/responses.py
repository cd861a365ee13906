"""POST /v1/responses, without stored conversations: what is asked is all in the request."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response, StreamingResponse

from cascade.errors import CascadeError
from cascade.records import Request, Result, TextPiece, new_run_id
from cascade.run import Cascade
from cascade.serve.openai import convert
from cascade.serve.openai.chat import beating
from cascade.serve.openai.errors import ERRORS, ApiError, as_api_error
from cascade.serve.openai.reading import Asked
from cascade.serve.openai.schema import ResponsesBody
from cascade.serve.openai.service import Asking, Caller, parsed

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"], responses=ERRORS)


@router.post("/responses", openapi_extra=parsed(ResponsesBody), response_model=None)
async def create_response(who: Asking) -> Response:
    """Answer a conversation in the shape of OpenAI's Responses API."""
    asked = await who.read("responses")
    cascade = who.graph(asked.model)
    if asked.stream:
        return StreamingResponse(_stream(who, cascade, asked), media_type="text/event-stream")
    try:
        result = await who.while_there(_answer(who, cascade, asked.request))
    except CascadeError as error:
        raise as_api_error(error) from error
    if (problem := convert.refused(result, cascade.config)) is not None:
        raise problem
    return JSONResponse(_response(_head(asked), result, asked))


async def _answer(who: Caller, cascade: Cascade, request: Request) -> Result:
    async with who.place():
        return await cascade.answer(request)


def _response(head: dict[str, Any], result: Result, asked: Asked) -> dict[str, Any]:
    counted = convert.usage([result])
    return head | {
        "status": "completed",
        "output": list(_output(head, result, asked)),
        "usage": {
            "input_tokens": counted["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": counted["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": counted["total_tokens"],
        },
        "cascade": convert.decision_summary(result),
    }


def _head(asked: Asked) -> dict[str, Any]:
    """The fields that a response has before there is an answer."""
    return {
        "id": f"resp_{new_run_id()}",  # not the run's: a stream begins before there is one
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "temperature": None,
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        **asked.echo,
    }


def _output(head: dict[str, Any], result: Result, asked: Asked) -> Iterator[dict[str, Any]]:
    reason = convert.refusal(result)
    if reason is not None:
        yield _message(head, [{"type": "refusal", "refusal": reason}])
    elif result.text:
        measured = convert.logprobs(result) if asked.logprobs else None
        yield _message(head, [_part(result.text, [] if measured is None else measured["content"])])
    for call in result.tool_calls:
        yield {
            "type": "function_call",
            "id": f"fc_{head['id']}_{call.id}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }


def _message(
    head: dict[str, Any], content: list[dict[str, Any]], status: str = "completed"
) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{head['id']}",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def _part(text: str, logprobs: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


async def _stream(who: Caller, cascade: Cascade, asked: Asked) -> AsyncIterator[str]:
    """Give the events of a response; text is live where its stage is unchecked."""
    head = _head(asked)
    events = _Events(head)
    yield events.make("response.created", response=head)
    text = ""
    try:
        async with who.place():
            async for event in beating(cascade.astream_request(asked.request)):
                if event is None:
                    yield ": at work\n\n"
                elif isinstance(event, TextPiece):
                    for made in events.text(event.text, first=not text):
                        yield made
                    text += event.text
                elif isinstance(event, Result):
                    if (problem := convert.refused(event, cascade.config)) is not None:
                        raise problem
                    for made in _end(events, asked, head, event, text):
                        yield made
    except (CascadeError, ApiError) as failure:
        error = failure if isinstance(failure, ApiError) else as_api_error(failure)
        broken = {"code": error.code or "server_error", "message": str(error)}
        failed = head | {"status": "failed", "error": broken}
        yield events.make("response.failed", response=failed)


def _end(events: _Events, asked: Asked, head: dict[str, Any], result: Result, sent: str) -> Iterator[str]:
    items = list(_output(head, result, asked))
    for index, item in enumerate(items):
        if item["type"] == "function_call":
            yield events.make("response.output_item.added", output_index=index, item=item | {"arguments": ""})
            at = {"output_index": index, "item_id": item["id"]}
            yield events.make("response.function_call_arguments.delta", delta=item["arguments"], **at)
            yield events.make(
                "response.function_call_arguments.done", arguments=item["arguments"], name=item["name"], **at
            )
        elif "text" in (part := item["content"][0]):
            if not sent:
                yield from events.text(part["text"], first=True)
            yield from events.text_done(part)
        else:
            yield events.make("response.output_item.added", output_index=index, item=item | {"content": []})
        yield events.make("response.output_item.done", output_index=index, item=item)
    yield events.make("response.completed", response=_response(head, result, asked))


class _Events:
    """Numbered server-sent events of one response."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._number = 0
        self._item = _message(head, [], "in_progress")

    def make(self, kind: str, **fields: Any) -> str:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"

    def text(self, piece: str, *, first: bool) -> Iterator[str]:
        """A piece of the answer; the first one opens the message."""
        at = {"output_index": 0, "item_id": self._item["id"]}
        if first:
            yield self.make("response.output_item.added", output_index=0, item=self._item)
            yield self.make("response.content_part.added", content_index=0, part=_part(""), **at)
        yield self.make("response.output_text.delta", content_index=0, delta=piece, logprobs=[], **at)

    def text_done(self, part: dict[str, Any]) -> Iterator[str]:
        """The end of the answer's text."""
        at = {"output_index": 0, "item_id": self._item["id"], "content_index": 0}
        yield self.make("response.output_text.done", text=part["text"], logprobs=part["logprobs"], **at)
        yield self.make("response.content_part.done", part=part, **at)
