"""Who asks: credentials as programs send and mangle them, and what counts as a request."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from scripting import scripted, write

from cascade import Cascade
from cascade.serve.openai.keys import Keyring, add_key
from cascade.serve.server import create_server
from cascade.trace import TraceStore

ASK = {"model": "test", "messages": [{"role": "user", "content": "Is it?"}]}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def http(tmp_path: Path, keys: Path) -> Iterator[TestClient]:
    add_key(keys, name="boss", admin=True)
    path = write(tmp_path, {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}])
    database = str(tmp_path / "t.db")
    with Cascade.load(path, trace_db=database) as cascade, TraceStore(database, create=False) as store:
        server = create_server({"test": cascade}, store, keys=Keyring(keys), in_flight=4, queue=4)
        yield TestClient(server, base_url="http://127.0.0.1", raise_server_exceptions=False)


def credentials() -> list[bytes]:
    """What an Authorization header may hold that is no key."""
    draw = random.Random(3)
    fixed = [
        "Basic é", "Basic", "Basic =", "Basic ====", "Bearer", "Bearer é", "Bearer \t", "basic Og==",
        "Digest x", "", " ", "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(), "Bearer " + "x" * 5000,
    ]  # fmt: skip
    schemes = (b"Basic ", b"Bearer ", b"basic  ", b"")
    drawn = [draw.choice(schemes) + draw.randbytes(9) for _ in range(80)]
    return [*(text.encode() for text in fixed), *(d for d in drawn if not set(d) & set(b"\0\r\n"))]


def test_what_is_no_key_is_refused_whatever_it_is(http: TestClient) -> None:
    for value in credentials():
        for path in ("/v1/models", "/metrics", "/v1/runs", "/"):
            refused = http.get(path, headers=[(b"Authorization", value)])  # type: ignore[list-item]
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key"), value


def test_each_choice_counts_as_a_request(http: TestClient, keys: Path) -> None:
    _, secret = add_key(keys, name="shop", per_minute=6)

    def ask(n: int) -> tuple[int, str | None]:
        headers = {"Authorization": f"Bearer {secret}"}
        answer = http.post("/v1/chat/completions", json=ASK | {"n": n}, headers=headers)
        return answer.status_code, answer.json().get("error", {}).get("code")

    assert ask(4) == (200, None)  # of 6 a minute, 2 are left
    assert ask(4) == (429, "rate_limit_exceeded")  # and 1 after this
    assert ask(1) == (200, None)
    assert ask(1) == (429, "rate_limit_exceeded")


def test_more_choices_than_the_rate_ever_allows_are_an_error_of_the_request(
    http: TestClient, keys: Path
) -> None:
    _, secret = add_key(keys, name="shop", per_minute=2)
    refused = http.post(
        "/v1/chat/completions", json=ASK | {"n": 4}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")


def test_more_choices_than_there_are_places_leave_nothing_at_work(http: TestClient, keys: Path) -> None:
    _, secret = add_key(keys, name="shop")
    headers = {"Authorization": f"Bearer {secret}"}
    refused = http.post("/v1/chat/completions", json=ASK | {"n": 16}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    places = http.app.state.service.places  # type: ignore[attr-defined]
    assert (places.at_work, places.waiting) == (0, 0)
    assert http.post("/v1/chat/completions", json=ASK | {"n": 8}, headers=headers).status_code == 200


def test_a_server_whose_key_file_is_gone_lets_nobody_in(http: TestClient, keys: Path) -> None:
    _, secret = add_key(keys, name="shop", admin=True)
    headers = {"Authorization": f"Bearer {secret}"}
    assert http.get("/v1/models", headers=headers).status_code == 200
    keys.unlink()
    for path in ("/v1/models", "/metrics", "/v1/runs", "/"):
        assert http.get(path, headers=headers).status_code == 401
        assert http.get(path).status_code == 401
