"""`cascade replay`: what it prints over a store of real runs, and what it says to input that is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from policies import policy as tuned
from policies import stage as tuned_stage
from scripting import REMOTE, checked, load, scripted, write
from typer.testing import CliRunner

from cascade.cli.replay import replay
from cascade.errors import ConfigError, RequestError
from cascade.explain.formatting import parse_since
from cascade.policy.artifact import write_policy

app = typer.Typer()
app.command()(replay)

MODELS = {
    "small": scripted("yes", confidence=0.6, tier="haiku"),
    "large": scripted("no", confidence=0.9, tier="opus", **REMOTE),
}
STAGES = [checked("first", "small", accept=0.5), checked("second", "large")]


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    if done.exception is not None:
        raise done.exception
    return done.output


def words(text: str) -> str:
    return re.sub(r" +", " ", text)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Two runs that the small model answered, and one by the same graph with a higher threshold."""
    with load(tmp_path, MODELS, STAGES) as cascade:
        cascade.batch(["hello", "hello again"])
    with load(tmp_path, MODELS, [checked("first", "small", accept=0.8), STAGES[1]]) as cascade:
        cascade.invoke("hello")
    return write(tmp_path, MODELS, STAGES)


def test_the_table_shows_old_beside_new(graph: Path) -> None:
    shown = words(call(graph))
    assert "answered 3 3" in shown
    assert "by haiku 2 3" in shown
    assert "by opus 1 0" in shown
    assert "cost $0.000003 $0" in shown
    assert re.search(r"changed: 1\n \w{26} accepted second \(opus\) → accepted first \(haiku\)", shown)


def test_what_cannot_be_known_is_counted_and_bounded(graph: Path) -> None:
    shown = words(call(graph, "--set", "first.accept=0.7"))
    assert "answered 3 1 to 3" in shown
    assert "by opus 1 1 to 3" in shown
    assert "cost $0.000003 $0.000003 to $0.00026" in shown
    assert "not known: 2 runs would have asked second, which they never did" in shown
    assert "accepted first (haiku) → accepted second (opus) or abstained" in shown


def test_json_is_one_object_with_the_bounds(graph: Path) -> None:
    result = json.loads(call(graph, "--set", "first.accept=0.7", "--set", "on_exhausted=best", "--json"))
    assert list(result) == ["graph", "set", "runs", "unknown", "left_out", "old", "new", "changes"]
    assert (result["runs"], result["unknown"], result["left_out"]) == (3, {"second": 2}, {})
    assert result["old"]["tiers"] == {"haiku": 2, "opus": 1}
    assert result["new"]["answered"] == [3, 3]
    assert result["new"]["tiers"] == {"haiku": [0, 2], "opus": [1, 3]}
    assert {outcome["status"] for outcome in result["changes"][0]["new"]} == {"accepted", "best_effort"}
    assert result["changes"][0]["unknown"] == "second"


def test_filters_choose_the_runs(graph: Path) -> None:
    def runs(*options: object) -> Any:
        return json.loads(call(graph, "--json", *options))["runs"]

    version = json.loads(call(graph, "--json"))["graph"]
    assert runs() == 3
    assert runs("--graph-name", version) == 2
    assert runs("--status", "abstained") == 0
    assert runs("--since", "2020-01-01") == 3
    assert runs("--since", "2999-01-01T00:00+02:00") == 0
    assert "no run of other in" in call(graph, "--graph-name", "other")


def test_runs_of_another_shape_are_left_out_and_counted(graph: Path, tmp_path: Path) -> None:
    changed = write(tmp_path, MODELS, [{**STAGES[0], "name": "start"}, STAGES[1]])
    shown = call(changed)
    assert "left out: 3: stage 'first' is not in this graph" in shown
    assert "no run of test in" in shown


