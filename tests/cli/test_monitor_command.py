"""`cascade monitor` over stores of real runs: quiet, drifted, without a reference, and audited."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import typer
from policies import policy
from scripting import REMOTE, checked, load, scripted, write
from typer.testing import CliRunner

from cascade import Cascade
from cascade.cli.calibrate import calibrate
from cascade.cli.monitor import DRIFTED, monitor
from cascade.config.load import load_graph
from cascade.errors import ConfigError, RequestError
from cascade.explain import describe
from cascade.policy.artifact import Feature, PolicyStage, Score, Term, write_policy

app = typer.Typer()
app.command()(monitor)
app.command()(calibrate)

ANSWERS = [["yes", "yes", "yes"], ["yes", "yes", "no"], ["yes", "no", "perhaps"]]  # agreement 1, 2/3, 1/3


def texts(count: int, weights: list[int], seed: int = 0) -> dict[str, list[str]]:
    """Questions and the three drafts that each gets."""
    chance = random.Random(seed)
    drawn = chance.choices(ANSWERS, weights, k=count)
    return {f"question {seed} {number}": answers for number, answers in enumerate(drawn)}


USUAL, STRANGE = texts(80, [6, 3, 1]), texts(80, [1, 3, 6], seed=1)
MODELS = {
    "small": {"kind": "scripted", "tier": "haiku", "replies": USUAL | STRANGE},
    "large": scripted("yes", confidence=0.7, tier="opus", **REMOTE),
}
STAGES = [
    checked("first", "small", by="agreement", accept=0.5, samples=3),
    checked("second", "large", accept=0.6, escalate="end"),
]


def monitored(*arguments: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["monitor", *map(str, arguments)], env={"COLUMNS": "140"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.output


def stages(*arguments: object, status: int = 0) -> dict[str, Any]:
    result = json.loads(monitored(*arguments, "--json", status=status))
    return {report["stage"]: report for report in result["stages"]}


FIRST = {**STAGES[0], "confidence": {"by": "agreement", "calibration": "first.json"}}


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `cascade calibrate` writes for the first stage, from the usual questions."""
    folder = tmp_path_factory.mktemp("calibration")
    path = write(folder, MODELS, [FIRST, STAGES[1]])
    chance = random.Random(2)
    rows = [
        {"text": text, "label": "yes" if chance.random() < [0, 0.1, 0.6, 0.9][answers.count("yes")] else "no"}
        for text, answers in USUAL.items()
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["calibrate", str(path), "first", "--data", str(data)])
    assert done.exit_code == 0, done.output
    return (folder / "first.json").read_text()


@pytest.fixture
def graph(calibration: str, tmp_path: Path) -> Path:
    """A graph whose first stage is calibrated on the usual questions."""
    (tmp_path / "first.json").write_text(calibration)
    return write(tmp_path, MODELS, [FIRST, STAGES[1]])


def ask(graph: Path, questions: dict[str, list[str]]) -> None:
    from cascade import Cascade

    with Cascade.load(graph) as cascade:
        cascade.batch(list(questions))


def test_runs_like_the_calibration_data_are_ok(graph: Path) -> None:
    ask(graph, USUAL)
    shown = monitored(graph)
    assert "alarm at an e-value of 200" in shown
    result = stages(graph)
    assert (result["first"]["verdict"], result["first"]["runs"]) == ("ok", 80)
    assert result["first"]["live"] == pytest.approx(result["first"]["reference"])
    assert result["first"]["e_value"] < 10
    assert result["first"]["since"].endswith("T00:00:00.000+00:00")


def test_other_questions_are_drift_with_their_own_exit_status(graph: Path) -> None:
    ask(graph, STRANGE)
    result = stages(graph, status=DRIFTED)["first"]
    assert (result["verdict"], result["e_value"] > 200) == ("drifted", True)
    assert result["live"] < result["reference"]
    assert f"first: drifted: the alarm came with run {result['first_alarm']}" in monitored(
        graph, status=DRIFTED
    )


def test_a_later_stage_is_not_compared_with_what_it_never_sees(graph: Path) -> None:
    ask(graph, USUAL)
    result = stages(graph)["second"]
    assert (result["verdict"], result["why"]) == ("no reference", "it has no calibration; give --reference")


def test_a_reference_of_earlier_runs_serves_every_stage(graph: Path, tmp_path: Path) -> None:
    kept = tmp_path / "reference.json"
    ask(graph, USUAL)
    monitored(graph, "--write-reference", kept)
    result = stages(graph, "--reference", kept)
    assert result["first"]["verdict"] == "ok"
    assert result["first"]["since"] is None
    assert result["second"]["verdict"] in ("ok", "too few runs")
    assert result["second"]["reference"] == result["second"]["live"] == 1.0


