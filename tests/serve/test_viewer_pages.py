"""The viewer's pages: what they say of a run, and that nothing a user or model wrote can become markup."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from runs_maker import HAIKU, OPUS, WRITTEN, quick, run, step

from cascade.config.load import load_graph
from cascade.records import Call, Request
from cascade.serve.app import create_app
from cascade.trace import TraceStore

HERE = "http://127.0.0.1:8765"
GRAPH = """\
name: support
models:
  nano: {kind: scripted, tier: haiku, default: card_arrival, confidence: 0.62}
  small: {kind: scripted, tier: sonnet, default: card_arrival, confidence: 0.62}
  strong: {kind: scripted, tier: opus, default: lost_card}
stages:
  - {name: first, ask: [nano], confidence: {by: logprob}, accept: 0.95}
  - {name: middle, ask: [small], confidence: {by: logprob}, accept: 0.95}
  - {name: last, ask: [strong]}
"""


class Page(HTMLParser):
    """What a page consists of: its tags in order, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(str(tmp_path / "runs.db")) as store:
        yield store


@pytest.fixture
def viewer(store: TraceStore) -> TestClient:
    return TestClient(create_app(store), base_url=HERE)


def page(viewer: TestClient, path: str, status: int = 200) -> Page:
    response = viewer.get(path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Page(response.text)


def words(page: Page) -> str:
    return " ".join(page.text.split())


def test_the_list_shows_runs_newest_first_with_links(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA"))
    store.write(quick("01BB", request=Request(text="When does it come?")))
    store.grade("01AA", False)
    found = page(viewer, "/")
    links = [a["href"] for a in found.all("a") if (a["href"] or "").startswith("/runs/")]
    assert links == ["/runs/01BB", "/runs/01AA"]
    text = words(found)
    for piece in (
        "When does it come?",
        "card_arrival",
        "accepted",
        "confident",
        "haiku",
        "0.97",
        "$0",
        "4.0 ms",
    ):
        assert piece in text
    assert "✗wrong" in text
    assert "These are the oldest." in text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("graph=support", ["01BB", "01AA"]),
        ("graph=support%409f2c41ab", ["01BB", "01AA"]),
        ("status=abstained", []),
        ("tier=opus", ["01AA"]),
        ("rule=confident", ["01BB"]),
        ("grade=right", ["01BB"]),
        ("confidence_min=0.9&confidence_max=0.98", ["01BB"]),
        ("cost_min=$0.001", ["01AA"]),
        ("q=LOST", ["01AA"]),
        ("since=2026-11-21T02:59&until=2026-11-21T05:00%2B02:00", []),
        ("since=2026-11-21T02:59&until=", ["01BB", "01AA"]),
    ],
)
def test_the_list_filters(query: str, shown: list[str], store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA"))
    store.write(quick("01BB"))
    store.grade("01BB", True)
    found = page(viewer, f"/?{query}")
    assert re.findall(r"/runs/(\w+)", " ".join(a["href"] or "" for a in found.all("a"))) == shown
    if not shown:
        assert "No run matches" in found.text


def test_a_filter_that_cannot_be_read_is_named_and_kept(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA"))
    found = page(viewer, "/?confidence_min=high&rule=sure&since=soon&cost_max=nan&q=x", 400)
    for piece in (
        "confidence_min is 'high'",
        "rule is 'sure'; known: confident",
        "since is 'soon'",
        "cost_max is 'nan'",
    ):
        assert piece in found.text
    assert {"value": "high"}.items() <= next(
        i for i in found.all("input") if i["name"] == "confidence_min"
    ).items()
    assert "No run matches" not in found.text


def test_pages_of_the_list_follow_each_other(store: TraceStore, viewer: TestClient) -> None:
    for number in range(53):
        store.write(quick(f"01R{number:03d}", request=Request(text="a & b")))
    first = page(viewer, "/?q=a+%26")
    older = next(a["href"] for a in first.all("a") if a.get("rel") == "next")
    assert older == "/?q=a+%26&before=01R003"
    second = page(viewer, older or "")
    links = [a["href"] for a in second.all("a") if "/runs/" in (a["href"] or "")]
    assert links == ["/runs/01R002", "/runs/01R001", "/runs/01R000"]
    assert "/?q=a+%26" in [a["href"] for a in second.all("a")]


def test_without_runs_the_pages_say_how_to_get_some(viewer: TestClient) -> None:
    for path in ("/", "/dashboard"):
        assert "cascade run graphs/support.yaml" in page(viewer, path).text


def test_a_database_that_does_not_exist_yet_is_empty_and_stays_absent(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with TraceStore(str(path), create=False) as store:
        viewer = TestClient(create_app(store), base_url=HERE)
        assert "No runs yet" in page(viewer, "/").text
        assert "it has no runs yet" in page(viewer, "/runs/01AA", 404).text
    assert not path.exists()


def test_a_run_is_explained_with_what_would_have_changed_it(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA"))
    found = page(viewer, "/runs/01AA")
    text = words(found)
    for piece in (
        "Where has my card got to?", "lost_card", "not accepted, escalated to last", "below threshold",
        "Confidence 0.58 is less than the 0.95 that this stage asks for (accept).",
        "What if haiku would have answered card_arrival at accept ≤ 0.58 (now 0.95)",
        "Most probable labels", "0.62", "0.31", "score", "uncalibrated", "620 in 3 out", "remote",
        "strong alone: $0.0011", "The way of this run: request → first → last → answer", "0.58 < 0.95",
        "Drawn from the trace alone",
    ):  # fmt: skip
        assert piece in text, piece
    assert len([tag for tag, _ in found.tags if tag == "svg"]) >= 7


def test_a_run_is_drawn_in_its_graph_where_that_is_known(tmp_path: Path, store: TraceStore) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(GRAPH)
    loaded = load_graph(path)
    store.write(run("01AA", graph=f"support@{loaded.digest}", trace=(
        step("first", "below_threshold", HAIKU, confidence=0.58, to="middle"),
        step("middle", "below_threshold", HAIKU, confidence=0.4, to="last"),
        step("last", "unchecked", HAIKU),
    )))  # fmt: skip
    store.write(quick("01BB", graph=f"support@{loaded.digest}"))
    store.write(quick("01CC", graph="support@00000000"))
    viewer = TestClient(create_app(store, [loaded]), base_url=HERE)
    lit = re.findall(r'<g class="lit">(.*?)</g>', viewer.get("/runs/01AA").text, re.DOTALL)
    assert sum('class="way"' in part for part in lit) == 3
    assert any("answer unchecked" in part for part in lit)
    quickly = viewer.get("/runs/01BB").text
    dim = "".join(re.findall(r'<g class="dim">(.*?)</g>', quickly, re.DOTALL))
    assert ">middle<" in dim
    assert ">first<" not in dim
    assert "Not reached: middle, last." in quickly
    assert "another version" in viewer.get("/runs/01CC").text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"status": "abstained", "text": None, "draft": "lost_card", "rule": "below_threshold"},
            "best draft",
        ),
        (
            {"status": "abstained", "text": None, "rule": "no_draft", "tier": None, "stage": None},
            "No answer.",
        ),
        (
            {"status": "waiting", "text": None, "rule": None, "tier": None, "trace": ()},
            "Waits for a person, or",
        ),
        ({"status": "best_effort", "rule": "over_cost"}, "best effort"),
        ({"text": ""}, "(empty)"),
        ({"confidence": None, "baseline": None}, "not measured"),
        ({"started": "yesterday"}, "yesterday"),
    ],
)
def test_every_kind_of_run_has_a_page(
    fields: dict[str, Any], says: str, store: TraceStore, viewer: TestClient
) -> None:
    store.write(run("01AA", **fields))
    assert says in words(page(viewer, "/runs/01AA"))
    page(viewer, "/")
    page(viewer, "/dashboard")


