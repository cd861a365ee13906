"""A stage at work on one request: admit, gate, ask, estimate, decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cascade import confidence, gates
from cascade.confidence import measurement, validity
from cascade.confidence.noise import bounds, mark
from cascade.graph.ask import Attempt, ask, worst_cost
from cascade.graph.plan import Plan
from cascade.graph.stage_budget import StageBudget
from cascade.models.base import Model, OnText, Reply, StopEarly, deployments
from cascade.policy import tuned
from cascade.policy.artifact import Policy
from cascade.policy.budget import Spend, worst_case
from cascade.policy.decide import admit, decide, over_budget, route
from cascade.policy.early_exit import EarlyExit
from cascade.records import Call, Decision, Estimate, Request, Step
from cascade.spec.gates import ClassifierGate
from cascade.spec.schema import LogprobConfidence, Stage

_CLOSED = "model {!r} answers with its labels only; the request asks for JSON or offers tools"


@dataclass
class StageRun:
    """A stage at work on one request; `calls[i]` and `replies[i]` belong together.

    A call is there as soon as it has ended, cancelled ones too.
    """

    plan: Plan
    stage: Stage
    request: Request
    used: Spend
    deadline: float | None
    run: str | None
    began: float
    before: Sequence[Step] = ()
    start: float = field(default_factory=time.perf_counter)
    calls: list[Call] = field(default_factory=list)
    replies: list[Reply | None] = field(default_factory=list)
    scores: dict[str, float] | None = None
    estimate: Estimate | None = None

    def __post_init__(self) -> None:
        self.budget = StageBudget(self.plan.graph, self.request, self.used, self.plan.book, self.run)

    async def decide(self, on_text: OnText | None) -> Decision:
        """Admit, gate, ask, estimate, decide."""
        policy = self.plan.policy
        skipped = policy and tuned.skip(policy, self.plan.graph, self.stage, self.request.text)
        if skipped:
            return skipped
        usable, worst, refused = self._usable()
        if refused is not None:
            return refused
        try:
            shortfall = await self.budget.reserve(worst)
            if shortfall is not None:
                return over_budget(self.plan.graph, self.stage, shortfall)
            return await self._work(usable, on_text)
        finally:
            self.budget.settle(self.calls)

    def admission(self) -> Decision | None:
        """Return the decision that the stage may not start now, or None if it may."""
        return self._usable()[2]

    def step(self, decision: Decision) -> Step:
        """Return the step that the stage has come to."""
        why = self.plan.tightened.get(self.stage.name)
        if why and decision.threshold is not None:
            decision = decision.model_copy(update={"detail": "; ".join(filter(None, (decision.detail, why)))})
        return Step(
            stage=self.stage.name,
            decision=decision,
            gate=self.scores,
            calls=tuple(self.calls),
            estimate=self.estimate,
            started=self.start - self.began,
            seconds=time.perf_counter() - self.start,
        )

    async def _work(self, usable: list[str], on_text: OnText | None) -> Decision:
        gate = self.stage.gate
        if gate is not None:
            candidates = list(gate.to) if gate.to else usable
            self.scores = await gates.score(gate, candidates, self.request.text, self._ask_gate)
            turned = route(self.plan.graph, self.stage, self.scores)
            if turned is not None:
                return turned
            usable = sorted(usable, key=lambda name: -(self.scores or {})[name])[: gate.top]
        await self._draft(usable, on_text)
        policy = self.plan.policy
        if policy is not None and tuned.stage_index(policy, self.stage) is not None:
            return self._decide_by_policy(policy)
        trouble = self._estimate()
        decision = decide(self.plan.graph, self.stage, self.calls, self.estimate, self.run)
        decision = mark(decision, self._bounds())
        return decision.model_copy(update={"detail": trouble}) if trouble else decision

    def _gate(self) -> list[str]:
        return [self.stage.gate.model] if isinstance(self.stage.gate, ClassifierGate) else []

    def _usable(self) -> tuple[list[str], Spend, Decision | None]:
        """Return the stage's models that may be asked now, what they may cost, or why none may."""
        models, ask_names, gate = self.plan.models, self.stage.ask, self._gate()
        here = [name for name in ask_names if models[name].local or not self.request.local_only]
        missing = {name: self.plan.unavailable(name) for name in [*gate, *here]}
        if validity.needs_words(self.request):
            closed = {name: _CLOSED.format(name) for name in here if models[name].closed}
            missing |= {name: missing[name] or why for name, why in closed.items()}
        broken = {name: None if missing[name] else self.plan.broken(name) for name in [*gate, *here]}
        usable = [name for name in here if missing[name] is None and broken[name] is None]
        needed = gate if usable or not ask_names else [*gate, *here]
        worst = worst_case(self.stage, gate, usable, lambda name: worst_cost(models[name], self.request))
        refused = admit(
            self.plan.graph,
            self.stage,
            self.request,
            remote=[*(name for name in gate if not models[name].local), *([] if here else ask_names)],
            unavailable=[reason for name in needed if (reason := missing[name])],
            broken=[reason for name in needed if (reason := broken[name])],
            used=self.used,
            worst=worst,
        )
        return usable, worst, refused

    async def _ask_gate(self, name: str) -> Reply | None:
        attempts: list[Attempt] = []
        try:
            await self._ask_any(name, attempts, role_gate=True)
        finally:
            self._record(attempts)
        return attempts[-1].reply

    async def _draft(self, names: Sequence[str], on_text: OnText | None) -> None:
        """Ask every model of `names`, each `samples` times, all at once."""
        samples = self.stage.samples
        unchecked = self.stage.confidence is None and len(names) == samples == 1
        # An answer that may turn out to be invalid is never shown before it is accepted.
        unchecked = unchecked and not validity.demanded(self.request)
        if self.plan.policy is not None:
            unchecked = unchecked and tuned.streams(self.plan.policy, self.stage) is not False
        attempts: list[list[Attempt]] = [[] for _ in range(samples * len(names))]
        todo = [
            self._ask_any(name, attempts[place * samples + sample], sample, on_text if unchecked else None)
            for place, name in enumerate(names)
            for sample in range(samples)
        ]
        try:
            await (todo[0] if len(todo) == 1 else asyncio.gather(*todo))  # one needs no task of its own
        finally:  # in the order of the models and samples, whichever ended first
            for found in attempts:
                self._record(found)

    async def _ask_any(
        self,
        name: str,
        attempts: list[Attempt],
        sample: int = 0,
        on_text: OnText | None = None,
        *,
        role_gate: bool = False,
    ) -> None:
        """Ask a model, and where an endpoint fails, the next equal one; `attempts` gets every call."""
        endpoints = self.plan.endpoints(name)
        said: list[str] = []  # what has been handed over cannot be taken back

        def live(piece: str) -> None:
            said.append(piece)
            if on_text is not None:
                on_text(piece)

        for number, (model, guard) in enumerate(endpoints, start=1):
            await ask(
                model,
                self.request,
                role="gate" if role_gate else "answer",
                sample=sample,
                seconds=self._left(),
                on_text=None if on_text is None else live,
                guard=guard,
                record=attempts.append,
                began=self.began,
                stop_early=None if role_gate else self._stop_early(name),
            )
            last = attempts[-1] = _noted(attempts[-1], model, self._most(name))
            ended = not last.fell or number == len(endpoints) or said or self._left() == 0.0
            if ended or not await self.budget.reserve_retry(last.call):
                return

    def _most(self, name: str) -> int | None:
        most: int | None = getattr(self.plan.graph.models.get(name), "max_tokens", None)
        return most

    def _stop_early(self, name: str) -> StopEarly | None:
        """Return what stops a draft of this stage that can no longer be accepted, where that can be known."""
        check, accept = self.stage.confidence, self.stage.accept
        config, most = self.plan.graph.models.get(name), self._most(name)
        policy = self.plan.policy
        if policy is not None and tuned.stage_index(policy, self.stage) is not None:
            return None  # it judges by more than the running statistics
        # The tokens of a stop string are cut off again: they count now, and not in the end.
        if not self.stage.early_exit or most is None or getattr(config, "stop", None):
            return None
        if not isinstance(check, LogprobConfidence) or accept is None:
            return None
        calibration = self.plan.calibrations.get(self.stage.name)
        return EarlyExit(signal=check.signal, accept=accept, calibration=calibration, max_tokens=most)

    def _estimate(self) -> str | None:
        """Measure the confidence of the drafts; return what went wrong, if anything did."""
        check = self.stage.confidence
        if check is None:
            return None
        calibration = self.plan.calibrations.get(self.stage.name)
        try:
            self.estimate = confidence.estimate(check, self.calls, self.replies, calibration)
        except Exception as failure:  # noqa: BLE001 - an estimator that raises fails closed: rule no_estimate
            return f"confidence by {check.by}: {type(failure).__name__}: {failure}"
        return None

    def _bounds(self) -> tuple[float, float] | None:
        """The range of the confidence within the model's numerical noise."""
        check, estimate = self.stage.confidence, self.estimate
        if check is None or estimate is None:
            return None
        calibration = self.plan.calibrations.get(self.stage.name)
        return bounds(check, estimate, self.calls[estimate.chosen], calibration)

    def _decide_by_policy(self, policy: Policy) -> Decision:
        """Measure the drafts, note what was measured for later stages, and let the policy decide."""
        trouble, found = None, None
        try:
            calibration = self.plan.calibrations.get(self.stage.name)
            found = measurement.measured(self.stage.confidence, self.calls, self.replies, calibration)
        except Exception as failure:  # noqa: BLE001 - an estimator that raises fails closed: nothing is measured
            trouble = f"{type(failure).__name__}: {failure}"
        if found is not None:
            self.calls[found.chosen] = measurement.noted(self.calls[found.chosen], found)
        here = Step(stage=self.stage.name, decision=Decision(action="escalate", rule="no_draft"))
        here = here.model_copy(update={"calls": tuple(self.calls)})
        decision, self.estimate = tuned.decide_by_policy(
            policy,
            self.plan.graph,
            self.stage,
            prompt=self.request.text,
            answers=measurement.answers([*self.before, here]),
            chosen=None if found is None else found.chosen,
            calls=self.calls,
            checked=None if found is None else found.judged,
            run=self.run,
        )
        return decision.model_copy(update={"detail": trouble}) if trouble else decision

    def _record(self, attempts: Sequence[Attempt]) -> None:
        self.calls += [attempt.call for attempt in attempts]
        self.replies += [attempt.reply for attempt in attempts]

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())


def _noted(attempt: Attempt, model: Model, most: int | None) -> Attempt:
    """Return `attempt` with the endpoint asked, of several, and the tokens that a stop spared at most."""
    notes: dict[str, object] = {}
    if len(deployments(model)) > 1:
        notes["endpoint"] = getattr(model, "place", "")
    meta = attempt.call.meta
    if most is not None and meta.get("finish_reason") == "early_exit":
        notes["spared_tokens_at_most"] = meta.get("spared_tokens_at_most", most - attempt.call.tokens_out)
    if not notes:
        return attempt
    return attempt._replace(call=attempt.call.model_copy(update={"meta": {**meta, **notes}}))
