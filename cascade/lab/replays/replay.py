"""What stored runs would have become under other thresholds and limits. Calls no model.

The decisions are those of `cascade.policy`: the same functions that decide a live run, over the recorded
calls, scores and times. A stage that a run never called cannot be known: the run is `unknown` from there
on, and what could have happened is bounded, not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cascade.explain.reasons import SKIPPED
from cascade.lab.replays.tuned import decided_anew
from cascade.policy import tuned
from cascade.policy.artifact import Policy
from cascade.policy.budget import Spend, spent, worst_case
from cascade.policy.calibrate import Calibration
from cascade.policy.decide import admit, decide, route
from cascade.policy.result import summarize
from cascade.policy.tuned import MeasuredAnswer
from cascade.records import Call, Decision, Estimate, Request, Result, Step
from cascade.spec.gates import ClassifierGate
from cascade.spec.schema import AgreementConfidence, Graph, HumanModel, Stage

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
        answers: what the models answered in some steps, and what was measured then; needed with a policy.
    """

    graph: Graph
    seconds: float | None
    calibrations: Mapping[str, Calibration]
    price: Price
    policy: Policy | None = None
    answers: Callable[[Iterable[Step]], Mapping[str, MeasuredAnswer]] = lambda steps: {}


class Outcome(NamedTuple):
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
    outcomes: tuple[Outcome, ...]
    lowest: float
    highest: float | None
    unknown: str | None = None


def replay(result: Result, settings: ReplaySettings) -> ReplayResult:
    """Return what `result` would have become under `settings`.

    A model that the run did not try counts as available.
    """
    recorded = {step.stage: step for step in result.trace}
    steps: list[Step] = []
    name: str | None = settings.graph.stages[0].name
    while name is not None:
        step = _again(settings, result, settings.graph.stage(name), recorded.get(name), steps)
        if step is None:
            return _bounded(settings, result, name, tuple(steps))
        if step.decision.action == "accept":
            steps += [lost for lost in result.trace if _lost(lost, step) and lost not in steps]
        steps.append(step)
        name = step.decision.to
    cost = spent(steps).cost_usd
    return ReplayResult(result.run, tuple(steps), (_outcome(settings.graph, steps),), cost, cost)


def _again(
    settings: ReplaySettings, result: Result, stage: Stage, old: Step | None, steps: Sequence[Step]
) -> Step | None:
    """Decide `stage` anew from its recorded step `old`; None if that takes a call that was never made."""
    used = spent(steps)
    skipped = _passed_over(settings, result, stage)
    if skipped is not None:
        return Step(stage=stage.name, decision=skipped)
    refused = _refused(settings, result.request, stage, old, used)
    if refused is not None:
        return Step(stage=stage.name, decision=refused)
    if old is None or old.decision.rule in SKIPPED or not _same_time(settings, result, old, used):
        return None
    if old.decision.rule == "hedged":
        return old if _beaten(settings, result, old, steps) else None
    drafts = {call.model for call in old.calls if call.role == "answer"}
    if stage.gate is not None:
        turned = route(settings.graph, stage, old.gate)
        if turned is not None:
            gates = tuple(call for call in old.calls if call.role == "gate")
            return old.model_copy(update={"decision": turned, "calls": gates, "estimate": None})
        scores = old.gate or {}
        if drafts != set(sorted(scores, key=lambda name: -scores[name])[: stage.gate.top]):
            return None
    return _judged_anew(settings, result, stage, old, steps) if drafts else None


def _lost(step: Step, winner: Step) -> bool:
    return step.decision.rule == "hedged" and step.decision.to == winner.stage


def _beaten(settings: ReplaySettings, result: Result, old: Step, steps: Sequence[Step]) -> bool:
    """Return whether the answer for which `old` was stopped (a hedge) would still be accepted."""
    for winner in result.trace:
        if _lost(old, winner):
            again = _again(settings, result, settings.graph.stage(winner.stage), winner, [*steps, old])
            return again is not None and again.decision.action == "accept"
    return False


def _judged_anew(
    settings: ReplaySettings, result: Result, stage: Stage, old: Step, steps: Sequence[Step]
) -> Step | None:
    """Decide by the policy, or by the stage's own check; None if nobody measured then what is checked now."""
    if settings.policy is not None and tuned.stage_index(settings.policy, stage) is not None:
        return decided_anew(
            settings.policy, settings.graph, stage, result, old, settings.answers([*steps, old])
        )
    if stage.confidence is not None and old.decision.rule == "unchecked":
        return None
    stopped = any(call.meta.get("finish_reason") == "early_exit" for call in old.calls)
    if stopped and (stage.accept is None or stage.accept < (old.decision.threshold or 1.0)):
        return None  # written to its end, the draft might be accepted now
    estimate = old.estimate if stage.confidence is not None else None
    if estimate is not None:
        estimate = _judged(settings, stage, estimate, old.calls)
        if estimate is None:
            return None
    decision = decide(settings.graph, stage, old.calls, estimate, result.run)
    return old.model_copy(update={"decision": decision, "estimate": estimate})


def _passed_over(settings: ReplaySettings, result: Result, stage: Stage) -> Decision | None:
    if settings.policy is None:
        return None
    return tuned.skip(settings.policy, settings.graph, stage, result.request.text)


