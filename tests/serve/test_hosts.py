"""Every path of the server answers to its own names only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from scripting import scripted, write

from cascade import Cascade
from cascade.serve.server import create_server
from cascade.trace import TraceStore

PATHS = (
    "/",
    "/metrics",
    "/healthz",
    "/openapi.json",
    "/v1/models",
    "/v1/models/test",
    "/v1/runs",
    "/nowhere",
)
OWN = (
    "127.0.0.1", "127.0.0.1:8000", "127.8.8.8", "localhost", "LOCALHOST:80", "[::1]:8000", "api.example.org",
    "API.Example.org:443", "10.1.2.3:80", "[fd00::1]",
)  # fmt: skip
FOREIGN = (
    "evil.example", "api.example.org.evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.1.2.4",
    "[fd00::2]", "", "127.0.0.1@evil.example", "localhost,evil.example", "é",
)  # fmt: skip


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = write(tmp_path_factory.mktemp("hosts"), {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}])
    database = str(path.parent / "t.db")
    hosts = ("127.0.0.1", "api.example.org", "10.1.2.3", "fd00::1")
    with Cascade.load(path, trace_db=database) as cascade, TraceStore(database, create=False) as store:
        yield TestClient(create_server({"test": cascade}, store, hosts=hosts), base_url="http://127.0.0.1")


def foreign_names() -> list[str]:
    """Names that resolve to wherever their owner likes."""
    draw = random.Random(4)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-._%"
    drawn = ["".join(draw.choices(letters, k=draw.randrange(1, 30))) + ".example" for _ in range(40)]
    return [*FOREIGN, *drawn]


def test_foreign_names_are_refused_on_every_path(http: TestClient) -> None:
    body = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}
    for name in foreign_names():
        host: Any = {"Host": name.encode()}
        for path in PATHS:
            refused = http.get(path, headers=host)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unknown_host"), (
                path,
                name,
            )
        for path in ("/v1/chat/completions", "/v1/responses", "/v1/runs/x/grade", "/v1/runs/x/answer"):
            assert http.post(path, json=body, headers=host).status_code == 403
    assert http.get("/v1/runs").json()["runs"] == []


@pytest.mark.parametrize("name", OWN)
def test_its_own_names_are_answered(http: TestClient, name: str) -> None:
    statuses = [http.get(path, headers={"Host": name}).status_code for path in PATHS]
    assert statuses == [200] * 7 + [404]


def test_an_api_client_of_another_origin_that_knows_the_address_is_answered(http: TestClient) -> None:
    body = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}
    app = {"Origin": "app://desk", "Sec-Fetch-Site": "cross-site"}
    assert http.post("/v1/chat/completions", json=body, headers=app).status_code == 200
    assert http.post("/v1/runs/x/grade", json={"correct": True}, headers=app).status_code == 403
