"""What stored runs would have become under other thresholds and limits. Calls no model.

The code that decides live runs decides the recorded calls, scores and times anew. What a stage would have
answered that the run never called is unknown: from there on the possible ends and costs are bounded, not
guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from cascade.confidence import measurement
from cascade.confidence.noise import bounds
from cascade.explain import SKIPPED
from cascade.policy.admission import admission
from cascade.policy.artifact import Policy
from cascade.policy.budget import Spend, spent, worst_case
from cascade.policy.calibrate import Calibration
from cascade.policy.decide import route
from cascade.policy.decider import Decider, MeasuredDrafts
from cascade.policy.result import summarize
from cascade.policy.trials import calibration_of, draw_canary, draw_shadow, noted
from cascade.policy.tuned import decider_of
from cascade.records import Call, Decision, Estimate, Request, Result, Step, Trial, UnavailableModel
from cascade.spec.schema import Graph, Stage

Price = Callable[[str, Request], float | None]


@dataclass(frozen=True)
class ReplaySettings:
    """What runs are replayed under.

    Attributes:
        graph: the graph with its changes.
        seconds: the time limit that the runs were made under; None if there was none.
        calibrations: stage name → map from score to confidence.
        price: (model name, request) → the most that one call may cost, in USD; None if no bound is known.
        policy: decides in place of the stages' thresholds, if there is one.
    """

    graph: Graph
    seconds: float | None
    calibrations: Mapping[str, Calibration]
    price: Price
    policy: Policy | None = None

    @cached_property
    def decider(self) -> Decider:
        """What decides the runs: the policy, or without one the graph's thresholds."""
        return decider_of(self.graph, self.policy)


class ReplayOutcome(NamedTuple):
    """How a run ends: its status, and the stage and tier of its answer if it has one."""

    status: str
    stage: str | None = None
    tier: str | None = None


@dataclass(frozen=True)
class ReplayResult:
    """What a run would have become.

    Attributes:
        run: its id.
        trace: the steps, decided anew, as far as they can be known.
        outcomes: how it could have ended; a single one if `unknown` is None.
        lowest: the least that it could have cost, in USD.
        highest: the most; equal to `lowest` if `unknown` is None, None if nothing bounds it.
        unknown: the first stage that it would have called and never did.
    """

    run: str
    trace: tuple[Step, ...]
    outcomes: tuple[ReplayOutcome, ...]
    lowest: float
    highest: float | None
    unknown: str | None = None


def incompatibility(result: Result, graph: Graph) -> str | None:
    """Return why `result` says nothing about `graph`, so that it cannot be replayed; None if it can."""
    if result.status == "cancelled":
        return "it was cancelled by its caller"
    stages = {stage.name: stage for stage in graph.stages}
    for step in result.trace:
        stage = stages.get(step.stage)
        if stage is None:
            return f"stage {step.stage!r} is not in this graph"
        canary = [] if stage.canary is None else [stage.canary.model]
        for call in step.calls:
            known = stage.gate_models if call.role == "gate" else [*stage.ask, *canary]
            if call.role != "shadow" and call.model not in known:
                return f"stage {step.stage!r} asked model {call.model!r}, which it does not in this graph"
        drafts = [call for call in step.calls if call.role == "answer"]
        if len(drafts) != stage.samples * len({call.model for call in drafts}):
            return f"stage {step.stage!r} drew another number of samples"
        if step.gate and not set(step.gate) <= set((stage.gate and stage.gate.to) or stage.ask):
            return f"stage {step.stage!r} had a gate with other candidates"
    return None


def replay(result: Result, settings: ReplaySettings) -> ReplayResult:
    """Return what `result` would have become under `settings`.

    A model that the run did not try counts as available.
    """
    recorded = _Recorded(result, settings)
    steps: list[Step] = []
    name: str | None = settings.graph.stages[0].name
    while name is not None:
        step = recorded.decide(name, steps)
        if step is None:
            return _bounded(recorded, name, tuple(steps))
        if step.decision.action == "accept":
            steps += [lost for lost in result.trace if _lost_to(lost, step) and lost not in steps]
        steps.append(step)
        name = step.decision.to
    cost = spent(steps).cost_usd
    return ReplayResult(result.run, tuple(steps), (_outcome(settings.graph, steps),), cost, cost)


