"""Valid chat completions, whole and streamed, and random changes that must not change what they say.

    case = draw_case(random)                  # what is said, and the documents that say it
    body = encode(random, mutated(random, case))

A change deletes, empties or re-orders members that an answer can do without, splits text, adds what other
servers add, or frames the bytes differently. `case.says` stays what the answer says.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

WORDS = (
    "The ",
    "refund",
    " is",
    " 20",
    " euros",
    ".",
    "\n\n",
    "Straße ",
    "日本",
    "🙂",
    ' "a"',
    "{",
    "}",
    "ha",
    "0",
)
EMPTY: tuple[Any, ...] = (None, "", [], {})
# What an answer cannot do without: a change here may change what is said.
CARRIES = {
    "content",
    "arguments",
    "name",
    "text",
    "finish_reason",
    "choices",
    "function",
    "tool_calls",
    "delta",
}
USAGE = {"usage", "prompt_tokens", "completion_tokens", "total_tokens"}


@dataclass
class Case:
    """What an answer says, the documents that say it, and whether they are the events of a stream."""

    text: str
    calls: list[tuple[str, str]]
    usage: tuple[int, int]
    documents: list[Any]
    streamed: bool
    usage_touched: bool = field(default=False)
    lost: bool = field(default=False)


def draw_case(random: Random) -> Case:
    """Return a case: text or tool calls, with or without log-probabilities, whole or streamed."""
    pieces = [random.choice(WORDS) for _ in range(random.randint(1, 7))]
    calls = []
    if random.random() < 0.25:
        pieces = []
        calls = [
            (f"tool{i}", json.dumps({"a": i, "b": random.choice(WORDS)})) for i in range(random.randint(1, 3))
        ]
    elif not "".join(pieces).strip():
        pieces.append("yes")
    usage = (random.randint(1, 400), random.randint(len(pieces) or 1, 90))
    make = _streamed if random.random() < 0.6 else _whole
    logprobs = random.random() < 0.5
    return Case("".join(pieces), calls, usage, make(pieces, calls, usage, logprobs), make is _streamed)


def _usage(usage: tuple[int, int]) -> dict[str, Any]:
    details = {
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return {**counts, **details}


def _logprobs(pieces: list[str]) -> dict[str, Any]:
    return {
        "content": [
            {"token": piece, "logprob": -0.5, "bytes": list(piece.encode()), "top_logprobs": []}
            for piece in pieces
        ]
    }


def _whole(
    pieces: list[str], calls: list[tuple[str, str]], usage: tuple[int, int], logprobs: bool
) -> list[Any]:
    called = [
        {"id": f"id{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) or None, "refusal": None}
    message |= {"tool_calls": called} if called else {}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(pieces) if logprobs and pieces else None,
        "finish_reason": "tool_calls" if calls else "stop",
    }
    return [
        {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": _usage(usage)}
    ]


def _streamed(
    pieces: list[str], calls: list[tuple[str, str]], usage: tuple[int, int], logprobs: bool
) -> list[Any]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces]
    for index, (name, arguments) in enumerate(calls):
        head = {"index": index, "id": f"id{index}", "type": "function"}
        deltas.append({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
        middle = len(arguments) // 2
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": part}}]}
            for part in (arguments[:middle], arguments[middle:])
        ]
    head = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
    events: list[Any] = []
    for delta in deltas:
        said = [delta["content"]] if delta.get("content") else []
        facts = {"logprobs": _logprobs(said) if logprobs and said else None, "finish_reason": None}
        events.append({**head, "choices": [{"index": 0, "delta": delta, **facts}], "usage": None})
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}
    return [*events, {**head, "choices": [end]}, {**head, "choices": [], "usage": _usage(usage)}]


def mutated(random: Random, case: Case) -> Case:
    """Return `case` after one to four changes."""
    case = copy.deepcopy(case)
    chosen = random.sample(range(len(_CHANGES)), random.randint(1, 4))
    for number in sorted(chosen):
        _CHANGES[number](random, case)
    return case


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) below `value`."""
    inner = list(value.items() if isinstance(value, dict) else enumerate(value))
    found = [(value, key) for key, _ in inner]
    return found + [place for _, item in inner if isinstance(item, dict | list) for place in _places(item)]


def _optional(random: Random, case: Case) -> tuple[Any, Any]:
    place, key = random.choice([each for each in _places(case.documents) if isinstance(each[0], dict)])
    case.lost |= key in CARRIES and place[key] not in EMPTY
    case.usage_touched |= key in USAGE
    return place, key


def _delete(random: Random, case: Case) -> None:
    place, key = _optional(random, case)
    del place[key]


def _empty(random: Random, case: Case) -> None:
    place, key = _optional(random, case)
    place[key] = copy.copy(random.choice(EMPTY))


def _wrong_type(random: Random, case: Case) -> None:
    place, key = _optional(random, case)
    values = [-1, 1e300, True, "x", [7], {"x": 1}]
    place[key] = random.choice(values if str(key).endswith("_tokens") else [7, *values])
    case.lost |= key in CARRIES | {"message", "error", "refusal", "index", "object", "id", "type"}


