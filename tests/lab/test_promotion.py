"""Promotion: which rows count, who says what is right, what is written, and how it is undone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cascade import lab
from cascade.cli.main import app
from cascade.config.load import load_graph
from cascade.config.promotions import history_path, read_promotions
from cascade.errors import ConfigError, RequestError
from cascade.lab.monitoring.pairs import PairedRows, paired_rows
from cascade.policy.decide import lot
from cascade.records import Call, Decision, Estimate, Request, Result, Rule, Step, Trial, new_run_id
from cascade.spec.schema import Graph
from cascade.trace import TraceStore, default_url

TEXT = """# a graph of mine
name: test
models:
  nano:  {kind: scripted, default: "yes", confidence: 0.9}   # the old one
  new:   {kind: scripted, default: "yes", confidence: 0.9}
  large: {kind: scripted, default: "yes"}
stages:
  - name: first
    ask: [nano]
    confidence: {by: logprob}
    accept: 0.8       # by hand
    audit_rate: 0.5
    shadow: {model: new, share: 1.0}
    canary: {model: new, share: 0.001}
    on_alarm: rollback
  - {name: last, ask: [large]}
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "g.yaml"
    path.write_text(TEXT)
    return path


def drawn_id(audited: bool) -> str:
    """Return the id of a run that is drawn for an audit at the rate of one half, or not."""
    while True:
        name = new_run_id()
        if (lot(name, "first") < 0.5) == audited:
            return name


def made(
    old: str | None,
    new: str | None,
    later: str | None,
    *,
    audit: bool = True,
    confident: bool = True,
    version: str = "test@0",
    closed: bool = True,
    models: tuple[str, str] = ("nano", "new"),
    refused: Rule | None = None,
) -> Result:
    """Return a run as it is stored: what both models said, and a later stage if it went on."""
    labels = {"x": 0.9} if closed else None

    def call(model: str, text: str | None, **more: Any) -> Call:
        failed = {"error": "failed"} if text is None else {"text": text, "labels": labels}
        return Call(model=model, tier="haiku", **failed, **more)

    asked = [call(models[0], old)]
    trial = Trial(part="shadow", model=models[1], share=1.0, refused=refused)
    if refused is None:
        asked.append(call(models[1], new, role="shadow"))
    goes_on = audit or not confident
    rule: Rule = (
        "no_draft"
        if old is None
        else "below_threshold"
        if not confident
        else "audit"
        if audit
        else "confident"
    )
    estimate = Estimate(by="logprob", chosen=0, signals={}, score=0.9, confidence=0.9) if old else None
    first = Step(
        stage="first",
        decision=Decision(
            action="escalate" if goes_on else "accept",
            rule=rule,
            to="last" if goes_on else None,
            facts=(trial,),
        ),
        calls=tuple(asked),
        estimate=estimate,
    )
    steps = [first]
    if goes_on:
        action = "accept" if later is not None else "abstain"
        last = Decision(action=action, rule="unchecked" if later is not None else "no_draft")
        steps.append(Step(stage="last", decision=last, calls=(call("large", later),)))
    answer = later if goes_on else old
    stage, model = ("last", "large") if goes_on else ("first", models[0])
    if answer is None and old is not None and audit and confident:
        answer, stage, model = old, "first", models[0]  # an audited answer stands
    status = "abstained" if answer is None else "accepted"
    return Result(
        run=drawn_id(audit), graph=version, status=status, rule=steps[-1].decision.rule, text=answer,
        stage=stage if answer is not None else None, model=model if answer is not None else None,
        tier="haiku", started="2026-11-21T03:00:00.000+00:00", request=Request(text="why?"),
        trace=tuple(steps),
    )  # fmt: skip


def store(graph: Path, *runs: tuple[int, dict[str, Any]]) -> list[Result]:
    """Store so many runs of the graph as it is now."""
    version = load_graph(graph, tightened=False).version
    results = [made(**fields, version=version) for count, fields in runs for _ in range(count)]
    random.Random(0).shuffle(results)
    with TraceStore(default_url()) as traces:
        for stored in [traces.submit(result) for result in results]:
            stored.result()
    return results


SAME = {"old": "yes", "new": "yes", "later": "yes"}
WORSE = {"old": "yes", "new": "no", "later": "yes"}
BETTER = {"old": "no", "new": "yes", "later": "yes"}


def rows_of(*results: Result, grades: dict[str, bool] | None = None) -> PairedRows:
    from cascade.config.source import parse

    stage = Graph.model_validate(parse(TEXT.encode(), "g")[0], strict=True).stages[0]
    return paired_rows(stage, "new", results, grades or {})