def test_a_calibration_of_before_this_check_is_no_reference(graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    fitted = json.loads(path.read_text())
    assert len(fitted.pop("scores")) == 80
    path.write_text(json.dumps(fitted))
    assert load_graph(graph).calibrations["first"].scores == ()
    ask(graph, STRANGE)
    assert "fit it anew" in stages(graph)["first"]["why"]
    path.write_text(json.dumps(fitted | {"scores": [0.5]}))
    with pytest.raises(ConfigError, match=r"calibration of stage 'first': scores: .*1 scores; expected 80"):
        monitored(graph)


def test_answers_without_a_score_are_counted_apart(graph: Path) -> None:
    ask(graph, {"no reply is scripted for this": []})
    result = stages(graph)["first"]
    assert (result["runs"], result["unmeasured"], result["verdict"]) == (0, 1, "too few runs")
    assert "first: 1 answers had no score" in monitored(graph)


def test_only_runs_since_then_count(graph: Path) -> None:
    ask(graph, STRANGE)
    assert stages(graph, "--since", "2999-01-01")["first"]["runs"] == 0
    assert stages(graph, "--since", "2020-01-01", status=DRIFTED)["first"]["runs"] == 80


def test_audited_answers_are_graded_by_the_next_stage(tmp_path: Path) -> None:
    audited = [{**STAGES[0], "audit_rate": 0.5}, STAGES[1]]
    with load(tmp_path, MODELS, audited) as cascade:
        cascade.batch(list(USUAL))
    result = stages(tmp_path / "graph.yaml")["first"]
    audits = result["audits"]
    assert 20 < audits["runs"] < 60
    assert audits["graded"] == audits["agreed"] == audits["runs"]
    assert "accepted answers audited; later stages answered" in monitored(tmp_path / "graph.yaml")


def test_a_graph_without_checks_has_nothing_to_monitor(tmp_path: Path) -> None:
    path = write(tmp_path, {"small": scripted("yes")}, [{"name": "only", "ask": ["small"]}])
    assert "nothing to compare" in monitored(path)
    with pytest.raises(RequestError, match="not written: no stored run of test@"):
        monitored(path, "--write-reference", tmp_path / "x.json")


def test_a_reference_that_cannot_be_written_is_an_error(graph: Path, tmp_path: Path) -> None:
    ask(graph, USUAL)
    with pytest.raises(RequestError, match="give a writable file for --write-reference"):
        monitored(graph, "--write-reference", graph / "x.json")


def drifting(folder: Path, calibration: str, **changes: Any) -> Path:
    """A graph that may tighten, whose runs are strange; two of three alike is then often wrong."""
    (folder / "first.json").write_text(calibration)
    first = {**FIRST, "on_drift": "tighten", "audit_rate": 1.0, **changes}
    with load(folder, MODELS, [first, STAGES[1]]) as cascade:
        cascade.batch(list(STRANGE))
    return folder / "graph.yaml"


def test_a_drifted_stage_is_tightened_and_live_runs_follow(calibration: str, tmp_path: Path) -> None:
    path = drifting(tmp_path, calibration, audit_rate=0.05)
    report = stages(path, "--delta", "0.1", status=DRIFTED)["first"]
    raised = report["tightened"]
    assert raised["alarm"] == report["first_alarm"]
    assert (raised["accept"] > 1, raised["was"], raised["alpha"]) == (True, 0.5, 0.5)
    with Cascade.load(path) as cascade:
        step = cascade.invoke(next(iter(USUAL))).trace[0]
    assert step.decision.rule == "below_threshold"
    assert step.decision.threshold == raised["accept"]
    assert "tightened since drift" in (describe(step.decision) or "")
    assert "the graph's own thresholds hold again" in monitored(path, "--reset")
    with Cascade.load(path) as cascade:
        assert cascade.invoke(next(iter(USUAL))).trace[0].decision.threshold == 0.5


def test_enough_audits_leave_a_threshold_and_looking_again_changes_nothing(
    calibration: str, tmp_path: Path
) -> None:
    path = drifting(tmp_path, calibration)
    raised = stages(path, "--delta", "0.1", status=DRIFTED)["first"]["tightened"]
    assert 0.5 <= raised["accept"] <= 1.0
    assert raised["rows"] > 10
    assert raised["bound"] <= raised["alpha"]
    assert stages(path, "--delta", "0.1", status=DRIFTED)["first"]["tightened"] == raised
    assert "tightened since drift" in monitored(path, "--delta", "0.1", status=DRIFTED)


def test_a_policy_that_needs_no_confidence_is_watched_too(tmp_path: Path) -> None:
    """Its score is made of texts: the stage has no confidence of its own."""
    length = Term(feature=Feature(kind="text", model="small", name="chars"), weight=1.0)
    stages_ = PolicyStage(model="small", accept=0.7, score=Score(bias=0.0, terms=(length,)))
    tuned = policy(stages_, PolicyStage(model="large", accept="always"))
    write_policy(tuned, tmp_path / "policy.json")
    plain = [{"name": "first", "ask": ["small"], "samples": 3}, {"name": "second", "ask": ["large"]}]
    with load(tmp_path, MODELS, plain, policy="policy.json") as cascade:
        cascade.batch(list(USUAL)[:5])
    report = stages(tmp_path / "graph.yaml")["first"]
    assert (report["runs"], report["why"]) == (5, "its policy decides; give --reference")


def test_report_is_the_default_and_writes_nothing(calibration: str, tmp_path: Path) -> None:
    path = drifting(tmp_path, calibration, on_drift="report")
    assert stages(path, "--delta", "0.1", status=DRIFTED)["first"]["tightened"] is None
    assert not (tmp_path / "graph.drift.json").exists()


def test_tightening_without_audits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, MODELS, [{**STAGES[0], "on_drift": "tighten"}, STAGES[1]])
    with pytest.raises(ConfigError, match="'tighten' needs 'audit_rate'"):
        load_graph(path)