def _order(random: Random, case: Case) -> None:
    for place, key in _places(case.documents):
        if isinstance(place[key], dict) and random.random() < 0.5:
            items = list(place[key].items())
            random.shuffle(items)
            place[key] = dict(items)


def _move_usage(random: Random, case: Case) -> None:
    """The chunk with the usage comes at any time, or twice."""
    if case.streamed and case.documents:
        last = case.documents[-1] if random.random() < 0.5 else case.documents.pop()
        case.documents.insert(random.randint(0, len(case.documents)), last)


def _null_items(random: Random, case: Case) -> None:
    """Null beside the items of a list, and choices that are not the first."""
    for document in case.documents:
        if isinstance(document, dict) and isinstance(document.get("choices"), list) and random.random() < 0.5:
            other = random.choice(
                [None, {"index": 1, "delta": {"content": "other"}, "message": {"content": "other"}}]
            )
            document["choices"].insert(random.randint(0, len(document["choices"])), other)


def _parts(random: Random, case: Case) -> None:
    """Text in parts, with thinking between them."""
    for place, key in _places(case.documents):
        text = place[key]
        if key == "content" and isinstance(text, str) and text and random.random() < 0.5:
            middle = random.randint(0, len(text))
            parts: list[Any] = [
                {"type": "text", "text": text[:middle]},
                {"type": "text", "text": text[middle:]},
            ]
            thought = random.choice(["hm", [{"type": "text", "text": "hm"}]])
            extra = [{"type": "thinking", "thinking": thought}, None, {"type": "text", "text": ""}]
            parts.insert(random.randint(0, 2), random.choice(extra))
            place[key] = parts


def _split(random: Random, case: Case) -> None:
    """Deltas in two."""
    if not case.streamed:
        return
    events = []
    for document in case.documents:
        delta = _delta(document)
        text = delta.get("content") if delta else None
        events.append(document)
        if isinstance(text, str) and len(text) > 1 and random.random() < 0.5:
            rest = copy.deepcopy(document)
            middle = random.randint(1, len(text) - 1)
            delta["content"], _delta(rest)["content"] = text[:middle], text[middle:]
            for choice in rest["choices"]:
                if choice is not None:
                    choice.pop("logprobs", None)
            events.append(rest)
    case.documents = events


def _delta(document: Any) -> Any:
    """Return the delta of the first choice, if there is one."""
    choices = document.get("choices") if isinstance(document, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index") in (None, 0):
            return choice["delta"] if isinstance(choice.get("delta"), dict) else None
    return None


def _additions(random: Random, case: Case) -> None:
    """What servers add: chunks that keep alive, results of filters, thinking beside the text."""
    for document in case.documents:
        if isinstance(document, dict) and random.random() < 0.3:
            document["system_fingerprint"] = "x"
            delta = _delta(document)
            if delta is not None:
                delta["reasoning_content"] = "hm"
                delta["reasoning"] = "hm"
    silent = [
        None,
        {},
        {"choices": []},
        {"choices": [{"delta": None}]},
        {"prompt_filter_results": [{"index": 0}]},
    ]
    if case.streamed:
        case.documents.insert(random.randint(0, len(case.documents)), random.choice(silent))


def _message_at_end(random: Random, case: Case) -> None:
    """The whole as a `message`, beside the deltas."""
    if case.streamed and case.text and len(case.documents) > 1:
        choice = {"index": 0, "message": {"content": case.text}, "finish_reason": "stop"}
        case.documents.insert(-1, {"choices": [choice]})


def _cumulative(random: Random, case: Case) -> None:
    """Each delta holds everything so far."""
    deltas = [delta for delta in map(_delta, case.documents) if delta and delta.get("content")]
    if case.streamed and all(isinstance(delta["content"], str) for delta in deltas):
        so_far = ""
        for delta in deltas:
            so_far += delta["content"]
            delta["content"] = so_far


_CHANGES = (
    _split, _cumulative, _parts, _delete, _delete, _empty, _empty, _wrong_type, _order, _message_at_end,
    _move_usage, _null_items, _additions,
)  # fmt: skip


def encode(random: Random, case: Case) -> list[bytes]:
    """Return the body as chunks of bytes, framed in one of the ways that servers frame it."""
    if not case.streamed:
        body = json.dumps(case.documents[0], ensure_ascii=random.random() < 0.5).encode()
        body = random.choice([b"", b"\n", b"\xef\xbb\xbf"]) + body + random.choice([b"", b"\n"])
    else:
        end = random.choice([b"\n", b"\r\n", b"\r"])
        head = random.choice([b"data: ", b"data:", b"id: 7\ndata: ".replace(b"\n", end)])
        lines = [head + json.dumps(event).encode() + end + end for event in case.documents]
        if random.random() < 0.3:
            lines.insert(random.randint(0, len(lines)), b": keep-alive" + end + end)
        lines.append(random.choice([b"data: [DONE]" + end + end, b"data: [DONE]", b""]))
        body = b"".join(lines)
    cuts = sorted(random.randint(0, len(body)) for _ in range(random.randint(0, 6)))
    return [body[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
