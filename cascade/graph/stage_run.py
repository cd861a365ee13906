"""A stage at work on one request: admit, gate, ask, measure, decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.errors import GraphBubbleUp

from cascade import confidence
from cascade.confidence import measurement, validity
from cascade.confidence.noise import bounds
from cascade.errors import PrivacyError
from cascade.formats.plain import valid_unicode
from cascade.graph.ask import Attempt, ask, worst_cost
from cascade.graph.plan import Plan
from cascade.graph.shadow import Shadow
from cascade.graph.stage_budget import StageBudget
from cascade.models.base import Model, OnText, Reply, StopEarly, deployments
from cascade.policy.admission import Admission, admission
from cascade.policy.budget import Spend
from cascade.policy.calibrate import Calibration
from cascade.policy.decide import move_on, no_answer, over_budget, route
from cascade.policy.decider import MeasuredDrafts
from cascade.policy.early_exit import EarlyExit
from cascade.policy.trials import calibration_of, draw_canary, draw_shadow, noted
from cascade.records import Call, Decision, Estimate, Request, Step, Trial
from cascade.spec.kinds import GateSettings, Measured
from cascade.spec.schema import Stage

_CLOSED = "model {!r} answers with its labels only; the request asks for JSON or offers tools"


@dataclass
class StageRun:
    """A stage at work on one request; `calls[i]` and `replies[i]` belong together.

    A call is appended as soon as it has ended, whether it was answered, failed or was cancelled. `stage` is
    the stage as this run asks it: `canary` says so where the canary answers in place of its own model.
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
    measured: Measured | Exception = field(default_factory=list)
    estimate: Estimate | None = None
    canary: Trial | None = None
    shadow: Shadow | None = None

    def __post_init__(self) -> None:
        self.budget = StageBudget(self.plan.graph, self.request, self.used, self.plan.book, self.run)
        self.stage, self.canary = draw_canary(
            self.plan.graph, self.stage, self.request, self.used, self.run, self._availability
        )

    async def decide(self, on_text: OnText | None) -> Decision:
        """Admit, gate, ask, measure, decide."""
        skipped = self.plan.decider.skip(self.stage, self.request.text)
        if skipped is not None:
            return skipped
        usable, worst, refusal = self.admission()
        if refusal is not None:
            return refusal
        try:
            shortfall = await self.budget.reserve(worst)
            if shortfall is not None:
                return over_budget(self.plan.graph, self.stage, shortfall)
            self._start_shadow()
            return await self._work(usable, on_text)
        except BaseException:
            if self.shadow is not None:
                self.shadow.cancel()
            raise
        finally:
            self.budget.settle(self.calls)

    def admission(self) -> Admission:
        """Return which models the stage can ask now, what it may spend, and whether it may start."""
        models = self._availability(self.stage)
        return admission(self.plan.graph, self.stage, self.request, self.used, models)

    def _availability(self, stage: Stage) -> _LiveAvailability:
        return _LiveAvailability(self.plan, stage, self.request)

    def _start_shadow(self) -> None:
        """Ask the stage's shadow beside it, if this run is drawn and the limits hold both."""
        drawn = draw_shadow(
            self.plan.graph, self.stage, self.request, self.used, self.run, self._availability
        )
        if drawn is None:
            return
        trial, admitted = drawn
        self.shadow = Shadow(self.plan, self.stage, self.request, trial, admitted.worst, self.run, self.began)
        if trial.refused is None:
            self.shadow.start(self._seconds_left())

    def step(self, decision: Decision) -> Step:
        """Return the stage's step of the trace, as far as it has come."""
        raised = self.plan.tightened.get(self.stage.name)
        written = self.plan.graph.stage(self.stage.name).accept  # a canary may have a threshold of its own
        if raised is not None and decision.threshold is not None and self.stage.accept == written:
            decision = decision.model_copy(update={"facts": (*decision.facts, raised)})
        if self.calls:
            decision = noted(decision, [self.canary])
        step = Step(
            stage=self.stage.name,
            decision=decision,
            gate=self.scores,
            calls=tuple(self.calls),
            estimate=self.estimate,
            started=self.start - self.began,
            seconds=time.perf_counter() - self.start,
        )
        return step if self.shadow is None else self.shadow.noted(step)

    async def _work(self, usable: list[str], on_text: OnText | None) -> Decision:
        if self.stage.gate is not None:
            picked = await self._pick(self.stage.gate, usable)
            if isinstance(picked, Decision):
                return picked
            usable = picked
        await self._draft(usable, on_text)
        await self._judge()
        return self._decided()

    async def _pick(self, gate: GateSettings, usable: list[str]) -> list[str] | Decision:
        """Return the models that the gate picks, or what follows from its scores."""
        candidates = list(gate.to) if gate.to else usable
        try:
            scores = await gate.score(candidates, self.request.text, self._ask_gate)
            self.scores = {name: float(scores[name]) for name in candidates} if scores else None
        except (GraphBubbleUp, PrivacyError):
            raise
        except Exception as error:  # noqa: BLE001 - a gate that raises fails closed: rule gate_failed
            return move_on(self.plan.graph, self.stage, "gate_failed", _said(error))
        routed = route(self.plan.graph, self.stage, self.scores)
        if routed is not None:
            return routed
        return sorted(usable, key=lambda name: -(self.scores or {})[name])[: gate.top]

    async def _judge(self) -> None:
        """Let the stage's check measure the drafts; whatever it raises is kept as its error."""
        check = self.stage.confidence
        if check is None:
            return
        try:
            self.measured = await confidence.judge(check, self.request.text, self.calls, self.replies)
        except Exception as error:  # noqa: BLE001 - a check that raises fails closed: rule no_estimate
            self.measured = error

    def _decided(self) -> Decision:
        """Return what the decider makes of the answers."""
        evidence = _LiveEvidence(self)
        try:
            decision, self.estimate = self.plan.decider.decide(self.stage, evidence)
        except Exception as error:  # noqa: BLE001 - a decider that raises fails closed: no answer is accepted
            self.estimate = None
            unanswered = no_answer(self.plan.graph, self.stage, self.calls)
            return unanswered or move_on(
                self.plan.graph, self.stage, "no_estimate", f"deciding: {_said(error)}"
            )
        return decision.model_copy(update={"detail": evidence.error}) if evidence.error else decision

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
        if not self._may_stream(names):
            on_text = None
        attempts: list[list[Attempt]] = [[] for _ in range(samples * len(names))]
        drafts = [
            self._ask_any(name, attempts[index * samples + sample], sample, on_text)
            for index, name in enumerate(names)
            for sample in range(samples)
        ]
        try:
            await (drafts[0] if len(drafts) == 1 else _all(drafts))  # one needs no task of its own
        finally:  # in the order of the models and samples, whichever ended first
            for each in attempts:
                self._record(each)

    def _may_stream(self, names: Sequence[str]) -> bool:
        """Return whether what is written will be accepted; an answer that may prove invalid may not be."""
        alone = len(names) == self.stage.samples == 1
        return alone and self.plan.decider.accepts_all(self.stage) and not validity.demanded(self.request)

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
        streamed: list[str] = []  # what has been handed over cannot be taken back

        def stream(piece: str) -> None:
            streamed.append(piece)
            if on_text is not None:
                on_text(piece)

        for number, (model, guard) in enumerate(endpoints, start=1):
            call, _ = await ask(
                model,
                self.request,
                role="gate" if role_gate else "answer",
                sample=sample,
                seconds=self._seconds_left(),
                on_text=None if on_text is None else stream,
                guard=guard,
                record=attempts.append,
                began=self.began,
                stop_early=None if role_gate else self._stop_early(name),
            )
            last = _annotated(attempts[-1]._replace(call=call), model, self._max_tokens(name))
            attempts[-1] = last
            ended = (
                not last.endpoint_failed
                or number == len(endpoints)
                or streamed
                or self._seconds_left() == 0.0
            )
            if ended or not await self.budget.reserve_retry(last.call):
                return

    def _max_tokens(self, name: str) -> int | None:
        max_tokens: int | None = getattr(self.plan.graph.models.get(name), "max_tokens", None)
        return max_tokens

    def _stop_early(self, name: str) -> StopEarly | None:
        """Return what stops a draft of this stage that can no longer be accepted, where that can be known."""
        config, max_tokens = self.plan.graph.models.get(name), self._max_tokens(name)
        # The tokens of a stop string are cut off again: they count now, and not in the end.
        if not self.stage.early_exit or max_tokens is None or getattr(config, "stop", None):
            return None
        check, accept = self.stage.confidence, self.plan.decider.required_confidence(self.stage)
        signal = None if check is None else check.early_exit_signal
        if signal is None or accept is None:
            return None
        calibration = calibration_of(self.stage, self.plan.calibrations)
        return EarlyExit(signal=signal, accept=accept, calibration=calibration, max_tokens=max_tokens)

    def _record(self, attempts: Sequence[Attempt]) -> None:
        self.calls += [attempt.call for attempt in attempts]
        self.replies += [attempt.reply for attempt in attempts]

    def _seconds_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())


