"""Which fields of OpenAI's requests mean nothing here: the one table for the server and the chat model.

A field that is null or empty is the same as one that is not there. A field whose effect this package leaves
to the graph, or that only its sender reads, is passed over. What an assistant said comes back as its server
and the client's library wrote it, so there every field is passed over that is not known to hold content. What
is left is read strictly: a field with a meaning and no effect is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

# Of a request: sampling and service, which clients send unasked and the graph decides.
IGNORED_SETTINGS = frozenset({
    "frequency_penalty", "include", "max_completion_tokens", "max_output_tokens", "max_tokens",
    "max_tool_calls", "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "reasoning", "reasoning_effort", "safety_identifier",
    "seed", "service_tier", "store", "stream_options", "temperature", "top_logprobs", "top_p", "truncation",
    "user", "verbosity",
})  # fmt: skip
# Of a message, an item, a piece of content or a tool: what only the sender or its provider reads.
_IGNORED_MEMBERS = frozenset({
    "annotations", "async", "cache_control", "caller", "citations", "created_by", "id", "index", "logprobs",
    "metadata", "name", "namespace", "parsed", "parsed_arguments", "phase", "prompt_cache_breakpoint",
    "status",
})  # fmt: skip
# Values that ask for what happens anyway.
_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "background": (False,), "function_call": ("none", "auto"), "modalities": (["text"],), "n": (1,),
}  # fmt: skip
_MEANT_EMPTY = frozenset({"web_search_options"})  # an empty mapping switches it on
_CONTENT = frozenset({"audio", "function_call", "images"})  # of an assistant's message; here refused
_THOUGHTS = frozenset({"reasoning", "reasoning_text", "redacted_thinking", "summary_text", "thinking"})

_NOTHING_STORED = "nothing is stored here; send the whole conversation"
REFUSED: Mapping[str, str] = {
    "conversation": _NOTHING_STORED,
    "function_call": "functions are no longer offered; use tools, tool_calls and tool_choice",
    "functions": "functions are no longer offered; use tools",
    "previous_response_id": _NOTHING_STORED,
    "prompt": "no prompts are stored here; send the conversation itself",
} | dict.fromkeys(
    ("access_programs", "audio", "background", "context_management", "image", "images", "logit_bias",
     "modalities", "moderation", "web_search_options"),
    "it has no effect here; leave it out",
)  # fmt: skip
"""Fields with a meaning that no request gets here, and what to do instead."""


def clean(fields: Mapping[str, Any], known: Collection[str], ignored: Collection[str]) -> dict[str, Any]:
    """Return `fields` less those that mean nothing: null, empty, a default, or `ignored` if not `known`."""
    return {
        name: value
        for name, value in fields.items()
        if not _is_empty(name, value)
        and (name in known or (name not in ignored and value not in _DEFAULTS.get(name, ())))
    }


def clean_settings(fields: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the settings of a request that mean something; `known` are those with an effect."""
    return clean(fields, known, IGNORED_SETTINGS)


def clean_members(fields: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the members of a tool, or of a piece of content, that mean something."""
    return clean(fields, known, _IGNORED_MEMBERS)


def clean_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message of a chat completion with the members that mean something.

    Of an assistant's message these are its content and tool calls, without thoughts.
    """
    known = ("role", "content", "refusal", "tool_calls", "tool_call_id")
    if message.get("role") != "assistant":
        return clean_members(message, known)
    cleaned = _of(message, (*known, *_CONTENT))
    if isinstance(content := cleaned.get("content"), list):
        cleaned["content"] = [_part(part) for part in content if not _is_thought(part)]
    if isinstance(calls := cleaned.get("tool_calls"), list):
        cleaned["tool_calls"] = [_tool_call(call) for call in calls]
    return cleaned


def clean_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of the Responses API with the members that mean something.

    Of a model's thoughts, only the type is left.
    """
    kind = item.get("type") or "message"
    if kind == "reasoning":
        return {"type": kind}
    if kind == "additional_tools":
        return _of(item, ("type", "tools"))
    if kind == "function_call":
        return _of(item, ("type", "call_id", "name", "arguments"))
    if kind == "message":
        return clean_message(item) | {"type": kind}
    return clean_members(item, ("type", "call_id", "output"))


def cut(text: str, stops: Sequence[str] | None) -> str:
    """Return `text` up to the first of `stops`."""
    ends = [end for stop in stops or () if stop and (end := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def _is_empty(name: str, value: Any) -> bool:
    return value is None or (value in ("", [], {}) and name not in _MEANT_EMPTY)


def _is_thought(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in _THOUGHTS


def _of(fields: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return only the `known` members that are not empty."""
    return {name: fields[name] for name in fields if name in known and not _is_empty(name, fields[name])}


def _part(part: Any) -> Any:
    return _of(part, ("type", "text", "refusal")) if isinstance(part, Mapping) else part


def _tool_call(call: Any) -> Any:
    if not isinstance(call, Mapping):
        return call
    cleaned = _of(call, ("id", "type", "function", "custom"))
    if isinstance(function := cleaned.get("function"), Mapping):
        cleaned["function"] = {name: function[name] for name in ("name", "arguments") if name in function}
    return cleaned