@pytest.mark.parametrize(
    ("fields", "difference", "unproved"),
    [
        (SAME, 0, 0),
        (WORSE, -1, 0),
        (BETTER, 1, 0),
        ({"old": "a", "new": "b", "later": "yes"}, 0, 0),  # both wrong
        ({"old": "a", "new": "b", "later": "yes", "closed": False}, -1, 1),  # free texts: nobody knows
        ({"old": "yes", "new": None, "later": "yes"}, -1, 0),
        ({"old": None, "new": "yes", "later": "yes"}, 1, 0),
        ({"old": None, "new": None, "later": "yes"}, 0, 0),
        ({"old": "a", "new": "b", "later": None}, -1, 1),  # the later stage failed: the worst is assumed
        ({"old": "a", "new": "A.", "later": None}, 0, 0),
        ({**BETTER, "confident": False}, 1, 0),  # drawn for an audit, whatever it came to
    ],
)
def test_what_a_row_says(fields: dict, difference: int, unproved: int) -> None:
    rows = rows_of(made(**fields))
    assert (dict(rows.differences), rows.unproved) == ({difference: 1}, unproved)


def test_only_a_fair_sample_counts() -> None:
    """What went on because the old model was unsure shows the new one at its best, and is left out."""
    unsure = made(**BETTER, audit=False, confident=False)
    accepted = made(**SAME, audit=False)
    rows = rows_of(unsure, accepted)
    assert (rows.pairs.rows, rows.uncounted) == (0, 2)


@pytest.mark.parametrize(
    ("old", "new", "correct", "difference"),
    [("a", "b", True, -1), ("a", "a", False, 0), ("a", "b", False, 0), ("a", None, True, -1)],
)
def test_a_grade_counts_before_anything_else(
    old: str, new: str | None, correct: bool, difference: int
) -> None:
    run = made(old, new, None, audit=False)
    rows = rows_of(run, grades={run.run: correct})
    assert (dict(rows.differences), dict(rows.told_by)) == ({difference: 1}, {"grade": 1})


def test_shadows_that_were_left_out_are_counted_by_rule() -> None:
    rows = rows_of(made("yes", None, "yes", refused="local_only"))
    assert (rows.pairs.rows, dict(rows.left_out)) == (0, {"local_only": 1})


def test_a_promotion_rewrites_what_it_must_and_a_rollback_undoes_it(graph: Path) -> None:
    store(graph, (60, SAME), (2, BETTER), (1, WORSE))
    dry = lab.promote(graph, "first", "new", epsilon=0.1, dry_run=True)
    assert (dry.test.verdict, dry.done, graph.read_text()) == ("not worse", False, TEXT)
    promoted = lab.promote(graph, "first", "new", epsilon=0.1)
    canary = "    canary: {model: new, share: 0.001}\n"
    expected = TEXT.replace("[nano]", "[new]").replace("shadow: {model: new", "shadow: {model: nano")
    assert graph.read_text() == expected.replace(canary, "")
    assert promoted.diff == dry.diff
    assert "-    ask: [nano]\n+    ask: [new]\n" in promoted.diff
    load_graph(graph)
    (noted,) = read_promotions(graph)
    assert (noted.stage, noted.old, noted.new, noted.before) == ("first", "nano", "new", TEXT)
    promotion, diff = lab.rollback(graph)
    assert graph.read_text() == TEXT
    assert promotion.why == "asked for"
    assert "+    ask: [nano]" in diff
    with pytest.raises(ConfigError, match="nothing to undo"):
        lab.rollback(graph)


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        (((30, SAME),), "open"),
        (((40, SAME), (6, WORSE), (1, BETTER)), "open"),
        (((40, SAME), (30, WORSE)), "worse"),
        (((0, SAME),), "open"),
    ],
)
def test_what_is_not_proved_is_refused_and_nothing_is_written(graph: Path, runs: tuple, verdict: str) -> None:
    store(graph, *runs)
    promoted = lab.promote(graph, "first", "new", epsilon=0.1)
    assert (promoted.test.verdict, promoted.done) == (verdict, False)
    assert graph.read_text() == TEXT
    assert not history_path(graph).exists()


def test_the_command_says_how_many_rows_it_takes(graph: Path) -> None:
    store(graph, (30, SAME), (5, {**BETTER, "audit": False, "confident": False}))
    done = CliRunner().invoke(app, ["promote", str(graph), "first", "--to", "new", "--epsilon", "0.1"])
    assert done.exit_code == 3
    assert "about 18 more rows like these would" in done.stdout
    assert "what is right was told: 30 by a later stage" in done.stdout
    assert "not counted: 5 rows" in done.stdout
    as_json = CliRunner().invoke(
        app, ["promote", str(graph), "first", "--to", "new", "--epsilon", "0.1", "--json"]
    )
    assert (as_json.exit_code, json.loads(as_json.stdout)["rows_needed"]) == (3, 18)


