"""Deciding a run, live or recorded, by a tuned policy: the scores and thresholds that decide a table.

A policy decides the stages that ask one of its models alone. Stages before its last one that it does not
name are skipped; those after it are decided by the graph's own thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cascade.policy.artifact import Policy, PolicyStage, Score
from cascade.policy.decide import audited, move_on, no_answer
from cascade.policy.decider import Decider, MeasuredAnswer, StageEvidence, ThresholdDecider
from cascade.records import (
    CertifiedBound,
    Decision,
    Estimate,
    MissingSignals,
    PolicyBasis,
    PolicySkip,
)
from cascade.spec.schema import Graph, Stage

if TYPE_CHECKING:
    from cascade.policy.table import Column, Outcomes


def decider_of(graph: Graph, policy: Policy | None) -> Decider:
    """Return what decides the runs of `graph`: `policy`, or without one the graph's thresholds."""
    return ThresholdDecider(graph) if policy is None else PolicyDecider(graph, policy)


def stage_index(policy: Policy, stage: Stage) -> int | None:
    """Return which of the policy's stages `stage` is; None if the policy does not name it."""
    alone = stage.ask[0] if len(stage.ask) == 1 else None
    return policy.chain.index(alone) if alone in policy.chain else None


def before_last(policy: Policy, graph: Graph, stage: Stage) -> bool:
    """Return whether a stage that the policy names comes after `stage`."""
    name = graph.next_stage(stage.name)
    while name is not None:
        after = graph.stage(name)
        if stage_index(policy, after) is not None:
            return True
        name = graph.next_stage(name)
    return False


def reads_texts(policy: Policy) -> bool:
    """Return whether the policy looks at texts, so that their hashes are not enough to decide by."""
    scores = [stage.score for stage in policy.stages] + [policy.gate.score if policy.gate else None]
    known = [score for score in scores if score is not None]
    kinds = {term.feature.kind for score in known for term in score.terms}
    return bool(kinds - {"signal", "confidence"}) or any(score.words for score in known)


