"""Filters, pages, summaries and overviews of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cascade.records import Call, Decision, Request, Result, Step
from cascade.trace import RunFilter, TraceStore


def result(run: str, **fields: Any) -> Result:
    given: dict[str, Any] = {"status": "accepted", "text": "card_arrival", "request": Request(text="Where?")}
    return Result.model_validate({"run": run, "graph": "support@9f2c41ab", **given, **fields})


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    with TraceStore(server.database() if server else str(tmp_path / "runs.db")) as store:
        store.write(result("01A", confidence=0.5, cost_usd=0.0, started="2026-11-21T01:00:00.000+00:00"))
        store.write(result("01B", confidence=0.9, cost_usd=0.01, started="2026-11-21T02:00:00.000+00:00"))
        store.write(result("01C", cost_usd=0.2, started="2026-11-22T02:00:00.000+00:00", tier="opus"))
        asked = Request(text="50%_off \\ MY Card")
        store.write(
            result("01D", status="abstained", text=None, draft="Lost_Card", request=asked, graph="desk")
        )
        yield store


@pytest.mark.parametrize(
    ("where", "runs"),
    [
        ({}, "DCBA"),
        ({"confidence_min": 0.5}, "BA"),
        ({"confidence_min": 0.6}, "B"),
        ({"confidence_max": 0.6}, "A"),
        ({"cost_min": 0.01}, "CB"),
        ({"cost_max": 0.01}, "DBA"),
        ({"cost_min": 0.01, "cost_max": 0.01}, "B"),
        ({"since": "2026-11-21T02:00:00.000+00:00"}, "CB"),
        ({"until": "2026-11-21T02:00:00.000+00:00"}, "DA"),
        ({"contains": "my card"}, "D"),
        ({"contains": "CARD_ARR"}, "CBA"),
        ({"contains": "lost_card"}, "D"),
        ({"contains": "50%_"}, "D"),
        ({"contains": "%"}, "D"),
        ({"contains": "\\"}, "D"),
        ({"contains": "01b"}, "B"),
        ({"contains": "nowhere"}, ""),
        ({"graph": "desk"}, "D"),
        ({"graph": "support@9f2c41ab", "tier": "opus"}, "C"),
        ({"graph": "support@00000000"}, ""),
    ],
)
def test_each_filter_selects_its_runs(where: dict[str, Any], runs: str, store: TraceStore) -> None:
    assert "".join(row.run[-1] for row in store.search(RunFilter(**where))) == runs


def test_a_page_starts_where_the_previous_one_ended(store: TraceStore) -> None:
    first = store.search(RunFilter(cost_max=0.01), limit=2)
    assert [row.run for row in first] == ["01D", "01B"]
    assert [row.run for row in store.search(RunFilter(cost_max=0.01), limit=2, before="01B")] == ["01A"]


def test_a_summary_holds_the_request(store: TraceStore) -> None:
    store.write(result("01E", request=Request(text="x" * 500)))
    assert [len(row.request) for row in store.runs(limit=1)] == [200]


def test_known_values_are_sorted_and_complete_without_null(store: TraceStore) -> None:
    assert store.known("graph") == ["desk", "support"]
    assert store.known("tier") == ["opus"]


def test_an_overview_has_the_newest_runs_and_one_draft_per_stage(store: TraceStore) -> None:
    def call(model: str, text: str, **fields: Any) -> Call:
        return Call(model=model, tier=model, text=text, **fields)

    decision = Decision(action="escalate", rule="below_threshold")
    first = Step(
        stage="a",
        decision=decision,
        calls=(
            call("gate", "x", role="gate"),
            call("n", "", error="down"),
            call("n", "yes", labels={"yes": 1.0}),
        ),
    )
    second = Step(stage="b", decision=decision, calls=(call("s", "no"), call("s", "yes")))
    store.write(result("01E", trace=(first, second), cost_usd=0.5))
    store.write(result("01F", trace=(first,)))
    overview = store.overview(RunFilter(), limit=3)
    assert [row.run for row in overview.figures] == ["01F", "01E", "01D"]
    assert list(overview.opinions) == ["01E"]
    assert [(draft.tier, draft.text, draft.closed) for draft in overview.opinions["01E"]] == [
        ("n", "yes", True),
        ("s", "no", False),
    ]
    assert store.overview(RunFilter(cost_min=0.4)).figures[0].run == "01E"


def test_an_absent_database_has_no_overview(tmp_path: Path) -> None:
    with TraceStore(str(tmp_path / "none.db"), create=False) as store:
        assert store.overview(RunFilter()).figures == ()
        assert store.known("tier") == []