def _refused(
    settings: ReplaySettings, request: Request, stage: Stage, old: Step | None, used: Spend
) -> Decision | None:
    """Ask `admit` whether the stage may start, with what the record tells about its models."""
    models = settings.graph.models
    gate = [stage.gate.model] if isinstance(stage.gate, ClassifierGate) else []
    here = [name for name in stage.ask if models[name].local or not request.local_only]
    usable = here
    if old is not None and old.decision.rule not in SKIPPED and stage.ask:
        asked = old.gate or {call.model for call in old.calls if call.role == "answer"}
        usable = [name for name in here if name in asked]
    unavailable = []
    if old is not None and old.decision.rule == "unavailable":
        unavailable = [old.decision.detail or "no model of the stage could be called"]
    return admit(
        settings.graph,
        stage,
        request,
        remote=[*(name for name in gate if not models[name].local), *([] if here else stage.ask)],
        unavailable=unavailable,
        used=used,
        worst=worst_case(stage, gate, usable, lambda name: settings.price(name, request) or 0.0),
    )


def _same_time(settings: ReplaySettings, result: Result, old: Step, used: Spend) -> bool:
    """Return whether the calls of `old` would have ended as they did, with the time that is left now."""
    before = spent(result.trace[: result.trace.index(old)]).seconds
    left_then = math.inf if settings.seconds is None else settings.seconds - before
    limit = settings.graph.limits.seconds
    left = math.inf if limit is None else limit - used.seconds
    if left < left_then:
        return all(call.error is not None or call.seconds <= left for call in old.calls)
    cut_off = old.seconds >= left_then and any(call.error is not None for call in old.calls)
    return left == left_then or not cut_off


def _judged(
    settings: ReplaySettings, stage: Stage, estimate: Estimate, calls: Sequence[Call]
) -> Estimate | None:
    """Return `estimate` by the stage's signal and calibration of today; None if the record cannot tell.

    A calibration never decreases and belongs to one model, so it leaves the draft with the best score best.
    """
    check = stage.confidence
    if check is None or estimate.by != check.by:
        return None
    score = estimate.signals.get("agreement" if isinstance(check, AgreementConfidence) else check.signal)
    if score is None:
        return None
    score = min(1.0, max(0.0, score))
    if score != estimate.score and sum(call.role == "answer" for call in calls) > 1:
        return None  # another signal: another draft might have been the best
    calibration = settings.calibrations.get(stage.name)
    return estimate.model_copy(
        update={
            "score": score,
            "confidence": calibration.apply(score) if calibration else score,
            "calibrated": calibration is not None,
        }
    )


def _outcome(graph: Graph, steps: Sequence[Step]) -> Outcome:
    fields = summarize(graph, steps)
    if fields["status"] == "abstained":
        return Outcome("abstained")
    return Outcome(fields["status"], fields["stage"], fields["tier"])


def _bounded(settings: ReplaySettings, result: Result, name: str, steps: tuple[Step, ...]) -> ReplayResult:
    """Return every end that the run could have had from stage `name` on, and what it could have cost."""
    used = spent(steps)
    asked = result.trace[-1].decision.to if result.trace else settings.graph.stages[0].name
    if result.status == "waiting" and asked == name:
        return ReplayResult(result.run, steps, (Outcome("waiting"),), used.cost_usd, used.cost_usd)
    reach = _Reach(settings, result, used)
    more = reach.most(name)
    nothing = Step(stage=name, decision=Decision(action="abstain", rule="no_draft"))
    ends = dict.fromkeys([*reach.ends, _outcome(settings.graph, [*steps, nothing])])
    limit = settings.graph.limits.cost_usd
    highest = None if more is None else used.cost_usd + more
    if limit is not None:
        most = max(limit, used.cost_usd)
        highest = most if highest is None else min(highest, most)
    return ReplayResult(result.run, steps, tuple(ends), used.cost_usd, highest, name)


@dataclass
class _Reach:
    """How a run that has used `used` can end from some stage on; `found` keeps what is done."""

    settings: ReplaySettings
    result: Result
    used: Spend
    ends: list[Outcome] = field(default_factory=list)
    found: dict[str | None, float | None] = field(default_factory=lambda: {None: 0.0})

    def most(self, name: str | None) -> float | None:
        """Note every end of a run that is at stage `name`; return the most that it can still cost."""
        if name is not None and name not in self.found:
            stage = self.settings.graph.stage(name)
            old = next((step for step in self.result.trace if step.stage == name), None)
            skipped = _passed_over(self.settings, self.result, stage)
            if skipped or _refused(self.settings, self.result.request, stage, old, self.used):
                self.found[name] = self.most(self.settings.graph.next_stage(name))
            else:
                self.found[name] = self._called(stage)
        return self.found[name]

    def _called(self, stage: Stage) -> float | None:
        graph, request = self.settings.graph, self.result.request
        gate = [stage.gate.model] if isinstance(stage.gate, ClassifierGate) else []
        usable = [name for name in stage.ask if graph.models[name].local or not request.local_only]
        for name in usable:
            model = graph.models[name]
            self.ends.append(Outcome("accepted", stage.name, model.tier))
            if stage.confidence is not None and graph.on_exhausted == "best":
                self.ends.append(Outcome("best_effort", stage.name, model.tier))
            if isinstance(model, HumanModel):
                self.ends.append(Outcome("waiting"))
        costs = {name: self.settings.price(name, request) for name in [*gate, *usable]}
        after = [*((stage.gate and stage.gate.to) or {}).values(), graph.next_stage(stage.name)]
        rest = [self.most(name) for name in after]
        known = [cost for cost in rest if cost is not None]
        if None in costs.values() or len(known) < len(rest):
            return None
        return worst_case(stage, gate, usable, lambda name: costs[name] or 0.0).cost_usd + max(known)
