"""No body, whatever its shape, is a server error, and every refusal has OpenAI's shape."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fuzzing import fuzz
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.serve.server import create_server
from cascade.trace import TraceStore

SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^x"}}, "required": ["a"]}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT: dict[str, Any] = {
    "model": "test",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Is it?"}]},
        {"role": "assistant", "content": "I look.", "refusal": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "yes"},
        {"role": "user", "content": "And?"},
    ],
    "n": 1,
    "stop": ["\n"],
    "stream": False,
    "stream_options": {"include_usage": True},
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    "logprobs": True,
    "top_logprobs": 2,
    "metadata": {"k": "v"},
    "temperature": 0.5,
    "cascade": {"local_only": True},
}
RESPONSES: dict[str, Any] = {
    "model": "test",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Is it?"}]},
        {"type": "reasoning", "id": "r1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "yes"},
        {"type": "message", "role": "user", "content": "And?"},
    ],
    "stream": False,
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}},
    "include": ["message.output_text.logprobs"],
    "metadata": {},
}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**63, 10**400, 1e308, float("inf"), float("nan"), "", " ", "x", "\0",
    "\ud800", "é" * 99, "test", [], {}, [None], [[]], {"": 0}, {"$ref": "#"}, {"type": "function"}, "user",
    "assistant", "x" * 70_000,
)  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with every one of its keys."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _changed(random: Random, body: dict[str, Any]) -> None:
    places = list(_places(body))
    container, key = random.choice(places)
    how = random.randrange(5)
    if how == 0:
        del container[key]
    elif how == 1 and isinstance(container, dict):
        container[random.choice(("", "name", "type", "\ud800", "additionalProperties", "foo"))] = container[
            key
        ]
    elif how == 2 and isinstance(container, list):
        container[key:key] = copy.deepcopy(container[key : key + 1]) * random.choice((1, 3, 200))
    elif how == 3:
        other, name = random.choice(places)
        container[key] = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else None
    else:
        container[key] = random.choice(ODD)


def a_body(random: Random) -> bytes:
    """A changed request after a byte that says for which API; often broken as bytes, too."""
    api = random.choice(("chat/completions", "responses"))
    body = copy.deepcopy(CHAT if api != "responses" else RESPONSES)
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        try:
            _changed(random, body)
        except (IndexError, KeyError):  # what another change took away
            continue
    data = bytearray(json.dumps(body).encode())
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        begin = random.randrange(len(data) + 1)
        end = begin + random.randrange(20)
        data[begin:end] = random.choice(
            (b"", data[begin:end] * 2, random.randbytes(3), b"null", b"1e999", b"\\ud800")
        )
    return api.encode() + b"\n" + bytes(data)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    models = {"a": scripted("no", confidence=0.2), "b": scripted('{"a": "x"}')}
    stages = [checked("first", "a"), {"name": "last", "ask": ["b"]}]
    path, database = write(tmp_path, models, stages), str(tmp_path / "t.db")
    with Cascade.load(path, trace_db=database) as cascade, TraceStore(database, create=False) as store:
        app = create_server({"test": cascade}, store)
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as http:
            yield http


def test_bodies(http: TestClient) -> None:
    statuses: dict[int, int] = {}

    def answered_or_refused(value: bytes) -> None:
        api, _, body = value.partition(b"\n")
        headers = {"Content-Type": "application/json"}
        answer = http.post(f"/v1/{api.decode()}", content=body, headers=headers)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code in (200, 400, 404), answer.text
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert 0 < len(error["message"]) < 2000
            assert error["message"].isprintable()
        elif not answer.headers["content-type"].startswith("text/event-stream"):
            assert answer.json()["cascade"]
        else:
            assert "unexpected" not in answer.text

    fuzz("bodies", a_body, answered_or_refused, examples=300)
    assert statuses[200] > 20
    assert statuses[400] > 100


@pytest.mark.parametrize("path", ["/v1/runs/x/grade", "/v1/runs/x/answer", "/runs/x/grade", "/runs/x/answer"])
def test_what_is_posted_about_runs(http: TestClient, path: str) -> None:
    def refused(value: bytes) -> None:
        _, _, body = value.partition(b"\n")
        kind = "application/json" if path.startswith("/v1") else "application/x-www-form-urlencoded"
        assert 400 <= http.post(path, content=body, headers={"Content-Type": kind}).status_code < 500

    fuzz("bodies", a_body, refused, examples=30)


def test_queries(http: TestClient) -> None:
    def a_query(random: Random) -> str:
        names = (
            "q",
            "graph",
            "tier",
            "status",
            "limit",
            "before",
            "since",
            "confidence_min",
            "cost_max",
            "x",
            "é",
        )
        values = ("", "1", "-1", "1e999", "nan", "%00", "%ff", "%ud800", "9" * 5000, "2026-13-01",
                  "0001-01-01", "sha256:", "'\"--", "%F0%9F%98%80", "*", "\\", "ok")  # fmt: skip
        return "&".join(
            f"{random.choice(names)}={random.choice(values)}" for _ in range(random.randrange(1, 4))
        )

    def answered_or_refused(query: str) -> None:
        for path in ("/v1/runs", "/", "/dashboard", "/v1/models/%00", "/v1/runs/%ff", "/runs/'"):
            assert http.get(f"{path}?{query}").status_code < 500, path

    fuzz("queries", a_query, answered_or_refused, examples=60)