def test_without_texts_the_dearest_recorded_call_is_the_bound(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"trace": {"store_text": False}}
    with load(tmp_path, MODELS, STAGES, **kept) as cascade:
        cascade.invoke("hello")
    graph = write(tmp_path, MODELS, STAGES, **kept)
    assert json.loads(call(graph, "--set", "first.accept=0.7", "--json"))["new"]["cost_usd"] == [0.0, None]
    assert "$0 to no bound" in words(call(graph, "--set", "first.accept=0.7"))
    with load(tmp_path, MODELS, [checked("first", "small", accept=0.8), STAGES[1]], **kept) as cascade:
        cascade.invoke("a b c")
    result = json.loads(call(graph, "--set", "first.accept=0.7", "--json"))
    assert result["new"]["cost_usd"] == [pytest.approx(5e-6), pytest.approx(1e-5)]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (
            "first.acept=0.9",
            "unknown setting 'first.acept'; known: first.accept, first.audit_rate, second.accept",
        ),
        ("first.acept=0.9", "did you mean 'first.accept'?"),
        ("limits.cost=1", "did you mean 'limits.cost_usd'?"),
        ("first.accept", "expected PATH=VALUE"),
        ("first.accept=high", "--set first.accept=high: 'high' is wrong: expected a number"),
        ("first.accept=NaN", "nan is wrong"),
        ("first.accept=1.5", "1.5 is wrong"),
        ("first.accept=0", "0 can never fire"),
        ("first.accept=null", "'confidence' needs 'accept'"),
        ("limits.calls=2.5", "expected a whole number"),
        ("limits.cost_usd=0.0001", "it can never start"),
        ("on_exhausted=bets", "unknown value 'bets'; known: abstain, best; did you mean 'best'?"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_by_name(setting: str, complaint: str, graph: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        call(graph, "--set", setting)
    assert setting in str(caught.value)


def test_every_wrong_setting_is_reported_at_once(graph: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        call(graph, "--set", "a=1", "--set", "first.accept=0.9", "--set", "b=2")
    assert len(caught.value.problems) == 2


def test_a_limit_can_be_removed(tmp_path: Path) -> None:
    with load(tmp_path, MODELS, [checked("first", "small"), STAGES[1]], limits={"calls": 1}) as cascade:
        cascade.invoke("hello")
    result = json.loads(call(tmp_path / "graph.yaml", "--set", "limits.calls=null", "--json"))
    assert result["unknown"] == {"second": 1}


def test_a_time_is_read_as_the_users_clock_and_stored_as_utc() -> None:
    assert parse_since("2026-11-21T06:00:00.5+02:00") == "2026-11-21T04:00:00.500+00:00"
    assert parse_since(None) is None
    with pytest.raises(RequestError, match="--since: 'yesterday' is no time; give ISO 8601"):
        parse_since("yesterday")


def steering(folder: Path, accept: float, name: str = "policy.json") -> Path:
    path = folder / name
    write_policy(tuned(tuned_stage("small", accept), tuned_stage("large")), path)
    return path


def test_a_policy_decides_stored_runs_anew(graph: Path) -> None:
    """Two runs never asked the large model: what it would have said, and cost, is bounded."""
    shown = json.loads(call(graph, "--policy", steering(graph.parent, 0.5), "--json"))
    assert shown["new"]["tiers"] == {"haiku": [3, 3], "opus": [0, 0]}
    assert shown["new"]["cost_usd"] == [0.0, 0.0]
    assert shown["unknown"] == {}
    shown = json.loads(call(graph, "--policy", steering(graph.parent, 0.9), "--json"))
    assert shown["unknown"] == {"second": 2}
    assert shown["new"]["tiers"]["opus"] == [1, 3]
    low, high = shown["new"]["cost_usd"]
    assert 0 < low < high


def test_runs_under_a_policy_replay_as_they_were(tmp_path: Path) -> None:
    steering(tmp_path, 0.5)
    stages = [{key: value for key, value in stage.items() if key != "accept"} for stage in STAGES]
    with load(tmp_path, MODELS, stages, policy="policy.json") as cascade:
        cascade.batch(["hello", "hello again"])
    same = json.loads(call(tmp_path / "graph.yaml", "--json"))
    assert (same["runs"], same["changes"]) == (2, [])
    bold = json.loads(
        call(tmp_path / "graph.yaml", "--policy", steering(tmp_path, 0.7, "other.json"), "--json")
    )
    assert bold["unknown"] == {"second": 2}


def test_a_policy_of_another_graph_cannot_replay(graph: Path) -> None:
    write_policy(tuned(tuned_stage("tiny", 0.5), tuned_stage("large")), graph.parent / "policy.json")
    with pytest.raises(ConfigError, match="asks model 'tiny', which this graph does not have"):
        call(graph, "--policy", graph.parent / "policy.json")
