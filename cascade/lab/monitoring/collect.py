"""What the stored runs tell about each checked stage of a graph, collected for the monitor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cascade.config.load import LoadedGraph
from cascade.explain.formatting import parse_since
from cascade.lab.monitoring.tightening import Audited
from cascade.policy.decide import audited
from cascade.policy.trials import by_canary
from cascade.records import Result, Step
from cascade.spec.schema import Stage

if TYPE_CHECKING:
    from cascade.lab.monitoring.drift import Reference


@dataclass
class WatchedStage:
    """What the stored runs tell about a checked stage.

    Attributes:
        stage: the stage.
        since: the time from which runs count, ISO 8601; None if all do.
        scores: the live scores.
        runs: the run of each score.
        unmeasured: number of answers without a score.
        audits: number of accepted answers that were passed on all the same.
        graded: number of audits that a later stage answered.
        agreed: number of graded audits with the same answer.
        drawn: every answer that was drawn for an audit, accepted or not.
        policy_threshold: a policy's threshold of its score; None if the stage checks confidence.
    """

    stage: Stage
    since: str | None
    scores: list[float] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    unmeasured: int = 0
    audits: int = 0
    graded: int = 0
    agreed: int = 0
    drawn: list[Audited] = field(default_factory=list)
    policy_threshold: float | None = None

    @property
    def signal(self) -> tuple[str, str]:
        """The method and the signal that the stage's score is made of."""
        if self.policy_threshold is not None:
            return "policy", "score"
        check = self.stage.confidence
        if check is None:
            raise ValueError(f"stage {self.stage.name!r} has no confidence")
        return check.by, check.signal_name

    def add(self, result: Result, step: Step) -> None:
        """Count one step of this stage; what its canary answered says nothing about its own model."""
        by, signal = self.signal
        if by_canary(step) or not any(call.role == "answer" for call in step.calls):
            return
        estimate = step.estimate
        known = {} if estimate is None else {**estimate.signals, "score": estimate.score}
        if estimate is None or estimate.by != by or signal not in known:
            self.unmeasured += 1
            return
        self.scores.append(min(1.0, max(0.0, known[signal])))
        self.runs.append(result.run)
        if step.decision.rule == "audit":
            self._audit(result, step)
        if audited(self.stage, result.run) and step.decision.to is not None:
            value = estimate.score if self.policy_threshold is not None else estimate.confidence
            self.drawn.append(Audited(result.run, value, self._erred(result, step)))

    def _audit(self, result: Result, step: Step) -> None:
        self.audits += 1
        if result.stage != self.stage.name and result.status == "accepted":
            self.graded += 1
            self.agreed += not self._erred(result, step)

    def _erred(self, result: Result, step: Step) -> bool:
        """Whether a later stage gave another answer, or none, which counts as an error too."""
        from cascade.confidence.same import normalise

        if result.stage == self.stage.name or result.status != "accepted" or step.estimate is None:
            return True
        # If only hashes are stored, equal texts still have equal hashes.
        return normalise(step.calls[step.estimate.chosen].text) != normalise(result.text or "")


def collect(
    loaded: LoadedGraph, results: Iterable[Result], *, given: Mapping[str, Reference] | None, dated: bool
) -> list[WatchedStage]:
    """Return the checked stages with their live scores, which are in the order of the runs.

    Args:
        loaded: the graph.
        results: its stored runs.
        given: references to compare with; None to compare with the calibrations.
        dated: count only runs since the stage was calibrated.
    """
    watched: dict[str, WatchedStage] = {}
    for stage in loaded.graph.stages:
        calibration = loaded.calibrations.get(stage.name) if given is None and dated else None
        threshold = _policy_threshold(loaded, stage)
        if threshold is not None or (stage.confidence is not None and stage.accept is not None):
            dated_by = calibration if threshold is None else None
            since = parse_since(f"{dated_by.fitted}T00:00Z") if dated_by else None
            watched[stage.name] = WatchedStage(stage, since, policy_threshold=threshold)
    for result in results:
        for step in result.trace:
            seen = watched.get(step.stage)
            if seen is not None and (seen.since is None or result.started >= seen.since):
                seen.add(result, step)
    return list(watched.values())


def _policy_threshold(loaded: LoadedGraph, stage: Stage) -> float | None:
    """Return the lowest score that the graph's policy accepts at `stage`; None if it compares none there."""
    policy = loaded.policy
    if policy is None or len(stage.ask) != 1 or stage.ask[0] not in policy.chain:
        return None
    accept = policy.stages[policy.chain.index(stage.ask[0])].accept
    return accept if isinstance(accept, float) else None