def test_the_commands_promote_and_roll_back(graph: Path) -> None:
    store(graph, (60, SAME))
    done = CliRunner().invoke(app, ["promote", str(graph), "first", "--to", "new", "--epsilon", "0.1"])
    assert done.exit_code == 0, done.output
    assert "+    ask: [new]" in done.stdout
    assert "undo: cascade rollback" in done.stdout
    shown = CliRunner().invoke(app, ["rollback", str(graph), "--dry-run"])
    assert "first would ask nano again" in shown.stdout
    assert "[new]" in graph.read_text()
    undone = CliRunner().invoke(app, ["rollback", str(graph)])
    assert (undone.exit_code, graph.read_text()) == (0, TEXT)
    assert CliRunner().invoke(app, ["rollback", str(graph)]).exit_code == 1


@pytest.mark.parametrize(
    ("change", "call", "said"),
    [
        (("", ""), {"stage": "frist"}, "unknown stage 'frist'"),
        (("", ""), {"to": "nwe"}, "unknown model 'nwe'"),
        (("", ""), {"to": "large"}, "'large' is not the shadow of stage 'first'"),
        (("", ""), {"calibration": "c.json"}, "names no calibration"),
    ],
)
def test_what_cannot_be_promoted(graph: Path, change: tuple[str, str], call: dict, said: str) -> None:
    graph.write_text(TEXT.replace(*change))
    with pytest.raises(ConfigError, match=said):
        lab.promote(graph, **{"stage": "first", "to": "new", **call})


@pytest.mark.parametrize("numbers", [{"epsilon": 0.0}, {"delta": 1.0}])
def test_numbers_that_are_no_probabilities(graph: Path, numbers: dict) -> None:
    with pytest.raises(RequestError, match="expected numbers between 0 and 1"):
        lab.promote(graph, "first", "new", **numbers)


def test_an_edit_since_the_promotion_is_never_lost(graph: Path) -> None:
    store(graph, (60, SAME))
    lab.promote(graph, "first", "new", epsilon=0.1)
    edited = graph.read_text() + "# an edit\n"
    graph.write_text(edited)
    with pytest.raises(ConfigError, match="was edited since 'new' was promoted"):
        lab.rollback(graph)
    assert graph.read_text() == edited


def test_a_rollback_that_was_cut_short_is_finished(graph: Path) -> None:
    store(graph, (60, SAME))
    lab.promote(graph, "first", "new", epsilon=0.1)
    graph.write_text(TEXT)  # the graph is back, and the history does not say so yet
    assert lab.rollback(graph)[0].undone is not None
    assert graph.read_text() == TEXT


def test_a_broken_history_is_told(graph: Path) -> None:
    history_path(graph).write_text("{")
    with pytest.raises(ConfigError, match="promotions"):
        lab.rollback(graph)


def test_the_replaced_model_that_does_better_raises_the_alarm(graph: Path) -> None:
    store(graph, (60, SAME))
    lab.promote(graph, "first", "new", epsilon=0.1)
    swapped = {"models": ("new", "nano")}
    store(graph, (40, {**SAME, **swapped}))
    assert lab.monitor(graph).promotion is not None
    assert not lab.monitor(graph).alarmed
    store(graph, (30, {**BETTER, **swapped}))  # the shadow, nano, is right and new is not
    report = lab.monitor(graph)
    assert report.promotion is not None
    assert [alarm.kind for alarm in report.promotion.alarms] == ["pairs"]
    assert (report.promotion.undone, graph.read_text()) == (True, TEXT)
    (noted,) = read_promotions(graph)
    assert (noted.why or "").startswith("alarm: worse than nano, which it replaced, on 30 of 70 rows")


@pytest.mark.parametrize("on_alarm", ["rollback", "report"])
def test_live_grades_raise_the_alarm(graph: Path, on_alarm: str) -> None:
    graph.write_text(TEXT.replace("on_alarm: rollback", f"on_alarm: {on_alarm}"))
    before = graph.read_text()
    store(graph, (60, SAME))
    lab.promote(graph, "first", "new", epsilon=0.1)
    runs = store(graph, (60, {**SAME, "audit": False, "models": ("new", "nano")}))
    with TraceStore(default_url()) as traces:
        for number, run in enumerate(runs):
            traces.grade(run.run, number % 2 == 0)
    done = CliRunner().invoke(app, ["monitor", str(graph)])
    assert done.exit_code == 3
    assert "30 of 60 graded answers are wrong, at most 0.2 was promised" in done.stdout
    assert ("rolled back" in done.stdout) == (on_alarm == "rollback")
    assert (graph.read_text() == before) == (on_alarm == "rollback")


def test_an_alarm_leaves_an_edited_file_alone_and_says_so(graph: Path) -> None:
    store(graph, (60, SAME))
    lab.promote(graph, "first", "new", epsilon=0.1)
    edited = graph.read_text() + "# an edit\n"
    graph.write_text(edited)
    store(graph, (40, {**BETTER, "models": ("new", "nano")}))
    report = lab.monitor(graph)
    assert report.promotion is not None
    assert (report.promotion.undone, graph.read_text()) == (False, edited)
    assert "was edited since" in (report.promotion.refused or "")
    assert "not rolled back" in CliRunner().invoke(app, ["monitor", str(graph)]).stdout
