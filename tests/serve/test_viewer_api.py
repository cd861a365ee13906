"""The viewer's JSON, and what guards it: hosts, origins, sizes, headers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from runs_maker import WRITTEN, quick, run, step

from cascade.records import Result
from cascade.serve.app import create_app
from cascade.serve.guard import HEADERS
from cascade.trace import TraceStore

HERE = "http://127.0.0.1:8765"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(str(tmp_path / "runs.db")) as store:
        store.write(run("01AA"))
        store.write(quick("01BB"))
        yield store


@pytest.fixture
def viewer(store: TraceStore) -> TestClient:
    return TestClient(create_app(store), base_url=HERE)


def test_runs_are_listed_as_the_command_line_does(store: TraceStore, viewer: TestClient) -> None:
    found = viewer.get("/v1/runs").json()
    assert found == {"runs": [row.model_dump(mode="json") for row in store.runs()], "before": None}
    first = viewer.get("/v1/runs", params={"limit": 1}).json()
    assert (first["before"], [row["run"] for row in first["runs"]]) == ("01BB", ["01BB"])
    second = viewer.get("/v1/runs", params={"limit": 1, "before": first["before"]}).json()
    assert (second["before"], [row["run"] for row in second["runs"]]) == (None, ["01AA"])
    assert [r["run"] for r in viewer.get("/v1/runs?tier=opus&q=lost").json()["runs"]] == ["01AA"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "limit is '0'; expected 1 to 500"),
        ("limit=many", "limit is 'many'"),
        ("tiers=opus", "unknown 'tiers'; known: q, graph, tier"),
        ("status=done", "status is 'done'; known: accepted"),
        ("cost_min=inf", "cost_min is 'inf'; expected a number"),
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(query: str, says: str, viewer: TestClient) -> None:
    answer = viewer.get(f"/v1/runs?{query}")
    assert answer.status_code == 422
    assert says in answer.json()["error"]


def test_a_run_comes_in_full_with_its_grades(store: TraceStore, viewer: TestClient) -> None:
    grade = store.grade("01AA", True, by="Ada")
    found = viewer.get("/v1/runs/01A").json()
    assert found.pop("grades") == [grade.model_dump()]
    assert Result.model_validate(found) == store.get("01AA")
    store.write(run("01CC", trace=(step("first", "no_estimate", WRITTEN),), confidence=float("inf")))
    calls = viewer.get("/v1/runs/01CC").json()["trace"][0]["calls"]
    assert calls[0]["tokens"][3]["logprob"] is None
    assert viewer.get("/v1/runs?limit=1").json()["runs"][0]["confidence"] is None
    unknown = viewer.get("/v1/runs/02")
    assert (unknown.status_code, "nearest" in unknown.json()["error"]) == (404, True)


def test_an_explanation_is_given_as_records(viewer: TestClient) -> None:
    explained = viewer.get("/v1/runs/01AA/explanation").json()
    trace = viewer.get("/v1/runs/01AA").json()["trace"]
    assert [step["rule"] for step in explained["steps"]] == [step["decision"]["rule"] for step in trace]
    assert explained["steps"][0]["what_if"]["setting"]
    assert viewer.get("/v1/runs/nothing/explanation").status_code == 404


def test_a_job_grades_by_json(store: TraceStore, viewer: TestClient) -> None:
    answer = viewer.post("/v1/runs/01A/grade", json={"correct": False, "by": "job", "note": "label was oos"})
    assert answer.status_code == 201
    assert answer.json() == store.grades("01AA")[0].model_dump()
    assert viewer.get("/v1/runs?grade=wrong").json()["runs"][0]["run"] == "01AA"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "correct: Field required"),
        ({"correct": "yes"}, 422, "correct: Input should be a valid boolean"),
        ({"correct": True, "score": 1}, 422, "score: Extra inputs are not permitted"),
        ({"correct": True, "by": "x" * 201}, 422, "by has 201 characters"),
        ({"correct": True, "note": "x" * 70_000}, 413, "longer than 65536 bytes"),
        ([], 422, "body"),
    ],
)
def test_a_grade_that_is_none_is_refused(
    body: Any, status: int, says: str, store: TraceStore, viewer: TestClient
) -> None:
    answer = viewer.post("/v1/runs/01AA/grade", json=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert store.grades("01AA") == ()


def test_grading_needs_json_a_known_run_and_an_answer(store: TraceStore, viewer: TestClient) -> None:
    assert viewer.post("/v1/runs/01AA/grade", content='{"correct": true}').status_code == 415
    broken = viewer.post("/v1/runs/01AA/grade", content="{", headers={"Content-Type": "application/json"})
    assert broken.status_code == 422
    assert viewer.post("/v1/runs/02/grade", json={"correct": True}).status_code == 404
    store.write(run("01CC", text=None, status="abstained", trace=()))
    answer = viewer.post("/v1/runs/01CC/grade", json={"correct": True})
    assert (answer.status_code, "nothing to grade" in answer.json()["error"]) == (422, True)


def test_the_form_grades_and_leads_back_to_the_run(store: TraceStore, viewer: TestClient) -> None:
    own = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
    answer = viewer.post("/runs/01A/grade", data={"grade": "right", "by": "", "note": "ok"}, headers=own,
                         follow_redirects=False)  # fmt: skip
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/01AA#grade")
    assert [(grade.correct, grade.by, grade.note) for grade in store.grades("01AA")] == [(True, None, "ok")]
    assert "ok" in viewer.get("/runs/01AA").text
    assert viewer.post("/runs/01AA/grade", data={"grade": "maybe"}).status_code == 422
    long = viewer.post("/runs/01AA/grade", data={"grade": "right", "by": "x" * 300})
    assert (long.status_code, "a grade takes at most 200" in long.text) == (422, True)
    assert len(store.grades("01AA")) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_another_site_cannot_grade(headers: dict[str, str], store: TraceStore, viewer: TestClient) -> None:
    for path in ("/runs/01AA/grade", "/v1/runs/01AA/grade"):
        answer = viewer.post(path, data={"grade": "right"}, headers=headers)
        assert answer.status_code == 403
        assert "grade in the viewer's own pages" in answer.text
    assert store.grades("01AA") == ()


@pytest.mark.parametrize(
    ("host", "hosts", "answered"),
    [
        ("127.0.0.1", (), True),
        ("127.0.0.1:8765", (), True),
        ("localhost:1", (), True),
        ("LOCALHOST", (), True),
        ("[::1]:8765", (), True),
        ("evil.example", (), False),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example", (), False),
        ("10.0.0.5", (), False),
        ("", (), False),
        ("10.0.0.5:80", ("10.0.0.5",), True),
        ("box", ("127.0.0.1", "Box"), True),
        ("10.0.0.5", ("0.0.0.0", "box"), True),
        ("[fe80::1]:80", ("::",), True),
        ("evil.example", ("0.0.0.0", "box"), False),
    ],
)
def test_only_known_hosts_are_answered(
    host: str, hosts: tuple[str, ...], answered: bool, store: TraceStore
) -> None:
    viewer = TestClient(create_app(store, hosts=hosts), base_url=HERE)
    for path in ("/", "/v1/runs", "/style.css"):
        assert viewer.get(path, headers={"Host": host}).status_code == (200 if answered else 403)


@pytest.mark.parametrize("path", ["/", "/runs/01AA", "/dashboard", "/nothing", "/v1/runs", "/style.css"])
def test_every_answer_has_the_security_headers(path: str, viewer: TestClient) -> None:
    headers = viewer.get(path).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "script-src 'self';" in headers["content-security-policy"]


def test_no_page_has_a_style_a_script_of_its_own_or_a_foreign_address(viewer: TestClient) -> None:
    for path in ("/", "/runs/01AA", "/dashboard", "/live", "/nothing"):
        html = viewer.get(path).text.replace('<script src="/live.js" defer></script>', "")
        for piece in ("<script", "<style", " style=", "javascript:", " onclick"):
            assert piece not in html
        assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


def test_there_are_no_files_but_its_own(viewer: TestClient) -> None:
    assert viewer.get("/style.css").headers["content-type"] == "text/css; charset=utf-8"
    assert viewer.get("/icon.svg").headers["content-type"] == "image/svg+xml"
    for path in (
        "/app.py",
        "/..%2Fapp.py",
        "/static/style.css",
        "/docs",
        "/openapi.json",
        "/templates/list.html",
    ):
        assert viewer.get(path).status_code == 404
