"""Is the answer what was asked for? JSON that satisfies its schema, tool calls that can be made.

Validity is a signal of its own: it is measured on every answer to a request with tools or an output schema,
whatever the stage's confidence method, and an answer that is not valid is accepted by no stage (rule
`invalid`). Valid JSON also tells how sure the model was of each field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from typing import Any

from cascade.formats.markdown import unfenced
from cascade.formats.schemas import Steps, parse_json, unchecked_patterns, value_problem
from cascade.models.base import Reply
from cascade.records import Request, ToolCall
from cascade.requests import TOOL_CHOICES, parameters_of
from cascade.spec.kinds import Draft

MAX_ANSWER = 1_000_000  # characters of an answer or of arguments that are looked at
MAX_FIELDS = 100  # of one answer that are reported
MAX_CALLS = 128  # tool calls of one answer
_MAX_NOTED = 10  # patterns that nobody checks, of those that are named

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


def demanded(request: Request) -> bool:
    """Return whether an answer to `request` can be invalid: it asks for JSON, or offers tools."""
    return request.output_schema is not None or bool(request.tools)


def needs_words(request: Request) -> bool:
    """Return whether `request` needs more than a label, so that a model with labels cannot answer it."""
    return request.output_schema is not None or (bool(request.tools) and request.tool_choice != "none")


def problem(request: Request, reply: Reply) -> str | None:
    """Return why `reply` is not a valid answer to `request`, or None if it is."""
    calls, choice = reply.tool_calls, request.tool_choice
    if reply.meta.get("finish_reason") == "length" and (calls or request.output_schema is not None):
        return "it was cut off at max_tokens; raise them"
    if calls:
        if not request.tools or choice == "none":
            return "it calls a tool, but none may be called"
        if len(calls) > MAX_CALLS:
            return f"it makes {len(calls)} tool calls; at most {MAX_CALLS} are looked at"
        steps = Steps()
        return next(filter(None, (_call_problem(request, call, steps) for call in calls)), None)
    if request.tools and choice not in ("auto", "none"):
        wanted = "a tool" if choice in TOOL_CHOICES else f"the tool {choice!r}"
        return f"it does not call {wanted}, which tool_choice asks for"
    if request.output_schema is None:
        return None
    value, error = _read(reply.text, "it")
    return error or value_problem(request.output_schema, value)


def measured(request: Request, reply: Reply) -> dict[str, Any]:
    """Return what a call's `meta` says about the validity of its answer.

    `invalid`: why it is not valid. Or `fields`, see there, and `unchecked_patterns`: JSON Pointers of
    patterns of the schema that were left to the model (see `cascade.formats.patterns`).
    """
    if not (demanded(request) or reply.tool_calls):
        return {}
    error = problem(request, reply)
    if error is not None:
        return {"invalid": error}
    measured_fields = fields(reply) if reply.tool_calls or request.output_schema is not None else []
    found: dict[str, Any] = {"fields": measured_fields} if measured_fields else {}
    unchecked = _unchecked(request, reply)
    return found | ({"unchecked_patterns": unchecked} if unchecked else {})


def _unchecked(request: Request, reply: Reply) -> list[str]:
    """Return pointers of patterns that a valid answer was not held to, since nothing matches them in time."""
    called = {call.name for call in reply.tool_calls}
    schemas = [tool.parameters for tool in request.tools if tool.name in called]
    if not called and request.output_schema is not None:
        schemas = [request.output_schema]
    return [pointer for schema in schemas for pointer in unchecked_patterns(schema)][:_MAX_NOTED]


def fields(reply: Reply) -> list[dict[str, Any]]:
    """Return how sure the model was of each scalar field of the JSON answer or tool call that `reply` is.

    Each entry has `field`, its JSON Pointer (RFC 6901), and in nats the `mean` and the `min` of the
    log-probabilities of the tokens that its value has characters in. Empty where the tokens do not spell
    JSON (a tool call's arguments have pointers like `/arguments/city`), or a log-probability is not valid.
    """
    tokens, text = reply.tokens, "".join(token.text for token in reply.tokens)
    if not text or (text != reply.text and not reply.tool_calls):
        return []
    if not all(math.isfinite(token.logprob) for token in tokens):
        return []
    measurements: list[dict[str, Any]] = []
    index = start = 0  # token, and the position where it starts
    for name, first, last in _scalar_spans(text):
        while start + len(tokens[index].text) <= first:  # the fields come in order
            start, index = start + len(tokens[index].text), index + 1
        position, values = start, []
        for token in tokens[index:]:
            if position >= last:
                break
            values.append(token.logprob)
            position += len(token.text)
        measurements.append({"field": name, "mean": sum(values) / len(values), "min": min(values)})
    return measurements


def canonical_json(reply: Draft) -> str | None:
    """Return JSON and tool calls in a form that is the same for the same value; None for any other answer."""
    if not reply.tool_calls:
        text = unfenced(reply.text)
        return _spelled(text) if text.lstrip()[:1] in ("{", "[") else None
    calls = sorted([call.name, _spelled(call.arguments) or call.arguments] for call in reply.tool_calls)
    return json.dumps([reply.text.strip(), calls])


def _spelled(text: str) -> str | None:
    """Return the JSON `text` with its keys in order and its numbers in one form; None if it is not JSON."""
    try:
        return json.dumps(_plain(parse_json(text)), sort_keys=True)
    except (ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """Return `value` with 2.0 as 2."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _call_problem(request: Request, call: ToolCall, steps: Steps) -> str | None:
    tool = next((tool for tool in request.tools if tool.name == call.name), None)
    if tool is None:
        known = ", ".join(tool.name for tool in request.tools[:10])
        return f"it calls a tool that there is not; known: {known}"
    if request.tool_choice not in (*TOOL_CHOICES, call.name):
        return f"it calls {call.name!r}, and tool_choice asks for {request.tool_choice!r}"
    where = f"the arguments of {call.name!r}"
    value, error = _read(call.arguments if call.arguments.strip() else "{}", where)
    if error is not None:
        return error
    error = value_problem(parameters_of(tool), value, steps)
    return None if error is None else f"{where}: {error}"


def _read(text: str, what: str) -> tuple[Any, str | None]:
    """Return the value of the JSON `text`, or why it is not JSON."""
    if len(text) > MAX_ANSWER:
        return None, f"{what}: {len(text)} characters; at most {MAX_ANSWER} are looked at"
    try:
        return parse_json(text), None
    except ValueError as error:
        return None, f"{what}: no JSON: {str(error)[:120]}"


def _scalar_spans(text: str) -> list[tuple[str, int, int]]:
    """Return pointer, start and end of the scalars of the JSON `text`, at most `MAX_FIELDS`."""
    scalars: list[tuple[str, int, int]] = []
    try:
        for scalar in _scalars(text, _skip(text, 0), ""):
            scalars.append(scalar)
            if len(scalars) == MAX_FIELDS:
                break
    except (ValueError, IndexError, RecursionError):  # it is not JSON
        return []
    return scalars


def _skip(text: str, position: int) -> int:
    while text[position] in _SPACE:
        position += 1
    return position


def _scalars(text: str, position: int, name: str) -> Generator[tuple[str, int, int], None, int]:
    """Yield pointer, start and end of the scalars of the value at `position`; return where it ends."""
    opened = text[position]
    if opened not in "{[":
        end = _DECODER.raw_decode(text, position)[1]
        yield name, position, end
        return end
    start, index = position, 0
    position = _skip(text, position + 1)
    while text[position] not in "}]":
        key = str(index)
        if opened == "{":
            key, position = _DECODER.raw_decode(text, position)
            key = key.replace("~", "~0").replace("/", "~1")
            position = _skip(text, _skip(text, position) + 1)  # past the colon
        position = yield from _scalars(text, position, f"{name}/{key}")
        position, index = _skip(text, position), index + 1
        if text[position] == ",":
            position = _skip(text, position + 1)
    if index == 0:  # an empty object or array is a value, too
        yield name, start, position + 1
    return position + 1