@dataclass(frozen=True)
class _Recorded:
    """A stored run, to be decided anew stage by stage."""

    result: Result
    settings: ReplaySettings

    @cached_property
    def steps(self) -> dict[str, Step]:
        """Stage → recorded step."""
        return {step.stage: step for step in self.result.trace}

    def drawn(self, name: str, used: Spend) -> tuple[Stage, Trial | None]:
        """Return the stage called `name` as this run asks it, by its canary or not."""
        stage, request = self.settings.graph.stage(name), self.result.request
        return draw_canary(self.settings.graph, stage, request, used, self.result.run, self._availability)

    def decide(self, name: str, steps: Sequence[Step]) -> Step | None:
        """Decide a stage anew from its recorded step; None if that takes a call that was never made."""
        used, old = spent(steps), self.steps.get(name)
        stage, canary = self.drawn(name, used)
        decision = self.not_asked(stage, used)
        if decision is not None:
            return Step(stage=stage.name, decision=decision)
        answers = None if old is None else _without_shadows(old)
        step = self._decide(stage, answers, steps)
        if step is None or old is None or step.decision.rule == "hedged":
            return None if step is None else old
        calls, shadow = self._shadow(stage, used, old)
        trials = [_as_then(canary, old) if step.calls else None, shadow]
        decision = noted(step.decision, trials)
        return step.model_copy(update={"decision": decision, "calls": (*step.calls, *calls)})

    def _decide(self, stage: Stage, old: Step | None, steps: Sequence[Step]) -> Step | None:
        """Decide a stage that may start from what its models answered then."""
        used = spent(steps)
        if old is None or old.decision.rule in SKIPPED or not self._same_time(old, used):
            return None
        if old.decision.rule == "hedged":
            return old if self._still_beaten(old, steps) else None
        drafts = {call.model for call in old.calls if call.role == "answer"}
        if not drafts <= set(stage.ask):  # by another canary, or without one
            return None
        if stage.gate is not None:
            routed = route(self.settings.graph, stage, old.gate)
            if routed is not None:
                gates = tuple(call for call in old.calls if call.role == "gate")
                return old.model_copy(update={"decision": routed, "calls": gates, "estimate": None})
            scores = old.gate or {}
            if drafts != set(sorted(scores, key=lambda name: -scores[name])[: stage.gate.top]):
                return None
        return self._judge(stage, old, steps) if drafts else None

    def not_asked(self, stage: Stage, used: Spend) -> Decision | None:
        """Return the decision to pass `stage` over, or that it may not start; None if it is asked."""
        settings, request = self.settings, self.result.request
        skipped = settings.decider.skip(stage, request.text)
        if skipped is not None:
            return skipped
        return admission(settings.graph, stage, request, used, self._availability(stage)).refusal

    def _availability(self, stage: Stage) -> _RecordedAvailability:
        return _RecordedAvailability(self.settings, self.result.request, stage, self.steps.get(stage.name))

    def _shadow(self, stage: Stage, used: Spend, old: Step) -> tuple[list[Call], Trial | None]:
        """Return the recorded calls of the stage's shadow, where it would still be asked, and its note.

        A shadow that was never asked stays unasked: no decision depends on it.
        """
        drawn = draw_shadow(
            self.settings.graph, stage, self.result.request, used, self.result.run, self._availability
        )
        if drawn is None:
            return [], None
        calls = [call for call in old.calls if call.role == "shadow" and call.model == drawn[0].model]
        trial = _as_then(drawn[0], old)
        if trial is None or trial.refused is not None:
            return [], trial
        return (calls, trial) if calls else ([], None)

    def _judge(self, stage: Stage, old: Step, steps: Sequence[Step]) -> Step | None:
        """Decide what follows from the recorded drafts; None if what is compared now was not measured."""
        evidence = _RecordedEvidence(self, stage, old, steps)
        try:
            decision, estimate = self.settings.decider.decide(stage, evidence)
        except _NotRecordedError:
            return None
        if decision.rule == "no_estimate" and evidence.incomplete:
            return None
        return old.model_copy(update={"decision": decision, "estimate": estimate})

    def _still_beaten(self, old: Step, steps: Sequence[Step]) -> bool:
        """Return whether the answer for which `old` was stopped (a hedge) would still be accepted."""
        for winner in self.result.trace:
            if _lost_to(old, winner):
                again = self.decide(winner.stage, [*steps, old])
                return again is not None and again.decision.action == "accept"
        return False

    def _same_time(self, old: Step, used: Spend) -> bool:
        """Return whether the calls of `old` would have ended as they did, with the time that is left now."""
        trace, limits = self.result.trace, self.settings.graph.limits
        before = spent(trace[: [step.stage for step in trace].index(old.stage)]).seconds
        left_then = math.inf if self.settings.seconds is None else self.settings.seconds - before
        left_now = math.inf if limits.seconds is None else limits.seconds - used.seconds
        if left_now < left_then:
            return all(call.error is not None or call.seconds <= left_now for call in old.calls)
        cut_off = old.seconds >= left_then and any(call.error is not None for call in old.calls)
        return left_now == left_then or not cut_off