def test_every_rule_has_a_page(store: TraceStore, viewer: TestClient) -> None:
    from cascade.serve.filters import RULES

    for number, rule in enumerate(RULES):
        first = step("first", rule, confidence=0.5, to="last", gate={"a": 0.6, "b": 0.4})
        store.write(run(f"01R{number}", rule=rule, trace=(first, step("last", "unchecked", HAIKU))))
        assert rule.replace("_", " ") in page(viewer, f"/runs/01R{number}").text


def test_tokens_are_shaded_by_their_probability(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA", trace=(step("first", "no_estimate", WRITTEN),)))
    html = viewer.get("/runs/01AA").text
    assert '<span class="h0" title="99.0%, margin 4 nats, entropy 0.1 nats">Paris</span>' in html
    assert '<span class="h4" title="54.9%">,</span>' in html
    assert '<span class="h7" title="5.0%, margin 0.1 nats"> I</span>' in html
    assert '<span class="h7" title="0.0%"> &lt;think&gt;</span>' in html


def test_calls_that_failed_are_shown(store: TraceStore, viewer: TestClient) -> None:
    failed = Call(model="strong", tier="opus", error="503: overloaded", seconds=2.0)
    store.write(run("01AA", trace=(step("last", "no_draft", failed),), status="abstained", text=None))
    text = words(page(viewer, "/runs/01AA"))
    assert "failed: 503: overloaded" in text
    assert "There is nothing to grade" in text


def test_calls_are_drawn_from_when_they_began(store: TraceStore, viewer: TestClient) -> None:
    late = OPUS.model_copy(update={"started": 0.75, "seconds": 0.25})
    store.write(run("01AA", seconds=1.0, trace=(step("last", "unchecked", late),)))
    html = viewer.get("/runs/01AA").text
    assert 'class="fill done" x="75.00%" width="25.00%"' in html
    assert "Each bar begins when its call began" in html
    store.write(run("01BB"))
    assert "from before starts were recorded" in viewer.get("/runs/01BB").text


HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}\x00\x1b[31m\u202e`</svg>`"


def test_no_text_becomes_markup_or_a_template(store: TraceStore, viewer: TestClient) -> None:
    text = HOSTILE.replace("\x00", "")
    call = Call(model=text, tier=text, text=text, labels={text: 0.9}, error=None)
    trace = (
        step(text, "below_threshold", call, confidence=0.3, to=text, gate={text: 0.4}),
        step(text, "no_draft", Call(model=text, tier=text, error=text)),
    )
    store.write(run("01AA", text=text, tier=text, model=text, stage=text, graph=text, rule=None,
                    request=Request(text=text), trace=trace))  # fmt: skip
    store.grade("01AA", True, by=text, note=text)
    for path in (
        "/",
        "/runs/01AA",
        "/dashboard",
        f"/?q={quote(text)}&graph={quote(text)}&tier={quote(text)}",
    ):
        found = page(viewer, path)
        scripts = [values.get("src") for tag, values in found.tags if tag == "script"]
        assert scripts in ([], ["/live.js"])  # the viewer's own, never one of a text
        assert [tag for tag, _ in found.tags if tag in ("b", "iframe")] == []
        assert "<script>alert(1)</script>" in found.text
        assert "{{ 7*7 }}" in found.text
        assert "\x1b" not in found.text
        assert "\u202e" not in found.text


def test_a_hidden_text_is_shown_as_its_hash(tmp_path: Path) -> None:
    with TraceStore(str(tmp_path / "private.db"), store_text=False) as store:
        store.write(run("01AA", trace=(step("first", "no_estimate", WRITTEN),)))
        viewer = TestClient(create_app(store), base_url=HERE)
        text = page(viewer, "/runs/01AA").text
        assert "Where has my card got to?" not in text
        assert "sha256:" in text
        assert "▯" in text


def test_a_long_request_is_cut_and_the_rest_counted(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA", request=Request(text="x" * 50_000)))
    assert "… and 30,000 more characters (see JSON)" in page(viewer, "/runs/01AA").text


def test_the_dashboard_counts_what_is_stored(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA"))
    store.write(quick("01BB", started="2026-11-21T04:00:00.000+00:00"))
    store.write(quick("01CC", status="abstained", text=None, draft="oos", confidence=0.4))
    store.grade("01AA", True)
    text = words(page(viewer, "/dashboard"))
    for piece in (
        "3 runs, 2026-11-21 03:00:00 UTC to 2026-11-21 04:00:00 UTC", "Answered67%", "67% less",
        "strong alone: $0.0033", "Graded right100%1 of 1 graded", "no answer",
        "haiku and opus gave the same answer in 0 of 1 run", "card_arrival",
    ):  # fmt: skip
        assert piece in text, piece
    assert "1 run," in words(page(viewer, "/dashboard?tier=opus"))
    assert "No run matches" in page(viewer, "/dashboard?tier=none").text


def test_the_dashboard_survives_runs_without_times_prices_or_confidence(
    store: TraceStore, viewer: TestClient
) -> None:
    store.write(run("01AA", started="", baseline=None, confidence=None, seconds=0.0, trace=()))
    text = words(page(viewer, "/dashboard"))
    assert "No run here has a baseline" in text
    assert "No run here has a measured confidence." in text
    assert "No run here has labels from two tiers" in text


def test_an_unknown_page_and_an_unknown_run_are_not_found(store: TraceStore, viewer: TestClient) -> None:
    store.write(run("01AA"))
    assert "/nothing is no page of the viewer" in page(viewer, "/nothing", 404).text
    assert "/a/b/c is no page" in page(viewer, "/a/b/c", 404).text
    assert "nearest: 01AA" in page(viewer, "/runs/01AB", 404).text
    page(viewer, "/runs/01a")


def test_a_broken_database_gives_a_page_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        store.write(run("01AA"))
        viewer = TestClient(create_app(store), base_url=HERE)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE steps SET signals = '{' WHERE step = 0")
        assert "is damaged or from a newer cascade" in page(viewer, "/runs/01AA", 503).text
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE steps")
        assert "The traces cannot be read" in page(viewer, "/runs/01AA", 503).text
        assert viewer.get("/v1/runs/01AA").json()["error"].startswith("trace database")


def test_under_another_application_links_stay_inside(store: TraceStore) -> None:
    store.write(run("01AA"))
    outer = FastAPI()
    outer.mount("/traces", create_app(store))
    viewer = TestClient(outer, base_url=HERE)
    for path in ("/traces/", "/traces/runs/01AA", "/traces/dashboard", "/traces/nothing"):
        found = Page(viewer.get(path).text)
        places = [tag.get("href") or tag.get("src") or tag.get("action") for _, tag in found.tags]
        assert all(p.startswith(("/traces/", "#")) for p in places if p), places
    assert viewer.get("/traces/style.css").status_code == 200
    graded = viewer.post("/traces/runs/01AA/grade", data={"grade": "right"}, follow_redirects=False)
    assert graded.headers["location"] == "/traces/runs/01AA#grade"
    assert "error" in viewer.get("/traces/v1/runs/02").json()
