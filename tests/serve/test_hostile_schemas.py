"""A client's schemas cannot make a key's calls free: what the provider counted is what the key has paid."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from faulty_kinds import SCHEMAS
from loopback import Loopback, chat
from ruamel.yaml import YAML
from serving import serving

from cascade.serve.openai.keys import add_key
from cascade.trace import TraceStore

COST = 0.01  # of one answer
TAKEN = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}


def graph_file(folder: Path, url: str) -> Path:
    price = {"input": 0.0, "output": COST * 1e6 / 3}  # three tokens an answer
    model = {"kind": "openai", "tier": "opus", "model": "gpt", "url": url, "max_tokens": 3, "price": price}
    graph = {
        "name": "shop",
        "models": {"m": {**model, "max_retries": 0}},
        "stages": [{"name": "a", "ask": ["m"]}],
    }
    path = folder / "graph.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(graph, file)
    return path


def body(schema: object, *, tool: bool, stream: bool) -> dict[str, object]:
    shaped = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    function = {"type": "function", "function": {"name": "x", "parameters": schema}}
    wanted = {"tools": [function], "tool_choice": "required"} if tool else {"response_format": shaped}
    return {"model": "shop", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **wanted}


def test_a_key_pays_for_every_call_whatever_its_schemas_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    keys = tmp_path / "keys.json"
    _, secret = add_key(keys, name="shop", day_usd=15 * COST)
    with Loopback() as provider:
        provider.answers = [chat('{"a": 3, "b": "\\ud83d"}', usage=(0, 3))]
        with serving(graph_file(tmp_path, provider.url), "--keys", str(keys)) as (_, base):
            codes = []
            with httpx.Client(headers={"Authorization": f"Bearer {secret}"}, timeout=60) as client:
                for number, schema in enumerate([*SCHEMAS, *[TAKEN] * 12]):
                    for tool in (True, False):
                        asked = body(schema, tool=tool, stream=number % 2 == 0)
                        answer = client.post(
                            f"{base}/v1/chat/completions",
                            content=json.dumps(asked).encode(), headers={"Content-Type": "application/json"},
                        )  # fmt: skip
                        codes.append(answer.status_code)
        counted = len(provider.requests)
        database = tmp_path / "traces.db"
        with TraceStore(str(database)) as store:
            stored = [store.get(run.run) for run in store.runs(limit=500)]
        calls = [call for run in stored for step in run.trace for call in step.calls]
        with closing(sqlite3.connect(database)) as connection:
            (paid,) = connection.execute("SELECT sum(spent) FROM budget_days").fetchone()
    assert 400 in codes  # those that are refused cost nothing
    assert 12 <= counted <= 15  # and the others only as much as the key may spend
    assert len(calls) == counted
    assert paid / 1e12 == pytest.approx(counted * COST)
    assert sum(call.cost_usd for call in calls) == pytest.approx(counted * COST)