class _RecordedAvailability:
    """What the record of a stage tells about its models."""

    def __init__(self, settings: ReplaySettings, request: Request, stage: Stage, old: Step | None) -> None:
        self._settings, self._request = settings, request
        self._reasons: dict[str, str] = {}
        self._left_out: set[str] = set()
        if old is None:
            return
        for fact in old.decision.facts:
            if isinstance(fact, Trial) and fact.refused in ("unavailable", "breaker_open"):
                self._reasons[fact.model] = fact.detail or "it could not be called"
        if old.decision.rule == "unavailable":
            facts = [fact for fact in old.decision.facts if isinstance(fact, UnavailableModel)]
            self._reasons |= {fact.model: fact.reason for fact in facts}
            self._reasons = self._reasons or dict.fromkeys(stage.ask, "it could not be called")
        asked = set(old.gate or {call.model for call in old.calls if call.role == "answer"})
        if asked.intersection(stage.ask):
            self._left_out = set(stage.ask) - asked

    def unavailable(self, name: str) -> str | None:
        """Return why model `name` could not be asked then, or None if it could, or was not tried."""
        return "it was not asked" if name in self._left_out else self._reasons.get(name)

    def broken(self, name: str) -> str | None:
        """Return None: breakers of that time tell nothing about a run of today."""
        return None

    def worst_cost(self, name: str) -> float:
        """Return the most that one call of model `name` may cost, in USD; 0 if no bound is known."""
        return self._settings.price(name, self._request) or 0.0


class _NotRecordedError(Exception):
    """The record lacks what the stage measures now."""


class _RecordedEvidence:
    """What the record of a stage says of its drafts.

    `incomplete` says that a live run might have measured more than the record tells.
    """

    def __init__(self, recorded: _Recorded, stage: Stage, old: Step, steps: Sequence[Step]) -> None:
        self._settings, self._stage, self._old, self._steps = recorded.settings, stage, old, steps
        self.prompt, self.run, self.calls = recorded.result.request.text, recorded.result.run, old.calls
        self.incomplete = False

    @property
    def _calibration(self) -> Calibration | None:
        return calibration_of(self._stage, self._settings.calibrations)

    def estimate(self) -> Estimate | None:
        """Return the recorded estimate by the stage's signal and calibration of today.

        A calibration never decreases and belongs to one model, so it leaves the draft with the best score
        best.

        Raises:
            _NotRecordedError: it was not measured then.
        """
        self._check_finished()
        check, old = self._stage.confidence, self._old.estimate
        if check is None:
            return None
        if old is None:
            if self._old.decision.rule == "unchecked":
                raise _NotRecordedError
            return None
        score = old.signals.get(check.signal_name) if old.by == check.by else None
        if score is None:
            raise _NotRecordedError
        score = min(1.0, max(0.0, score))
        if score != old.score and sum(call.role == "answer" for call in self.calls) > 1:
            raise _NotRecordedError  # by another signal, another draft might have been the best
        confidence = self._calibration.apply(score) if self._calibration else score
        update = {"score": score, "confidence": confidence, "calibrated": self._calibration is not None}
        return old.model_copy(update=update)

    def confidence_range(self, estimate: Estimate) -> tuple[float, float] | None:
        """Return the range of the confidence within the model's numerical noise; None if it has none."""
        check = self._stage.confidence
        if check is None:
            return None
        return bounds(check, estimate, self.calls[estimate.chosen], self._calibration)

    def measured_drafts(self) -> MeasuredDrafts:
        """Return what was measured on the drafts, as far as it was recorded.

        Raises:
            _NotRecordedError: a draft was stopped early, which a policy does not do.
        """
        self._check_finished()
        old = self._old.estimate
        drafts = [index for index, call in enumerate(self.calls) if call.role == "answer" and not call.error]
        noted = [index for index in drafts if measurement.MEASURED_KEY in self.calls[index].meta]
        judged = [] if old is None else [old.chosen]
        self.incomplete = not noted
        return MeasuredDrafts(
            chosen=next(iter([*noted, *judged, *drafts]), None),
            checked=None if old is None or old.by == "policy" else old,
            answers=measurement.answers([*self._steps, self._old]),
        )

    def _check_finished(self) -> None:
        """Make sure that no draft was stopped early that, written to its end, might be accepted now."""
        needed, compared = (
            self._settings.decider.required_confidence(self._stage),
            self._old.decision.threshold,
        )
        stopped = any(call.meta.get("finish_reason") == "early_exit" for call in self.calls)
        if stopped and (needed is None or needed < (compared or 1.0)):
            raise _NotRecordedError


