"""A person's answer to a waiting run, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient
from loopback import Gate, Loopback, chat
from scripting import checked, scripted, write
from serving import running

from cascade import Cascade, Result
from cascade.serve.openai.keys import Keyring, add_key
from cascade.serve.server import create_server
from cascade.trace import TraceStore

HERE = "http://127.0.0.1:8000"
PERSON = {"kind": "human", "tier": "human"}


def asking(folder: Path) -> Path:
    """A graph whose second stage is a person."""
    stages = [checked("first", "small"), {"name": "person", "ask": ["person"]}]
    return write(folder, {"small": scripted("no", confidence=0.1), "person": PERSON}, stages)


@contextmanager
def served(path: Path, keys: Path | None = None) -> Iterator[tuple[TestClient, Cascade]]:
    database = str(path.parent / "traces.db")
    with Cascade.load(path, trace_db=database) as cascade, TraceStore(database, create=False) as store:
        app = create_server({cascade.name: cascade}, store, keys=None if keys is None else Keyring(keys))
        yield TestClient(app, base_url=HERE), cascade


def test_an_answer_finishes_the_run_once(tmp_path: Path) -> None:
    with served(asking(tmp_path)) as (http, cascade):
        run = cascade.invoke("Is it?").run
        done = http.post(f"/v1/runs/{run}/answer", json={"answer": "Yes, it is."})
        assert done.status_code == 200, done.text
        told = done.json()
        assert (told["run"], told["status"], told["text"]) == (run, "accepted", "Yes, it is.")
        assert [step["decision"]["rule"] for step in told["trace"]] == ["below_threshold", "unchecked"]
        assert http.get(f"/v1/runs/{run}").json() == told | {"grades": []}
        again = http.post(f"/v1/runs/{run}/answer", json={"answer": "No."})
        assert (again.status_code, again.json()["error"]) == (
            409, f"run {run} is not waiting; it ended as accepted",
        )  # fmt: skip
        assert cascade.invoke("And this?").status == "waiting"


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b'{"answer": ""}', 400, "text is empty"),
        (b'{"answer": " \\n"}', 400, "text is empty"),
        (b'{"answer": "a\\u0000"}', 400, "NUL"),
        (b'{"answer": "\\ud800"}', 400, "answer"),
        (b'{"answer": null}', 400, "answer"),
        (b'{"answer": 7}', 400, "answer"),
        (b'{"answer": "x", "by": "me"}', 400, "by"),
        (b"{}", 400, 'expected {"answer"'),
        (b"[]", 400, 'expected {"answer"'),
        (b"{", 400, 'expected {"answer"'),
        (b"[" * 100_000, 400, 'expected {"answer"'),
        (json.dumps({"answer": "x" * 1_000_001}).encode(), 400, "1000001 bytes"),
        (b" " * (5 << 20), 413, "longer"),
        (b"{" + b",".join(b'"%d": 0' % n for n in range(300_000)) + b"}", 400, 'expected {"answer"'),
        (b'{"answer": [' + b"[]," * 1_000_000 + b"0]}", 400, "answer: Input should be a valid string"),
    ],
)
def test_what_is_no_answer_is_refused_and_the_run_waits_on(
    tmp_path: Path, body: bytes, code: int, says: str
) -> None:
    with served(asking(tmp_path)) as (http, cascade):
        run = cascade.invoke("Is it?").run
        sent = http.post(f"/v1/runs/{run}/answer", content=body, headers={"Content-Type": "application/json"})
        assert sent.status_code == code, sent.text
        assert says in sent.json()["error"]
        assert len(sent.text) < 1000
        assert http.post(f"/v1/runs/{run}/answer", json={"answer": "x"}).json()["text"] == "x"


def test_unknown_runs_foreign_sites_and_forms_of_others_are_refused(tmp_path: Path) -> None:
    with served(asking(tmp_path)) as (http, cascade):
        run = cascade.invoke("Is it?").run
        path, body = f"/v1/runs/{run}/answer", {"answer": "x"}
        assert http.post("/v1/runs/01NONE/answer", json=body).status_code == 404
        assert http.post(path, data=body).status_code == 415
        for header in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert http.post(path, json=body, headers=header).status_code == 403
            assert http.post(f"/runs/{run}/answer", data=body, headers=header).status_code == 403
        assert http.get(f"/v1/runs/{run}").json()["status"] == "waiting"


def test_another_version_of_the_graph_does_not_go_on(tmp_path: Path) -> None:
    path = asking(tmp_path)
    with served(path) as (_, cascade):
        run, begun = cascade.invoke("Is it?").run, cascade.version
    path.write_text(path.read_text() + "\n# another version\n")
    with served(path) as (http, cascade):
        refused = http.post(f"/v1/runs/{run}/answer", json={"answer": "x"})
        assert refused.status_code == 409
        assert f"was begun by {begun}, which is not here; known: {cascade.version}" in refused.json()["error"]


def test_a_run_that_waits_for_its_next_stage_takes_no_answer(tmp_path: Path) -> None:
    with Loopback() as far:
        gate = Gate(far, chat("no", logprobs=[("no", -3.0)]))
        models = {
            "far": {"kind": "openai", "model": "m", "url": far.url, "key_env": None, "local": True},
            "small": scripted("done"),
        }
        path = write(tmp_path, models, [checked("first", "far"), {"name": "last", "ask": ["small"]}])
        with served(path) as (http, cascade), ThreadPoolExecutor() as pool:
            asked = pool.submit(cascade.invoke, "Is it?")
            assert gate.asked.wait(60)
            cascade.drain()
            gate.open.set()
            stopped: Result = asked.result(60)
            assert stopped.status == "waiting"
            refused = http.post(f"/v1/runs/{stopped.run}/answer", json={"answer": "x"})
            assert (refused.status_code, "not waiting for an answer" in refused.text) == (409, True)
            assert cascade.resume(stopped.run).text == "done"


def test_of_answers_at_once_one_counts(tmp_path: Path) -> None:
    with served(asking(tmp_path)) as (http, cascade), ThreadPoolExecutor(8) as pool:
        run = cascade.invoke("Is it?").run
        path = f"/v1/runs/{run}/answer"
        posts = [pool.submit(http.post, path, json={"answer": f"answer {number}"}) for number in range(8)]
        done = [post.result(60) for post in posts]
        codes = [answer.status_code for answer in done]
        assert sorted(codes) == [200] + [409] * 7
        assert http.get(f"/v1/runs/{run}").json()["text"] == done[codes.index(200)].json()["text"]


def test_only_administrators_answer(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    _, shop = add_key(keys, name="shop")
    _, admin = add_key(keys, name="boss", admin=True)
    with served(asking(tmp_path), keys) as (http, cascade):
        run = cascade.invoke("Is it?", account="shop").run
        for secret, code in ((None, 401), ("wrong", 401), (shop, 403), (admin, 200)):
            headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
            sent = http.post(f"/v1/runs/{run}/answer", json={"answer": "x"}, headers=headers)
            assert sent.status_code == code, sent.text
        assert sent.json()["request"]["account"] == "shop"


def test_a_server_that_stops_takes_no_more_answers(tmp_path: Path) -> None:
    with served(asking(tmp_path)) as (http, cascade):
        run = cascade.invoke("Is it?").run
        http.app.state.service.draining = True  # type: ignore[attr-defined]
        assert http.post(f"/v1/runs/{run}/answer", json={"answer": "x"}).status_code == 503
        assert http.get(f"/v1/runs/{run}").json()["status"] == "waiting"


def test_the_form_of_a_page_answers_too(tmp_path: Path) -> None:
    with served(asking(tmp_path)) as (http, cascade):
        run = cascade.invoke("Is it?").run
        for blank in ({}, {"answer": ""}, {"answer": "  "}):
            refused = http.post(f"/runs/{run}/answer", data=blank)
            assert (refused.status_code, "text is empty" in refused.text) == (400, True)
        assert http.post(f"/runs/{run}/answer", content=b"a=&" * 99).status_code == 400
        done = http.post(f"/runs/{run}/answer", data={"answer": "Yes & no"}, follow_redirects=False)
        assert (done.status_code, done.headers["location"]) == (303, f"/runs/{run}")
        assert "Yes &amp; no" in http.get(f"/runs/{run}").text
        again = http.post(f"/runs/{run}/answer", data={"answer": "No"})
        assert (again.status_code, "is not waiting" in again.text) == (409, True)


def test_the_viewer_alone_answers_runs_of_graphs_that_it_was_given(tmp_path: Path) -> None:
    path, database = asking(tmp_path), str(tmp_path / "traces.db")
    with Cascade.load(path, trace_db=database) as cascade:
        runs = [cascade.invoke(f"Is it {number}?").run for number in range(2)]
    with running("--trace-db", database, "--no-open") as (_, url):
        refused = httpx2.post(f"{url}v1/runs/{runs[0]}/answer", json={"answer": "x"})
        assert (refused.status_code, "known: none" in refused.text) == (409, True)
    with running(str(path), "--trace-db", database, "--no-open") as (_, url):
        for run in runs:
            done = httpx2.post(f"{url}v1/runs/{run}/answer", json={"answer": f"for {run}"})
            assert (done.status_code, done.json()["text"]) == (200, f"for {run}")
