"""What decides a stage: the graph's own thresholds, or a tuned policy (`cascade.policy.tuned`).

Live runs, replays and evaluation on tables decide by these; what differs is only where the evidence is from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from cascade.policy.decide import decide, mark_marginal
from cascade.records import Call, Decision, Estimate
from cascade.spec.schema import Graph, Stage


@dataclass(frozen=True)
class MeasuredAnswer:
    """What a model answered, as an outcome table holds it: what was not measured is absent."""

    text: str
    signals: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None


class MeasuredDrafts(NamedTuple):
    """What is known after a stage has asked.

    Attributes:
        chosen: index of the draft that counts among the stage's calls; None if there is none.
        checked: what the stage's own check says of it, if anything.
        answers: model → answer, of this stage and those before it; a model that failed is absent.
    """

    chosen: int | None
    checked: Estimate | None
    answers: Mapping[str, MeasuredAnswer]


class StageEvidence(Protocol):
    """What a stage has got from its models, live or recorded. It is measured when a decider asks for it."""

    @property
    def prompt(self) -> str:
        """The request's text."""
        ...

    @property
    def run(self) -> str | None:
        """The run's id, which draws the audits; without one nothing is audited."""
        ...

    @property
    def calls(self) -> Sequence[Call]:
        """Every call of the stage, failed ones and gates included."""
        ...

    def estimate(self) -> Estimate | None:
        """Return the draft that the stage's check chooses and its confidence; None if that is not known."""
        ...

    def confidence_range(self, estimate: Estimate) -> tuple[float, float] | None:
        """Return the range of the confidence within the model's numerical noise; None if it has none."""
        ...

    def measured_drafts(self) -> MeasuredDrafts:
        """Return all that was measured on the drafts, and on those of the stages before."""
        ...


class Decider(Protocol):
    """Decides what a run does before and after each stage."""

    def skip(self, stage: Stage, prompt: str) -> Decision | None:
        """Return the decision to pass `stage` over before anything is called; None: it is asked."""
        ...

    def accepts_all(self, stage: Stage) -> bool:
        """Return whether every valid answer of `stage` is accepted, so that it may stream."""
        ...

    def required_confidence(self, stage: Stage) -> float | None:
        """Return the confidence that a draft of `stage` needs; None where other measurements decide."""
        ...

    def decide(self, stage: Stage, evidence: StageEvidence) -> tuple[Decision, Estimate | None]:
        """Decide what follows from what `stage` got, and return the estimate that was compared."""
        ...


@dataclass(frozen=True)
class ThresholdDecider:
    """Accepts an answer whose confidence reaches the `accept` of its stage, as the graph says."""

    graph: Graph

    def skip(self, stage: Stage, prompt: str) -> Decision | None:
        """Return None: every stage on the way is asked."""
        return None

    def accepts_all(self, stage: Stage) -> bool:
        """Return whether `stage` has no check."""
        return stage.confidence is None

    def required_confidence(self, stage: Stage) -> float | None:
        """Return the stage's `accept`."""
        return stage.accept

    def decide(self, stage: Stage, evidence: StageEvidence) -> tuple[Decision, Estimate | None]:
        """Compare the confidence that the stage's check measured with the stage's threshold."""
        estimate = evidence.estimate()
        decision = decide(self.graph, stage, evidence.calls, estimate, evidence.run)
        if estimate is not None:
            decision = mark_marginal(decision, evidence.confidence_range(estimate))
        return decision, estimate
