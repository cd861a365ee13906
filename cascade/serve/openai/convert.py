"""Between OpenAI's shapes and this package's records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from cascade.explain import describe
from cascade.policy.result import answer_call, person_next
from cascade.records import Message, Request, Result, Speaker, Tool, ToolCall
from cascade.serve.openai.errors import ApiError
from cascade.serve.openai.schema import (
    ChatBody,
    ChatMessage,
    FlatChoice,
    InputItem,
    NamedTool,
    ResponsesBody,
    TextPart,
)
from cascade.spec.schema import Graph

Schema = dict[str, Any]


def chat_request(body: ChatBody, account: str | None) -> Request:
    """Return the request that a chat completion asks."""
    messages = tuple(_message(message) for message in body.messages)
    tools = [
        Tool(name=f.name, description=f.description or "", parameters=f.parameters or {})
        for f in (tool.function for tool in body.tools or ())
    ]
    choice = body.tool_choice.function.name if isinstance(body.tool_choice, NamedTool) else body.tool_choice
    form = body.response_format
    given = form.json_schema.schema_ if form is not None and form.json_schema is not None else None
    schema = None if form is None else _schema(form.type, given)
    return _request(
        messages, tools, choice, schema, body.cascade.local_only, account,
        body.metadata,
    )  # fmt: skip


def responses_request(body: ResponsesBody, account: str | None) -> Request:
    """Return the request that POST /v1/responses asks."""
    messages: list[Message] = []
    if body.instructions:
        messages.append(Message(role="system", content=body.instructions))
    if isinstance(body.input, str):
        messages.append(Message(role="user", content=body.input))
    else:
        messages += _items(body.input)
    tools = [
        Tool(name=tool.name, description=tool.description or "", parameters=tool.parameters or {})
        for tool in body.tools or ()
    ]
    choice = body.tool_choice.name if isinstance(body.tool_choice, FlatChoice) else body.tool_choice
    form = body.text.format if body.text is not None else None
    schema = None if form is None else _schema(form.type, form.schema_)
    return _request(
        messages, tools, choice, schema, body.cascade.local_only,
        account, body.metadata,
    )  # fmt: skip


def _request(
    messages: Sequence[Message],
    tools: Sequence[Tool],
    choice: str | None,
    schema: Schema | None,
    local_only: bool,
    account: str | None,
    metadata: Schema | None,
) -> Request:
    """Return the request; a single user message becomes plain text, which every model accepts."""
    last = next((message.content for message in reversed(messages) if message.role == "user"), "")
    plain = len(messages) == 1 and messages[0].role == "user"
    return Request(
        text=last,
        messages=() if plain else tuple(messages),
        tools=tuple(tools),
        tool_choice=choice or "auto",
        output_schema=schema,
        local_only=local_only,
        account=account,
        metadata=metadata or {},
    )


def _schema(kind: str, schema: Schema | None) -> Schema | None:
    if kind == "json_object":
        return {"type": "object"}
    return (schema if schema is not None else {}) if kind == "json_schema" else None


def _message(message: ChatMessage) -> Message:
    role: Speaker = "system" if message.role == "developer" else message.role
    calls = [
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
    ]
    return Message(
        role=role,
        content=_content(message.content) or message.refusal or "",
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
    )


def _items(items: Iterable[InputItem]) -> list[Message]:
    """Return messages; adjacent function calls are merged into one assistant message."""
    messages: list[Message] = []
    for index, item in enumerate(items):
        if item.type in ("reasoning", "additional_tools"):
            continue
        if item.type == "message":
            if item.role is None:
                raise ApiError(400, f"input[{index}] has no role", param=f"input[{index}].role")
            role: Speaker = "system" if item.role == "developer" else item.role
            messages.append(Message(role=role, content=_content(item.content)))
        elif item.call_id is None:
            raise ApiError(400, f"input[{index}] has no call_id", param=f"input[{index}].call_id")
        elif item.type == "function_call_output":
            messages.append(Message(role="tool", content=_content(item.output), tool_call_id=item.call_id))
        else:
            call = ToolCall(id=item.call_id, name=item.name or "", arguments=item.arguments or "")
            earlier = (
                messages.pop() if messages and messages[-1].role == "assistant" else Message(role="assistant")
            )
            messages.append(earlier.model_copy(update={"tool_calls": (*earlier.tool_calls, call)}))
    return messages


def _content(content: str | Sequence[TextPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.refusal if part.refusal is not None else part.text for part in content)


def refusal(result: Result) -> str | None:
    """Return why there is no answer; None if there is one."""
    if result.status in ("accepted", "best_effort"):
        return None
    if result.status == "waiting":
        return f"run {result.run} waits for a person; its answer will be at /v1/runs/{result.run}"
    return f"no answer was good enough (rule {result.rule}); see /v1/runs/{result.run}"


def refused(result: Result, graph: Graph) -> ApiError | None:
    """Return the error of a run that failed for a temporary reason, or because of its account; else None."""
    if result.status == "waiting" and not person_next(graph, result.trace):
        text = f"the server stops; run {result.run} is kept and goes on with `cascade resume {result.run}`"
        return ApiError(503, text, code="draining", retry_after=1.0)
    if result.status != "abstained":
        return None
    if any(step.decision.rule == "over_budget" for step in result.trace):
        decision = next(s.decision for s in result.trace if s.decision.rule == "over_budget")
        return ApiError(429, f"run {result.run}: {describe(decision)}", code="insufficient_quota")
    calls = [call for step in result.trace for call in step.calls if call.role == "answer"]
    if calls and all(call.meta.get("refused") == "busy" for call in calls):
        return ApiError(429, f"run {result.run}: {calls[-1].error}", code="busy", retry_after=1.0)
    return None


def usage(results: Iterable[Result]) -> dict[str, int]:
    """Return the token counts of all calls, including rejected drafts and gates."""
    calls = [call for result in results for step in result.trace for call in step.calls]
    tokens_in, tokens_out = sum(call.tokens_in for call in calls), sum(call.tokens_out for call in calls)
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def decision_summary(result: Result) -> dict[str, Any]:
    """Return the `cascade` field of an answer, an extension: what was decided, and what it cost."""
    return {
        "run": result.run,
        "status": result.status,
        "rule": result.rule,
        "tier": result.tier,
        "model": result.model,
        "stage": result.stage,
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "cost_usd": result.cost_usd,
        "steps": [
            {
                "stage": step.stage,
                "action": step.decision.action,
                "rule": step.decision.rule,
                "confidence": step.estimate.confidence if step.estimate is not None else None,
                "threshold": step.decision.threshold,
            }
            for step in result.trace
        ],
    }


def tool_calls(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """Return tool calls as a chat completion has them."""
    return [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in calls
    ]


def logprobs(result: Result, length: int | None = None) -> dict[str, Any] | None:
    """Return the answer's token log-probabilities; None where its model reports none.

    Args:
        result: the run.
        length: how many characters of the answer are given; None: all.
    """
    call = answer_call(result)
    if call is None or not call.tokens:
        return None
    starts = accumulate((len(token.text) for token in call.tokens), initial=0)
    given = [t for t, start in zip(call.tokens, starts, strict=False) if length is None or start < length]
    tokens = [
        # JSON has no infinity; OpenAI uses -9999.0 for what is practically impossible.
        {
            "token": token.text,
            "logprob": max(token.logprob, -9999.0),
            "bytes": list(token.text.encode("utf-8", "replace")),
            "top_logprobs": [],
        }
        for token in given
    ]
    return {"content": tokens, "refusal": None}
