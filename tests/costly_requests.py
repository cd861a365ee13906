"""Requests that cost a server much to read: those that once stopped it, and drawn ones of their kinds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

PLAIN: dict[str, Any] = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
Bomb = tuple[str, str, bytes]  # its name, the path, the body


def known_bombs() -> Iterator[Bomb]:
    """Yield those that once stopped the server for seconds to minutes."""
    yield schema("patterns of \\w{99}", {"allOf": [{"pattern": "\\w{99}" * n} for n in range(1, 40)]})
    yield schema("80 kB of [\\w\\W]{N}", {"pattern": "[\\w\\W]{999}" * 6000})
    yield schema("24,000 empty subschemas", {"anyOf": [{}] * 24_000})
    yield chat("two million zeros", b'{"role": "user", "content": [' + b"0," * 2_000_000 + b"0]}")
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for n in range(80_000)
    ]
    yield chat("80,000 tool calls", json.dumps({"role": "assistant", "tool_calls": calls}).encode())


class Draw(random.Random):
    """Draws whose sizes are at most `most`."""

    most = 10_000_000

    def size(self, most: int) -> int:
        """Return a size, of each magnitude alike."""
        return int(10 ** self.uniform(2, math.log10(min(most, self.most))))


def drawn_bombs(count: int, seed: int = 0, most: int = Draw.most) -> Iterator[Bomb]:
    """Yield drawn ones: lists, objects, depth, numbers, texts, patterns, subschemas, anywhere in a body."""
    draw = Draw(seed)
    draw.most = most
    for number in range(count):
        kind = draw.choice(_KINDS)
        name, path, body = kind(draw)
        yield f"{number}: {name}", path, body


def schema(name: str, value: dict[str, Any]) -> Bomb:
    """Return a request for an answer in JSON of a schema."""
    form = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": value}}
    return name, CHAT, json.dumps(PLAIN | {"response_format": form}).encode()


def chat(name: str, message: bytes) -> Bomb:
    """Return a conversation with one message."""
    return name, CHAT, b'{"model": "test", "messages": [' + message + b"]}"


def _filler(draw: Draw) -> tuple[str, bytes]:
    """Return JSON that is long or deep."""
    unit = draw.choice((b"0", b"{}", b"[]", b'""', b"1e9", b"null", b'{"a":0}', b'{"type":"text","text":"a"}',
                        b'{"type":"text"}', b'{"role":"user"}', b"[" * 90 + b"]" * 90,
                        b'{"a":' * 90 + b"0" + b"}" * 90))  # fmt: skip
    count = min(draw.size(10_000_000), 7 * 2**20 // (len(unit) + 1))
    return f"{count} of {unit[:12]!r}", b"[" + (unit + b",") * count + unit + b"]"


def _in_a_field(draw: Draw) -> Bomb:
    name, filler = _filler(draw)
    fields = (b"messages", b"tools", b"stop", b"metadata", b"n", b"model", b"tool_choice", b"cascade",
              b"input", b"response_format", b"unknown", b"temperature", b"include", b"text")  # fmt: skip
    field = draw.choice(fields)
    path = draw.choice((CHAT, RESPONSES))
    start = b'{"model": "test", "input": "x", "messages": [{"role": "user", "content": "x"}], "'
    return f"{field.decode()} of {name}", path, start + field + b'": ' + filler + b"}"


def _in_a_message(draw: Draw) -> Bomb:
    name, filler = _filler(draw)
    field = draw.choice((b"content", b"tool_calls", b"refusal", b"name", b"role", b"parsed", b"audio"))
    role = draw.choice((b"user", b"assistant", b"tool", b"system"))
    return chat(f"{role.decode()} with {field.decode()} of {name}",
                b'{"role": "' + role + b'", "' + field + b'": ' + filler + b"}")  # fmt: skip


def _keys(draw: Draw) -> Bomb:
    count = min(draw.size(10_000_000), 400_000)
    keys = b"".join(b'"k%d": 0,' % number for number in range(count))
    if draw.random() < 0.5:
        return f"{count} unknown keys", CHAT, b"{" + keys + b'"model": "test"}'
    return chat(f"a message of {count} keys", b'{"role": "user", ' + keys + b'"content": "x"}')


def _text(draw: Draw) -> Bomb:
    unit = draw.choice(
        (b"x", b" ", b"\\n", b"\\u00e9", "é".encode(), b"\\ud83d\\ude00", b"\\\\", b"{", b"a b ")
    )
    count = min(draw.size(10_000_000), 7 * 2**20 // len(unit))
    return chat(f"a text of {count} {unit!r}", b'{"role": "user", "content": "' + unit * count + b'"}')


def _number(draw: Draw) -> Bomb:
    digits = b"9" * min(draw.size(10_000_000), 7 * 2**20)
    value = draw.choice((digits, b"0." + digits, b"1e" + digits, b"-" + digits))
    return f"a number of {len(value)}", CHAT, b'{"model": "test", "n": ' + value + b', "messages": []}'


def _pattern(draw: Draw) -> Bomb:
    atom = draw.choice((r"\w", r"[\w\W]", r"\p{L}", "(a|a)", "(a*)*", ".", r"(?=a)", "[^a]", "(x+x+)+", "é"))
    most = draw.choice((9, 99, 999, 9999))
    piece = draw.choice(
        (f"{atom}{{{most}}}", f"{atom}{{0,{most}}}", f"({atom}{{{most}}}){{{most}}}", f"{atom}+")
    )
    pattern = piece * min(draw.size(100_000), 80_000 // len(piece))
    count = draw.choice((1, 5, 50))
    place = draw.choice(("pattern", "patternProperties", "propertyNames"))
    inner: dict[str, Any] = {
        "pattern": {"allOf": [{"pattern": pattern + str(number)} for number in range(count)]},
        "patternProperties": {
            "patternProperties": {pattern + str(n): {"type": "string"} for n in range(count)}
        },
        "propertyNames": {"propertyNames": {"pattern": pattern}},
    }[place]
    return schema(f"{count} patterns of {len(pattern)}: {piece}", inner)


def _subschemas(draw: Draw) -> Bomb:
    count = draw.size(100_000)
    leaf = draw.choice(
        ({}, {"type": "string"}, {"$ref": "#"}, {"enum": [1, 2]}, {"const": "x"}, {"minLength": 3})
    )
    shapes: dict[str, Callable[[], Any]] = {
        "anyOf": lambda: {"anyOf": [leaf] * count},
        "properties": lambda: {"type": "object", "properties": {f"p{n}": leaf for n in range(count)}},
        "enum": lambda: {"enum": list(range(count))},
        "required": lambda: {"type": "object", "required": [f"p{n}" for n in range(count)]},
        "$defs": lambda: {"$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(count)},
                          "$ref": "#/$defs/d0"},
        "deep": lambda: _nested(leaf, min(count, 900)),
        "tree": lambda: _tree(leaf, min(12, len(str(count)) * 3)),
    }  # fmt: skip
    shape = draw.choice(sorted(shapes))
    value = shapes[shape]()
    if draw.random() < 0.4:
        tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": value}}
                 for n in range(draw.choice((1, 3)))]  # fmt: skip
        return f"tools with {count} {shape}", CHAT, json.dumps(PLAIN | {"tools": tools}).encode()
    return schema(f"{count} {shape} of {leaf}", value)


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"items": value}
    return value


def _tree(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"anyOf": [value, value]}
    return value


def _tools(draw: Draw) -> Bomb:
    count = draw.size(100_000)
    tools = [{"type": "function", "function": {"name": f"f{n}", "description": "d" * draw.choice((0, 9))}}
             for n in range(count)]  # fmt: skip
    return f"{count} tools", CHAT, json.dumps(PLAIN | {"tools": tools}).encode()[: 8 * 2**20]


def _conversation(draw: Draw) -> Bomb:
    count = draw.size(1_000_000)
    turns: list[dict[str, Any]] = [
        {
            "role": draw.choice(("user", "assistant")),
            "content": draw.choice(("x", "", [{"type": "text", "text": "x"}])),
        }
        for _ in range(min(count, 100_000))
    ]
    if draw.random() < 0.3:
        return (
            f"{count} items",
            RESPONSES,
            json.dumps({"model": "test", "input": turns}).encode()[: 8 * 2**20],
        )
    return f"{count} messages", CHAT, json.dumps(PLAIN | {"messages": turns}).encode()[: 8 * 2**20]


_KINDS = (_in_a_field, _in_a_message, _keys, _text, _number, _pattern, _subschemas, _tools, _conversation)
