"""No schema is resolved outside itself: a socket listens, nothing is patched, and nobody ever connects."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from scripting import load, scripted

from cascade.errors import RequestError
from cascade.formats.schemas import schema_problem, value_problem

DRAFTS = [
    "http://json-schema.org/draft-03/schema#", "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#", "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema", None,
]  # fmt: skip


def schemas_that_point(url: str, chance: random.Random) -> dict[str, Any]:
    """A schema that points to `url` in one of the ways in which some draft can."""
    address = chance.choice(["$id", "id", "$schema", "$anchor"])
    reference = chance.choice(["$ref", "$dynamicRef", "$recursiveRef", "extends"])
    pointing: dict[str, Any] = chance.choice([
        {address: url, reference: "other.json"}, {reference: url}, {reference: f"{url}#/a"},
        {address: url, "properties": {"a": {reference: "x"}}}, {address: url, reference: "#/$defs/none"},
        {"$ref": "#/$defs/a", "$defs": {"a": {address: url, reference: "b"}}}, {"$schema": url},
        {"$vocabulary": {url: True}, reference: url}, {"$ref": "//" + url.partition("//")[2]},
    ])  # fmt: skip
    for _ in range(chance.randrange(3)):
        where = chance.choice(
            ["properties", "items", "anyOf", "not", "$defs", "definitions", "default", "odd"]
        )
        nested: Any = {"x": pointing} if where in ("properties", "$defs", "definitions") else pointing
        pointing = {where: [nested] if where == "anyOf" else nested}
    draft = chance.choice(DRAFTS)
    return pointing if draft is None else {"$schema": draft, **pointing}


@pytest.fixture
def listening() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def connected(server: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        server.accept()[0].close()
        return True
    return False


def test_the_listener_would_notice(listening: socket.socket) -> None:
    with socket.create_connection(listening.getsockname()):
        assert connected(listening)


async def test_nothing_in_a_schema_is_fetched(listening: socket.socket, tmp_path: Path) -> None:
    port, chance = listening.getsockname()[1], random.Random(12)
    taken = 0
    async with load(tmp_path, {"m": scripted('{"x": {"a": 1}}')}, [{"name": "one", "ask": ["m"]}]) as cascade:
        for number in range(400):
            schema = schemas_that_point(f"http://127.0.0.1:{port}/a.json", chance)
            if number % 20 == 0:
                with contextlib.suppress(RequestError):
                    await cascade.ainvoke("x", output_schema=schema, local_only=True)
            if schema_problem(schema) is None:
                taken += 1
                for value in ({}, {"a": 1}, {"x": {"a": 1}}, [{"a": {}}], 1):
                    value_problem(schema, value)
    assert taken > 20  # some have the address only as data or as an annotation
    assert not connected(listening)


def test_files_tell_nothing(tmp_path: Path) -> None:
    """The answer about a file that exists is the answer about one that does not."""
    (tmp_path / "there.json").write_text('{"type": "string"}')
    for draft in DRAFTS:
        said = []
        for name in ("there.json", "gone0.json"):
            url = (tmp_path / name).as_uri()
            for schema in ({"$ref": url}, {"items": {"$id": url, "$ref": ""}}, {"$id": url, "$ref": name}):
                whole = schema if draft is None else {"$schema": draft, **schema}
                said.append(f"{schema_problem(whole)} {value_problem(whole, [1])}".replace(name, "NAME"))
        assert said[:3] == said[3:]
        assert "None" not in {each.split()[0] for each in said}