class _LiveAvailability:
    """What the models themselves say of whether they can be called for a request."""

    def __init__(self, plan: Plan, stage: Stage, request: Request) -> None:
        self._plan, self._request = plan, request
        self._need_words = stage.ask if validity.needs_words(request) else ()

    def unavailable(self, name: str) -> str | None:
        """Return why model `name` cannot be called now, or None if it can."""
        reason = self._plan.unavailable(name)
        if reason is None and name in self._need_words and self._plan.models[name].closed:
            return _CLOSED.format(name)
        return reason

    def broken(self, name: str) -> str | None:
        """Return why model `name` is left alone for a while, or None if it is not."""
        return self._plan.broken(name)

    def worst_cost(self, name: str) -> float:
        """Return the most that one call of model `name` may cost, in USD."""
        return worst_cost(self._plan.models[name], self._request)


class _LiveEvidence:
    """What the replies of a stage say, measured when a decider asks; `error` is why that failed."""

    def __init__(self, stage_run: StageRun) -> None:
        self._of = stage_run
        self.prompt, self.run, self.calls = stage_run.request.text, stage_run.run, stage_run.calls
        self.error: str | None = None

    @property
    def _calibration(self) -> Calibration | None:
        return calibration_of(self._of.stage, self._of.plan.calibrations)

    def estimate(self) -> Estimate | None:
        """Return the draft that the stage's check chooses and its confidence; None if that is not known."""
        check = self._of.stage.confidence
        if check is None:
            return None
        measured = self._of.measured
        try:
            if not isinstance(measured, Exception):
                return confidence.estimate(check, measured, self._calibration)
        except Exception as error:  # noqa: BLE001 - an estimator that raises fails closed: rule no_estimate
            measured = error
        self.error = f"confidence by {check.by}: {_said(measured)}"
        return None

    def confidence_range(self, estimate: Estimate) -> tuple[float, float] | None:
        """Return the range of the confidence within the model's numerical noise; None if it has none."""
        check = self._of.stage.confidence
        if check is None:
            return None
        try:
            return bounds(check, estimate, self.calls[estimate.chosen], self._calibration)
        except Exception as error:  # noqa: BLE001 - nothing is known of the noise, then
            self.error = f"noise of {check.by}: {_said(error)}"
            return None

    def measured_drafts(self) -> MeasuredDrafts:
        """Measure the drafts, and note it in the chosen call for later stages and replays."""
        earlier, judged = measurement.answers(self._of.before), self.estimate()
        try:
            measured = measurement.measured(self.calls, self._of.replies, judged) if not self.error else None
        except Exception as error:  # noqa: BLE001 - an estimator that raises fails closed: nothing is measured
            self.error = _said(error)
            measured = None
        if measured is None:
            return MeasuredDrafts(None, None, earlier)
        call = self.calls[measured.chosen] = measurement.noted(self.calls[measured.chosen], measured)
        return MeasuredDrafts(
            measured.chosen, measured.judged, {**earlier, call.model: measured.answer(call.text)}
        )


def _said(error: Exception) -> str:
    return valid_unicode(f"{type(error).__name__}: {error!s:.1000}")


async def _all(drafts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Await all; if one raises, cancel the others and wait until their calls are recorded, too."""
    tasks = [asyncio.ensure_future(draft) for draft in drafts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _annotated(attempt: Attempt, model: Model, max_tokens: int | None) -> Attempt:
    """Return `attempt` with the endpoint asked, of several, and a bound of the tokens that a stop spared."""
    notes: dict[str, object] = {}
    if len(deployments(model)) > 1:
        notes["endpoint"] = getattr(model, "place", "")
    meta = attempt.call.meta
    if max_tokens is not None and meta.get("finish_reason") == "early_exit":
        spared = max_tokens - attempt.call.tokens_out
        notes["spared_tokens_at_most"] = meta.get("spared_tokens_at_most", spared)
    if not notes:
        return attempt
    return attempt._replace(call=attempt.call.model_copy(update={"meta": {**meta, **notes}}))
