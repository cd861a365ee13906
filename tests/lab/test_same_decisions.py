"""A request is decided in the same way live, in a replay, and as a row of an outcome table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import STRAIGHT, policy, stage
from stagewise import plan, run, under

from cascade.confidence.measurement import answers
from cascade.lab.replays.compare import recorded
from cascade.lab.replays.replay import replay
from cascade.lab.tables.outcomes import from_rows
from cascade.policy.apply import NOBODY, Decisions, apply_policy
from cascade.policy.artifact import Feature, Policy, PolicyStage, PromptGate, Score, Term
from cascade.policy.table import Outcomes
from cascade.records import Request, Result
from cascade.spec.schema import Graph

NAMES = ("a", "b", "c")
TEXTS = ("why?", "a question of some length", "another")
ANSWERS = ("yes", "no", "yes and no", None)  # None: the call fails
CONFIDENCES = (0.2, 0.4, 0.6, 0.8, None)  # None: no signal is reported
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)  # no confidence is as close as the rounding of a table's scores


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A chain of two or three checked stages, each of which asks a model of its own."""
    names = NAMES[: draw(st.integers(2, 3))]
    models: dict[str, Any] = {}
    for index, name in enumerate(names):
        replies = {text: draw(st.sampled_from(ANSWERS)) for text in TEXTS}
        models[name] = {
            "kind": "scripted",
            "replies": {text: reply for text, reply in replies.items() if reply is not None},
            "confidence": draw(st.sampled_from(CONFIDENCES)),
            "max_tokens": draw(st.sampled_from([2, 64])),  # two words cut the longest answer off
            "price": {"input": 10.0**index, "output": 2 * 10.0**index},
        }
    check = {"confidence": {"by": "logprob", "signal": "mean"}}
    stages = [
        {"name": f"stage-{name}", "ask": [name], **check, "accept": draw(st.sampled_from(THRESHOLDS))}
        for name in names
    ]
    return Graph.model_validate({"name": "g", "models": models, "stages": stages})


@st.composite
def scores(draw: st.DrawFn, asked: tuple[str, ...]) -> Score:
    """A score of what can be known once the models `asked` have answered; the last one is judged."""
    *others, judged = asked
    features = [
        Feature(kind="confidence", model=judged),
        Feature(kind="signal", model=judged, name="mean"),
        Feature(kind="text", model=judged, name="chars"),
        Feature(kind="prompt", name="words"),
        *(Feature(kind="agreement", model=judged, other=other) for other in others),
    ]
    weights = st.sampled_from([-1.5, -0.5, 0.7, 2.0])
    chosen = draw(st.lists(st.sampled_from(features), min_size=1, max_size=3, unique=True))
    terms = tuple(Term(feature=feature, weight=draw(weights)) for feature in chosen)
    return Score(bias=draw(st.sampled_from([-1.0, 0.0, 1.0])), terms=terms)


@st.composite
def policies(draw: st.DrawFn, names: tuple[str, ...]) -> Policy:
    """A policy over some of the models, the last one included, with or without a gate on the prompt."""
    chain = (*(name for name in names[:-1] if draw(st.booleans())), names[-1])
    stages = []
    for index, name in enumerate(chain):
        accept = draw(st.sampled_from(["always", "never", 0.3, 0.5, 0.7]))
        low = draw(st.sampled_from([None, None, 0.2, 0.4]))
        scored = isinstance(accept, float) or low is not None or draw(st.booleans())
        stages.append(
            PolicyStage(
                model=name,
                accept=accept,
                abstain_below=low,
                score=draw(scores(chain[: index + 1])) if scored else None,
                confidence=STRAIGHT if scored and draw(st.booleans()) else None,
            )
        )
    gate = None
    if len(chain) > 1 and draw(st.booleans()):
        length = Term(feature=Feature(kind="prompt", name="words"), weight=1.0)
        score = Score(bias=draw(st.sampled_from([-2.0, -1.5, -1.0])), terms=(length,))
        gate = PromptGate(score=score, skip_at=0.5, to=draw(st.sampled_from(chain[1:])))
    return policy(*stages, gate=gate)


def table_of(results: list[Result]) -> Outcomes:
    """Return the outcome table of runs that asked every model."""
    rows = []
    for result in results:
        known, done, failed = answers(result.trace), {}, {}
        for step in result.trace:
            (call,) = step.calls
            paid = {"cost_usd": call.cost_usd, "seconds": call.seconds}
            if call.model in known:
                answer = known[call.model]
                sure = {} if answer.confidence is None else {"confidence": answer.confidence}
                measured = {"text": answer.text, "signals": dict(answer.signals), **sure}
                measured |= {"truncated": True} if call.truncated else {}
                done[call.model] = {"quality": 1.0, **paid, **measured}
            else:
                failed[call.model] = {**paid, "error": call.error}
        rows.append(
            {"id": result.request.text, "prompt": result.request.text, "models": done, "failed": failed}
        )
    return from_rows(rows)


def same(live: Result, chain: tuple[str, ...], decisions: Decisions, row: int) -> None:
    """The live run answered by the same model, at the same cost, as its row of the table."""
    index = int(decisions.answered_by[row])
    answered = None if index == NOBODY else chain[index]
    assert (live.model if live.status == "accepted" else None) == answered
    assert live.cost_usd == pytest.approx(decisions.cost_usd[row], abs=1e-15)


@settings(max_examples=100)
@given(st.data())
def test_by_a_policy(data: st.DataObject) -> None:
    graph = data.draw(graphs())
    names = tuple(graph.models)
    tuned = data.draw(policies(names))
    everyone = policy(*(stage(name, "never") for name in names))
    recordings = [run(plan(graph, policy=everyone), Request(text=text)) for text in TEXTS]
    decisions = apply_policy(tuned, table_of(recordings))
    for row, recording in enumerate(recordings):
        live = run(plan(graph, policy=tuned), recording.request)
        replayed = replay(recording, under(graph, policy=tuned))
        assert replayed.unknown is None
        assert [step.decision for step in replayed.trace] == [step.decision for step in live.trace]
        assert [step.estimate for step in replayed.trace] == [step.estimate for step in live.trace]
        assert replayed.outcomes == (recorded(live),)
        same(live, tuned.chain, decisions, row)
        for step in live.trace:
            if step.estimate is not None and step.estimate.by == "policy":
                score = decisions.scores[step.calls[0].model][row]
                assert step.estimate.score == pytest.approx(score, abs=1e-12)
        if live.status == "accepted" and np.isfinite(decisions.confidence[row]):
            assert live.confidence == pytest.approx(decisions.confidence[row], abs=1e-12)


@settings(max_examples=100)
@given(graphs())
def test_by_the_thresholds_of_a_graph(graph: Graph) -> None:
    """In a table, a graph's thresholds are the policy that compares the reported confidence with them."""
    names = tuple(graph.models)
    stages = [each.model_copy(update={"accept": 1.0}) for each in graph.stages]
    recordings = [
        run(plan(graph.model_copy(update={"stages": stages})), Request(text=text)) for text in TEXTS
    ]
    equal = policy(*(stage(each.ask[0], each.accept) for each in graph.stages))
    decisions = apply_policy(equal, table_of(recordings))
    for row, recording in enumerate(recordings):
        live = run(plan(graph), recording.request)
        replayed = replay(recording, under(graph))
        assert replayed.unknown is None
        assert [step.decision for step in replayed.trace] == [step.decision for step in live.trace]
        assert replayed.outcomes == (recorded(live),)
        same(live, names, decisions, row)
