"""`lab.plan`: from assumptions and from stored runs, with intervals, words and a page."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from runs_maker import HAIKU, OPUS, quick, run, step
from scripting import REMOTE, checked, scripted, write

from cascade import lab
from cascade.errors import ConfigError, RequestError
from cascade.lab.planning.assumptions import Assumptions, assumptions_text, read_assumptions
from cascade.lab.planning.plan import Plan
from cascade.lab.planning.verdict import headline, verdict
from cascade.records import Baseline
from cascade.trace import TraceStore

CLASSIC = """\
requests_a_day: 100000
tokens_in: 500
tokens_out: 0
tiers:
  opus: {input_usd: 20, output_usd: 0}
"""


def planned(tmp_path: Path, text: str, **more: Any) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return lab.plan(assumptions=path, **more)


def support(tmp_path: Path) -> Path:
    """A graph whose models are those of `runs_maker`."""
    models = {"nano": scripted("card", tier="haiku"), "strong": scripted("card", tier="opus", **REMOTE)}
    stages = [checked("first", "nano"), {"name": "last", "ask": ["strong"]}]
    return write(tmp_path, models, stages, name="support")


def store(count: int = 60, *, days: float = 6.0, escalated: int = 3) -> None:
    """Store runs over some days; of each `escalated`, one asks the strong model."""
    first = datetime(2026, 11, 1, tzinfo=UTC)
    with TraceStore(os.environ["CASCADE_TRACE_DB"]) as traces:
        for number in range(count):
            started = (first + timedelta(days=days * number / (count - 1))).isoformat(timespec="milliseconds")
            if number % escalated == 0:
                cost = 0.001 + 0.0001 * (number % 7)
                call = OPUS.model_copy(update={"cost_usd": cost, "seconds": 0.4 + 0.01 * (number % 5)})
                baseline = Baseline(
                    model="strong", cost_usd=cost, assumption="", by="asked", prompt_bytes=900
                )
                trace = (step("first", "below_threshold", HAIKU, to="last"), step("last", "unchecked", call))
                result = run(f"R{number:03}", cost_usd=cost, baseline=baseline, trace=trace, started=started)
            else:
                estimated = {"by": "text", "low_usd": 0.0008, "high_usd": 0.0016, "prompt_bytes": 900}
                baseline = Baseline(model="strong", cost_usd=0.0011, assumption="", **estimated)
                result = quick(f"R{number:03}", baseline=baseline, started=started)
            traces.write(result)


def test_the_classic_sum(tmp_path: Path) -> None:
    found = planned(tmp_path, CLASSIC)
    assert found.buy.year_usd.value == 365_000
    assert str(found.buy.option.day_usd.normalize()) == "1E+3"
    assert found.buy.year_usd.low is None
    assert any("no interval" in sentence for sentence in verdict(found))


def test_the_written_file_says_what_is_assumed_without_one(tmp_path: Path) -> None:
    found, alone = planned(tmp_path, assumptions_text()), lab.plan()
    assert [c.option for c in found.choices] == [c.option for c in alone.choices]
    assert {each.source for each in alone.inputs.by_name.values()} == {"assumed", "price list"}
    for name in Assumptions.model_fields:
        assert name in assumptions_text()
    assumed = next(line for line in alone.remarks if line.startswith("assumed, by default"))
    assert all(each.name in assumed for each in alone.inputs.by_name.values() if each.source == "assumed")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requests_a_day: 0", "1: requests_a_day: 0 is wrong: it should be greater than 0"),
        ("token_in: 3", "1: token_in: unknown key 'token_in'; known: requests_a_day"),
        ("expert_answers: 1.4", "1: expert_answers: 1.4 is wrong: it should be less than or equal to 1"),
        ("usd_a_row: dear", "1: usd_a_row: 'dear' is wrong: expected a number"),
        ("\nusd_a_row: {value: 2, low: 3, high: 4}", "2: usd_a_row: low 3, value 2, high 4; expected them"),
        ("usd_a_row: {value: 2, low: 1}", "1: usd_a_row: has low alone; give low and high, or neither"),
        ("expert_answers: {value: 1, low: 0, high: 2}", "high 2: each should be less than or equal to 1"),
        ("tiers: {a: {prize: x}}", "1: tiers.a.prize: unknown key 'prize'; known: local, price"),
        ("tiers: {a: {price: nobody-9}}", "no price is known of 'nobody-9'; give input_usd and output_usd"),
        ("tiers: {a: {input_usd: 1}}", "1: tiers.a.input_usd: without output_usd; give both"),
        ("tiers: {a: {seconds: 1}}", "1: tiers.a: has no price; give price, or input_usd"),
        ("tiers: {a: {local: true, price: gpt-5.2}}", "of a local tier, which is paid by the machine's hour"),
        ("tiers: {a: {local: true, answers: 0.7}, b: {local: true, answers: 0.6}}", "add up to 1.3"),
        ("[1, 2]", "expected keys and values"),
        ("", "plan.yaml:1: file of assumptions is empty"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_the_fix(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        planned(tmp_path, text)
    assert said in str(error.value)


def test_a_tier_of_a_file_beside_a_graph_is_one_of_its_models(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("tiers: {strog: {seconds: 1}}")
    with pytest.raises(
        ConfigError, match="is no model of the graph; known: nano, strong; did you mean 'strong'"
    ):
        lab.plan(support(tmp_path), assumptions=tmp_path / "plan.yaml")


def test_ranges_make_intervals_that_hold_the_point(tmp_path: Path) -> None:
    ranges = (
        "expert_answers: {value: 0.9, low: 0.3, high: 0.9}\nengineer_days: {value: 5, low: 5, high: 40}\n"
    )
    found = planned(tmp_path, CLASSIC + ranges)
    for choice in found.choices:
        for estimate in (choice.year_usd, choice.first_year_usd):
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low <= estimate.value <= estimate.high
    assert found.build.year_usd.low < found.build.year_usd.high  # type: ignore[operator]
    assert found.break_even_low <= found.break_even <= found.break_even_high  # type: ignore[operator]
    assert found.swings[0].name == "expert_answers"
    assert found.swings[0].known
    assert planned(tmp_path, CLASSIC + ranges) == found  # the same seed, the same plan


def test_swings_are_ranked_and_reproduce_the_plan_when_moved(tmp_path: Path) -> None:
    found = planned(tmp_path, CLASSIC)
    widths = [swing.width for swing in found.swings]
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == 5
    top = found.swings[0]
    moved = planned(tmp_path, CLASSIC.replace("100000", str(float(top.high))) if top.name == "requests_a_day"
                    else CLASSIC + f"{top.name}: {float(top.high)}")  # fmt: skip
    saved = moved.buy.first_year_usd.value - moved.build.first_year_usd.value
    assert saved == pytest.approx(top.high_usd)


def test_few_requests_are_bought_and_many_are_built(tmp_path: Path) -> None:
    few, many = planned(tmp_path, "requests_a_day: 50"), planned(tmp_path, CLASSIC)
    assert headline(few) == "Buy"
    assert few.break_even is None
    assert "buying is better" in " ".join(verdict(few))
    assert headline(many) == "Build"
    assert many.pays == 1.0


def test_between_them_money_does_not_decide(tmp_path: Path) -> None:
    found = planned(
        tmp_path, CLASSIC.replace("100000", "{value: 1800, low: 1200, high: 2600}") + "drifts_a_year: 0\n"
    )
    assert 0.05 < found.pays < 0.95
    assert headline(found) == "Money alone does not decide"


def test_stored_runs_are_measured(tmp_path: Path) -> None:
    store()
    found = lab.plan(support(tmp_path))
    inputs = found.inputs.by_name
    assert (found.runs, round(found.days)) == (60, 6)
    assert inputs["requests_a_day"].source == "measured"
    assert float(inputs["requests_a_day"].value) == pytest.approx(10, abs=0.7)
    assert float(inputs["strong.calls"].value) == pytest.approx(1 / 3)
    assert float(inputs["nano.seconds"].value) == pytest.approx(0.004)
    cascade = found.choice("cascade")
    assert cascade is not None
    assert cascade.leaves == pytest.approx(1 / 3)
    assert cascade.latency.source == "measured"
    assert cascade.answered == 1.0
    # The sums are the stored ones: what the runs cost, and what savings says of the model alone.
    assert found.savings is not None
    a_day = float(inputs["requests_a_day"].value)
    spent = float(found.inputs.workload(found.inputs.values).tiers[1].usd_call) / 3
    assert spent == pytest.approx(found.savings.spent_usd / 60)
    assert float(found.buy.option.day_usd) == pytest.approx(a_day * found.savings.cost_usd / 60)
    for choice in found.choices:
        low, value, high = choice.year_usd.low, choice.year_usd.value, choice.year_usd.high
        assert low is not None
        assert high is not None
        assert low <= value <= high
    assert found.buy.year_usd.low < found.buy.year_usd.high  # type: ignore[operator]
    assert lab.plan(support(tmp_path)) == found


def test_what_the_file_gives_holds_against_what_was_measured(tmp_path: Path) -> None:
    store()
    (tmp_path / "plan.yaml").write_text(
        "requests_a_day: 5000\ntiers: {strong: {input_usd: 10, output_usd: 30}}"
    )
    found = lab.plan(support(tmp_path), assumptions=tmp_path / "plan.yaml")
    inputs = found.inputs.by_name
    assert inputs["requests_a_day"].source == inputs["strong.input_usd"].source == "given"
    assert inputs["tokens_in"].source == "measured"
    assert float(found.buy.option.day_usd) == pytest.approx(5000 * (620 * 10 + 3 * 30) / 1e6)


def test_a_cascade_that_leaves_requests_unanswered_is_no_bargain(tmp_path: Path) -> None:
    with TraceStore(os.environ["CASCADE_TRACE_DB"]) as traces:
        for number in range(10):
            answer = {} if number else {"status": "abstained", "text": None, "draft": "card_arrival"}
            traces.write(quick(f"R{number}", **answer))
    found = lab.plan(support(tmp_path))
    assert "left 10% of the requests without an answer" in " ".join(verdict(found))


def test_runs_of_a_few_hours_tell_no_volume(tmp_path: Path) -> None:
    store(30, days=0.2)
    found = lab.plan(support(tmp_path))
    assert found.inputs.by_name["requests_a_day"].source == "assumed"
    assert any("less than a day" in remark for remark in found.remarks)


def test_a_graph_without_runs_is_planned_from_its_prices(tmp_path: Path) -> None:
    found = lab.plan(support(tmp_path))
    assert found.runs == 0
    assert found.inputs.by_name["strong.input_usd"].source == "price list"
    assert lab.plan(support(tmp_path), traces=False) == found


def test_runs_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    graph = support(tmp_path)
    with pytest.raises(RequestError, match="--traces: no stored run of this graph counts"):
        lab.plan(graph, traces=True)
    with pytest.raises(RequestError, match="--since needs a graph"):
        lab.plan(since="3d")
    with pytest.raises(RequestError, match="drop one"):
        lab.plan(graph, since="3d", traces=False)
    with pytest.raises(RequestError, match="is no time"):
        lab.plan(graph, since="soon")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.charts += ("class", "chart") in attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "text", ["requests_a_day: 50", CLASSIC + "engineer_days: {value: 5, low: 1, high: 9}"]
)
def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path, text: str) -> None:
    found = planned(tmp_path, text)
    html = lab.plan_page(found)
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert page.links == []
    assert page.charts == 3
    assert "<script" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert all(name in html for name in found.inputs.by_name)


def test_names_are_escaped_on_the_page(tmp_path: Path) -> None:
    graph = support(tmp_path)
    assert "&lt;" not in lab.plan_page(lab.plan(graph))
    odd = lab.plan(graph)
    odd = type(odd)(**{**odd.__dict__, "subject": "<b>&"})
    assert "Build or buy: &lt;b&gt;&amp;" in lab.plan_page(odd)


def test_the_file_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    lab.write_assumptions(path)
    assert read_assumptions(path).requests_a_day.value == 1000
    with pytest.raises(ConfigError, match="is there already"):
        lab.write_assumptions(path)