def _as_then(trial: Trial | None, old: Step) -> Trial | None:
    """Return `trial`, or why its model was left out then where only that time could tell."""
    for fact in old.decision.facts:
        if (
            isinstance(fact, Trial)
            and trial is not None
            and (fact.part, fact.model) == (trial.part, trial.model)
            and fact.refused in ("unavailable", "breaker_open", "over_budget")
        ):
            return fact
    return trial


def _without_shadows(step: Step) -> Step:
    """Return `step` without what only its shadow left: it decided nothing."""
    facts = tuple(fact for fact in step.decision.facts if not isinstance(fact, Trial))
    calls = tuple(call for call in step.calls if call.role != "shadow")
    decision = step.decision.model_copy(update={"facts": facts})
    return step.model_copy(update={"calls": calls, "decision": decision})


def _lost_to(step: Step, winner: Step) -> bool:
    """Return whether `step` was stopped because of the answer of `winner`, a hedge."""
    return step.decision.rule == "hedged" and step.decision.to == winner.stage


def _outcome(graph: Graph, steps: Sequence[Step]) -> ReplayOutcome:
    fields = summarize(graph, steps)
    if fields["status"] == "abstained":
        return ReplayOutcome("abstained")
    return ReplayOutcome(fields["status"], fields["stage"], fields["tier"])


def _bounded(recorded: _Recorded, name: str, steps: tuple[Step, ...]) -> ReplayResult:
    """Return every end that the run could have had from stage `name` on, and what it could have cost."""
    result, graph, used = recorded.result, recorded.settings.graph, spent(steps)
    asked = result.trace[-1].decision.to if result.trace else graph.stages[0].name
    if result.status == "waiting" and asked == name:
        return ReplayResult(result.run, steps, (ReplayOutcome("waiting"),), used.cost_usd, used.cost_usd)
    reach = _Reach(recorded, used)
    more = reach.max_cost(name)
    nothing = Step(stage=name, decision=Decision(action="abstain", rule="no_draft"))
    ends = dict.fromkeys([*reach.ends, _outcome(graph, [*steps, nothing])])
    highest = None if more is None else used.cost_usd + more
    if graph.limits.cost_usd is not None:
        limit = max(graph.limits.cost_usd, used.cost_usd)
        highest = limit if highest is None else min(highest, limit)
    return ReplayResult(result.run, steps, tuple(ends), used.cost_usd, highest, name)


@dataclass
class _Reach:
    """How a run that has used `used` can end from some stage on; `costs` keeps what is known already."""

    recorded: _Recorded
    used: Spend
    ends: list[ReplayOutcome] = field(default_factory=list)
    costs: dict[str | None, float | None] = field(default_factory=lambda: {None: 0.0})

    def max_cost(self, name: str | None) -> float | None:
        """Note every end of a run that is at stage `name`; return the most that it can still cost."""
        if name is not None and name not in self.costs:
            graph = self.recorded.settings.graph
            stage, _ = self.recorded.drawn(name, self.used)
            if self.recorded.not_asked(stage, self.used):
                self.costs[name] = self.max_cost(graph.next_stage(name))
            else:
                self.costs[name] = self._called(stage)
        return self.costs[name]

    def _called(self, stage: Stage) -> float | None:
        settings, request = self.recorded.settings, self.recorded.result.request
        graph = settings.graph
        usable = [name for name in stage.ask if graph.models[name].local or not request.local_only]
        for name in usable:
            model = graph.models[name]
            self.ends.append(ReplayOutcome("accepted", stage.name, model.tier))
            if stage.confidence is not None and graph.on_exhausted == "best":
                self.ends.append(ReplayOutcome("best_effort", stage.name, model.tier))
            if model.is_person:
                self.ends.append(ReplayOutcome("waiting"))
        costs = {name: settings.price(name, request) for name in [*stage.gate_models, *usable]}
        after = [*((stage.gate and stage.gate.to) or {}).values(), graph.next_stage(stage.name)]
        rest = [self.max_cost(name) for name in after]
        known = [cost for cost in rest if cost is not None]
        if None in costs.values() or len(known) < len(rest):
            return None
        return worst_case(stage, usable, lambda name: costs[name] or 0.0).cost_usd + max(known)