@dataclass(frozen=True)
class PolicyDecider:
    """Decides the stages that a policy names by its scores, and all others as the graph says."""

    graph: Graph
    policy: Policy

    @cached_property
    def _others(self) -> ThresholdDecider:
        return ThresholdDecider(self.graph)

    def skip(self, stage: Stage, prompt: str) -> Decision | None:
        """Return the decision to pass `stage` over: the policy asks others, or its gate starts later."""
        policy, index = self.policy, stage_index(self.policy, stage)
        if index is None:
            if not before_last(policy, self.graph, stage):
                return None
            fact = PolicySkip(digest=policy.digest, asks=policy.chain)
            return move_on(self.graph, stage, "policy_skip", facts=[fact])
        gate = policy.gate
        if gate is None or index >= policy.skip_to:
            return None
        need, _ = _score(gate.score, prompt, {})
        if not policy.thresholds.skips(need)[0]:
            return None
        asks = (gate.to,)
        fact = PolicySkip(digest=policy.digest, asks=asks, score=float(need[0]), skip_at=gate.skip_at)
        return move_on(self.graph, stage, "policy_skip", facts=[fact])

    def accepts_all(self, stage: Stage) -> bool:
        """Return whether neither the policy nor the stage checks the answers of `stage`."""
        index = stage_index(self.policy, stage)
        always = index is None or self.policy.stages[index].accept == "always"
        return always and self._others.accepts_all(stage)

    def required_confidence(self, stage: Stage) -> float | None:
        """Return None for a stage that the policy names: it is judged by more than its own check."""
        named = stage_index(self.policy, stage) is not None
        return None if named else self._others.required_confidence(stage)

    def decide(self, stage: Stage, evidence: StageEvidence) -> tuple[Decision, Estimate | None]:
        """Compare the policy's score with the policy's thresholds; a failed call escalates."""
        index = stage_index(self.policy, stage)
        if index is None:
            return self._others.decide(stage, evidence)
        drafts, calls = evidence.measured_drafts(), evidence.calls
        judged = calls if drafts.chosen is None else [calls[drafts.chosen]]
        unanswered = no_answer(self.graph, stage, judged)
        if unanswered is not None:
            return unanswered, None
        if drafts.chosen is None:
            basis = PolicyBasis(digest=self.policy.digest)
            return move_on(self.graph, stage, "no_estimate", facts=[basis]), None
        here = self.policy.stages[index]
        if calls[drafts.chosen].truncated and here.refuses_truncated(self.policy):
            return move_on(self.graph, stage, "truncated", facts=[self._basis(here)]), drafts.checked
        score, signals = _score(here.score, evidence.prompt, drafts.answers)
        if here.score is None:
            return self._compare(stage, index, score, evidence.run), drafts.checked
        value = float(score[0])
        if math.isnan(value) and here.accept == "always":
            return self._compare(stage, index, score, evidence.run), None
        if math.isnan(value):
            missing = tuple(name for name, known in signals.items() if math.isnan(known))
            facts = self._basis(here), MissingSignals(signals=missing)
            return move_on(self.graph, stage, "no_estimate", facts=facts), None
        estimate = Estimate(
            by="policy",
            chosen=drafts.chosen,
            signals=signals,
            score=value,
            confidence=value if here.confidence is None else here.confidence.apply(value),
            calibrated=here.confidence is not None,
        )
        return self._compare(stage, index, score, evidence.run), estimate

    def _compare(self, stage: Stage, index: int, score: Column, run: str | None) -> Decision:
        """Compare a score, as a column of one row, with the thresholds of its stage."""
        here, thresholds = self.policy.stages[index], self.policy.thresholds
        facts = (self._basis(here),)
        accept = here.accept if isinstance(here.accept, float) else None
        if thresholds.accepts(index, score)[0]:
            target = self.graph.next_stage(stage.name) if accept is not None else None
            if target is not None and audited(stage, run):
                return Decision(action="escalate", rule="audit", threshold=accept, to=target, facts=facts)
            return Decision(action="accept", rule="policy_accept", threshold=accept, facts=facts)
        if thresholds.abstains(index, score)[0]:
            low = here.abstain_below
            return Decision(action="abstain", rule="policy_abstain", threshold=low, facts=facts)
        if index + 1 == len(self.policy.stages):
            return Decision(action="abstain", rule="policy_below", threshold=accept, facts=facts)
        return move_on(self.graph, stage, "policy_below", facts=facts, threshold=accept)

    def _basis(self, stage: PolicyStage) -> PolicyBasis:
        """Name the policy and the certificate that the decisions of one of its stages stand on."""
        certificates = [each for each in self.policy.certificates if each.stage in (stage.model, "policy")]
        if not certificates:
            return PolicyBasis(digest=self.policy.digest)
        first = certificates[0]
        bound = CertifiedBound(promise=first.kind, alpha=first.alpha, delta=first.delta, bound=first.bound)
        return PolicyBasis(digest=self.policy.digest, certificate=bound)


def _score(
    score: Score | None, prompt: str, answers: Mapping[str, MeasuredAnswer]
) -> tuple[Column, dict[str, float]]:
    """Compute a score on one row, a column of shape (1,), and the features it is made of; NaN: not known."""
    import numpy as np

    from cascade.policy.apply import score_values
    from cascade.policy.features import Features

    if score is None:
        return np.full(1, np.nan), {}
    features = Features(_row(score.models, prompt, answers))
    signals = {term.feature.label: float(features.column(term.feature)[0]) for term in score.terms}
    return score_values(score, features, 1), signals


def _row(models: Iterable[str], prompt: str, answers: Mapping[str, MeasuredAnswer]) -> Outcomes:
    """Return a table of one row; a model without an answer is all NaN."""
    import numpy as np

    from cascade.policy.table import ModelOutcomes, Outcomes

    def column(value: float | None) -> Column:
        return np.array([math.nan if value is None else value])

    columns, nothing = {}, column(None)
    for name in models:
        answer = answers.get(name)
        confidence = None if answer is None else answer.confidence
        signals = {} if answer is None else {key: column(value) for key, value in answer.signals.items()}
        text = None if answer is None else answer.text
        columns[name] = ModelOutcomes(nothing, nothing, nothing, column(confidence), signals, [text])
    return Outcomes([""], [prompt], columns)
