"""Deciding a live run, or a recorded one, by a tuned policy: the scores and thresholds that decide a table.

A policy decides the stages that ask one of its models alone. Stages before its last one that it does not
name are skipped; those after it are asked as ever, where all before them failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cascade.policy.artifact import Feature, Policy, Score
from cascade.policy.decide import audited, decide
from cascade.records import Call, Decision, Estimate, Rule
from cascade.spec.schema import Graph, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cascade.policy.table import Outcomes

MEASURED_KEY = "measured"  # in a call's meta: what a later stage, or a replay, cannot measure again


@dataclass(frozen=True)
class MeasuredAnswer:
    """What a model answered, as an outcome table holds it: what was not measured is absent."""

    text: str
    signals: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None


def stage_index(policy: Policy, stage: Stage) -> int | None:
    """Return which of the policy's stages `stage` is; None if the policy does not name it."""
    alone = stage.ask[0] if len(stage.ask) == 1 else None
    return policy.chain.index(alone) if alone in policy.chain else None


def streams(policy: Policy, stage: Stage) -> bool | None:
    """Return whether every answer of `stage` is accepted; None if the policy does not name the stage."""
    index = stage_index(policy, stage)
    return None if index is None else policy.stages[index].accept == "always"


def reads_texts(policy: Policy) -> bool:
    """Return whether the policy looks at texts, so that their hashes are not enough to decide by."""
    scores = [stage.score for stage in policy.stages] + [policy.gate.score if policy.gate else None]
    known = [score for score in scores if score is not None]
    kinds = {term.feature.kind for score in known for term in score.terms}
    return bool(kinds - {"signal", "confidence"}) or any(score.words for score in known)


def skip(policy: Policy, graph: Graph, stage: Stage, prompt: str) -> Decision | None:
    """Decide whether the policy passes `stage` over, before anything is called; None means it does not."""
    index = stage_index(policy, stage)
    if index is None:
        if not before_last(policy, graph, stage):
            return None
        return _onward(graph, stage, "policy_skip", f"{_named(policy)} asks {', '.join(policy.chain)}")
    gate = policy.gate
    if gate is None or index >= policy.chain.index(gate.to):
        return None
    need = _value(gate.score, prompt, {})
    if not need >= gate.skip_at:  # NaN: nothing is known about the prompt
        return None
    why = f"the prompt's score {need:.4f} reaches {gate.skip_at:.4f}, so {gate.to} is asked at once"
    return _onward(graph, stage, "policy_skip", f"{_named(policy)}: {why}")


def decide_by_policy(
    policy: Policy,
    graph: Graph,
    stage: Stage,
    *,
    prompt: str,
    answers: Mapping[str, MeasuredAnswer],
    chosen: int | None,
    calls: Sequence[Call],
    checked: Estimate | None = None,
    run: str | None = None,
) -> tuple[Decision, Estimate | None]:
    """Decide what follows from the calls of a stage that the policy names.

    Args:
        policy: the policy.
        graph: the graph that the stage belongs to.
        stage: the stage that has asked.
        prompt: the request's text.
        answers: model → answer, of this stage and those before it; a model that failed is absent.
        chosen: index of the draft among `calls`; None if there is none.
        calls: every call of the stage.
        checked: what the stage's own check says; stands where the policy has no score of its own.
        run: the run's id, which draws the audits; without one nothing is audited.
    """
    judged = calls if chosen is None else [calls[chosen]]
    bare = stage.model_copy(update={"confidence": None, "accept": None})
    usable = decide(graph, bare, judged, None)
    if usable.rule != "unchecked":
        return usable, None
    if chosen is None:
        return _onward(graph, stage, "no_estimate", _named(policy)), None
    here = policy.stages[policy.chain.index(stage.ask[0])]
    named = _promised(policy, here.model)
    if here.score is None:
        return _ruled(policy, graph, stage, math.nan, run), checked
    features = _features(here.score, prompt, answers)
    score = _value(here.score, prompt, answers)
    if math.isnan(score):
        missing = ", ".join(name for name, value in features.items() if math.isnan(value))
        return _onward(graph, stage, "no_estimate", f"{named}: not measured: {missing or 'a text'}"), None
    sure = score if here.confidence is None else here.confidence.apply(score)
    estimate = Estimate(
        by="policy", chosen=chosen, signals=features, score=score, confidence=sure,
        calibrated=here.confidence is not None,
    )  # fmt: skip
    return _ruled(policy, graph, stage, score, run), estimate


