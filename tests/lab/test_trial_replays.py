"""Runs with shadows and canaries are decided alike live and in a replay, and the limits hold in both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stagewise import plan, run, under

from cascade.config.load import LoadedGraph
from cascade.lab.monitoring.collect import collect
from cascade.lab.replays.replay import incompatibility, replay
from cascade.policy.budget import spent
from cascade.records import Request, Result, Step, Trial
from cascade.spec.schema import Graph

ANSWERS = ("yes", "no", None)
CONFIDENCES = (0.2, 0.6, 0.9)
NAMES = ("a", "b", "c", "new", "other")
TRIALS = ("shadow", "canary")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Three checked stages, with shadows and canaries, that limits may stop."""
    models: dict[str, Any] = {}
    for index, name in enumerate(NAMES):
        reply = draw(st.sampled_from(ANSWERS))
        models[name] = {
            "kind": "scripted",
            "replies": {} if reply is None else {"why?": reply},
            "confidence": draw(st.sampled_from(CONFIDENCES)),
            "price": {"input": 0.0, "output": 10.0 * (index + 1)},
            "local": draw(st.booleans()),
            "max_tokens": 10,
        }
    stages = []
    for name in NAMES[:3]:
        stage: dict[str, Any] = {
            "name": f"stage-{name}",
            "ask": [name],
            "confidence": {"by": "logprob", "signal": "mean"},
            "accept": draw(st.sampled_from([0.3, 0.7])),
        }
        for part in TRIALS:
            if draw(st.booleans()):
                share = draw(st.sampled_from([0.3, 0.7, 1.0]))
                stage[part] = {"model": draw(st.sampled_from(["new", "other"])), "share": share}
        stages.append(stage)
    limits = draw(st.sampled_from([{}, {"calls": 4}, {"cost_usd": 0.0006}, {"cost_usd": 0.0011}]))
    return Graph.model_validate({"name": "g", "models": models, "stages": stages, "limits": limits})


@settings(max_examples=150, deadline=None)
@given(graphs(), st.booleans(), st.integers(0, 30))
def test_live_is_replay(graph: Graph, private: bool, number: int) -> None:
    live = run(plan(graph), Request(text="why?", local_only=private), f"R{number}")
    replayed = replay(live, under(graph))
    assert incompatibility(live, graph) is None
    assert replayed.unknown is None
    assert [_made(step) for step in replayed.trace] == [_made(step) for step in live.trace]
    assert replayed.lowest == pytest.approx(live.cost_usd)


@settings(max_examples=150, deadline=None)
@given(graphs(), st.booleans(), st.integers(0, 30))
def test_a_shadow_changes_no_decision_and_breaks_no_limit(graph: Graph, private: bool, number: int) -> None:
    request = Request(text="why?", local_only=private)
    bare = [stage.model_copy(update={"shadow": None}) for stage in graph.stages]
    with_it = run(plan(graph), request, f"R{number}")
    without = run(plan(graph.model_copy(update={"stages": bare})), request, f"R{number}")
    assert [_decided(step) for step in with_it.trace] == [_decided(step) for step in without.trace]
    used = spent(with_it.trace)
    assert graph.limits.calls is None or used.calls <= graph.limits.calls
    assert graph.limits.cost_usd is None or used.cost_usd <= graph.limits.cost_usd
    for step in with_it.trace:
        assert not private or all(call.local for call in step.calls)


def _made(step: Step) -> tuple:
    return step.stage, step.decision, step.estimate, step.calls


def _decided(step: Step) -> tuple:
    facts = tuple(fact for fact in step.decision.facts if not isinstance(fact, Trial))
    return step.stage, step.decision.model_copy(update={"facts": facts}), step.estimate


def _graph(**first: Any) -> Graph:
    reply = {"kind": "scripted", "default": "yes", "confidence": 0.9}
    check = {"confidence": {"by": "logprob"}, "accept": 0.5}
    stages = [{"name": "first", "ask": ["a"], **check, **first}, {"name": "last", "ask": ["c"]}]
    return Graph.model_validate({"name": "g", "models": dict.fromkeys(NAMES, reply), "stages": stages})


def test_a_run_of_the_stage_itself_says_nothing_about_a_canary_and_the_reverse() -> None:
    plain, canary = _graph(), _graph(canary={"model": "new", "share": 1.0})
    of_plain, of_canary = (run(plan(graph), Request(text="x")) for graph in (plain, canary))
    assert replay(of_plain, under(canary)).unknown == "first"
    assert (
        incompatibility(of_canary, plain)
        == "stage 'first' asked model 'new', which it does not in this graph"
    )
    gone = _graph(canary={"model": "new", "share": 1e-9})
    assert replay(of_canary, under(gone)).unknown == "first"


def test_a_shadow_that_the_graph_no_longer_has_costs_nothing_in_a_replay() -> None:
    live = run(plan(_graph(shadow={"model": "new", "share": 1.0})), Request(text="x"))
    bare = _graph()
    assert incompatibility(live, bare) is None
    again = replay(live, under(bare))
    assert [call.role for call in again.trace[0].calls] == ["answer"]
    assert again.trace[0].decision.facts == ()
    assert replay(
        run(plan(bare), Request(text="x")), under(_graph(shadow={"model": "new", "share": 1.0}))
    ).trace


def test_the_scores_of_a_canary_are_not_those_of_the_stage() -> None:
    graph = _graph(canary={"model": "new", "share": 0.5})
    results: list[Result] = [run(plan(graph), Request(text="x"), f"R{number}") for number in range(40)]
    loaded = LoadedGraph(graph=graph, path=Path("g.yaml"), base=Path(), digest="1")
    (watched,) = collect(loaded, results, given={}, dated=False)
    assert watched.runs == [result.run for result in results if result.model == "a"]
    assert 0 < len(watched.runs) < 40