def _ruled(policy: Policy, graph: Graph, stage: Stage, score: float, run: str | None) -> Decision:
    """Compare a score (NaN where the policy has none) with the thresholds of its stage."""
    index = policy.chain.index(stage.ask[0])
    here = policy.stages[index]
    named = _promised(policy, here.model)
    at = here.accept if isinstance(here.accept, float) else None
    if here.accept == "always":
        return Decision(action="accept", rule="policy_accept", detail=named)
    if at is not None and score >= at:
        target = graph.next_stage(stage.name)
        if target is not None and audited(stage, run):
            return Decision(action="escalate", rule="audit", threshold=at, to=target, detail=named)
        return Decision(action="accept", rule="policy_accept", threshold=at, detail=named)
    low = here.abstain_below
    if low is not None and score < low:
        return Decision(action="abstain", rule="policy_abstain", threshold=low, detail=named)
    if index + 1 == len(policy.stages):
        return Decision(action="abstain", rule="policy_below", threshold=at, detail=named)
    return _onward(graph, stage, "policy_below", named, at)


def before_last(policy: Policy, graph: Graph, stage: Stage) -> bool:
    """Return whether a stage that the policy names comes after `stage`."""
    name = graph.next_stage(stage.name)
    while name is not None:
        after = graph.stage(name)
        if stage_index(policy, after) is not None:
            return True
        name = graph.next_stage(name)
    return False


def _named(policy: Policy) -> str:
    return f"policy {policy.digest}"


def _promised(policy: Policy, model: str) -> str:
    """Name the policy and the certificate that the decisions about a model stand on."""
    for each in policy.certificates:
        if each.stage in (model, "policy"):
            what = "error" if each.kind == "max_risk" else "loss"
            return (
                f"{_named(policy)}, certified {what} at most {each.alpha:g} with probability "
                f"{1 - each.delta:.4g} (bound {each.bound:.4f})"
            )
    return f"{_named(policy)}, not certified"


def _value(score: Score, prompt: str, answers: Mapping[str, MeasuredAnswer]) -> float:
    from cascade.policy.apply import score_values
    from cascade.policy.features import features_of

    return float(score_values(score, features_of(_row(score, prompt, answers)), 1)[0])


def _features(score: Score, prompt: str, answers: Mapping[str, MeasuredAnswer]) -> dict[str, float]:
    from cascade.policy.features import features_of

    known = features_of(_row(score, prompt, answers))
    terms: list[Feature] = [term.feature for term in score.terms]
    return {feature.label: float(known.column(feature)[0]) for feature in terms}


def _row(score: Score, prompt: str, answers: Mapping[str, MeasuredAnswer]) -> Outcomes:
    """Return the table of one row that a score is computed on; a model without an answer is all NaN."""
    import numpy as np

    from cascade.policy.table import ModelOutcomes, Outcomes

    def column(value: float | None) -> NDArray[np.float64]:
        return np.array([math.nan if value is None else value])

    models = {}
    for name in score.models:
        answer = answers.get(name)
        confidence = None if answer is None else answer.confidence
        signals = {} if answer is None else {key: column(value) for key, value in answer.signals.items()}
        nothing, text = column(None), None if answer is None else answer.text
        models[name] = ModelOutcomes(nothing, nothing, nothing, column(confidence), signals, [text])
    return Outcomes([""], [prompt], models)


def _onward(graph: Graph, stage: Stage, rule: Rule, detail: str, threshold: float | None = None) -> Decision:
    target = graph.next_stage(stage.name)
    action = "abstain" if target is None else "escalate"
    return Decision(action=action, rule=rule, threshold=threshold, to=target, detail=detail)
