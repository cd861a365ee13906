"""Collects what explains a run: for each step what was compared, and what would have changed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from cascade.explain._records import (
    SKIPPED,
    AnswerSummary,
    BaselineComparison,
    CallSummary,
    Comparison,
    DraftSummary,
    Effect,
    Explanation,
    Saved,
    Scored,
    Setting,
    Spared,
    StepExplanation,
    WhatIf,
    compare,
)
from cascade.records import BudgetShortfall, Call, LimitShortfall, Result, Rule, Step
from cascade.spec.schema import Graph, Stage

_MAX_ALTERNATIVES = 5  # labels beside the answer
_MIN_PROBABILITY = 0.001  # of such a label
_LIMITS: dict[Rule, Setting] = {
    "over_cost": "limits.cost_usd",
    "over_calls": "limits.calls",
    "over_seconds": "limits.seconds",
}


def explain(result: Result, graph: Graph | None = None) -> Explanation:
    """Return why each stage of a run decided as it did, and what would have changed that.

    Args:
        result: the run.
        graph: the graph it ran on, to name what was not reached; everything else is in the trace.
    """
    calls = [call for step in result.trace for call in step.calls]
    visited = {step.stage for step in result.trace}
    waits_at, asks = (result.stage, result.model) if result.question is not None else (None, None)
    stages = graph.stages if graph is not None and result.trace else []
    return Explanation(
        run=result.run,
        graph=result.graph,
        started=result.started,
        status=result.status,
        rule=result.rule,
        request=result.request.text,
        local_only=result.request.local_only,
        question=result.question,
        waits_at=waits_at,
        asks=asks,
        answered=result.text is not None,
        answer=_answer(result),
        steps=tuple(_step(StepContext(result, index, graph)) for index in range(len(result.trace))),
        cost_usd=result.cost_usd,
        seconds=result.seconds,
        calls=len(calls),
        remote_calls=sum(not call.local for call in calls),
        baseline=_baseline(result),
        not_reached=tuple(stage.name for stage in stages if stage.name not in visited | {waits_at}),
    )


@dataclass(frozen=True)
class StepContext:
    """A step of a run, with the graph it ran on if that is known."""

    result: Result
    index: int
    graph: Graph | None

    @property
    def step(self) -> Step:
        """The step itself."""
        return self.result.trace[self.index]

    @property
    def stage(self) -> Stage | None:
        """The step's stage in the graph; None if the graph is unknown or has no such stage."""
        stages = self.graph.stages if self.graph else []
        return next((stage for stage in stages if stage.name == self.step.stage), None)

    @property
    def asked(self) -> tuple[str, ...]:
        """The models of the stage; empty if they are not known."""
        return tuple(self.stage.ask) if self.stage else ()

    @property
    def draft(self) -> Call | None:
        """The draft that was judged, or would have been."""
        judged = _judged(self.step)
        if judged is not None:
            return judged
        drafts = [call for call in self.step.calls if call.role == "answer" and call.error is None]
        return drafts[0] if drafts else None


def _judged(step: Step) -> Call | None:
    estimate = step.estimate
    return step.calls[estimate.chosen] if estimate and estimate.chosen < len(step.calls) else None


def _answer(result: Result) -> AnswerSummary | None:
    answered = result.status in ("accepted", "best_effort")
    if not answered and result.draft is None:
        return None
    return AnswerSummary(
        text=result.text if answered else result.draft,
        draft=not answered,
        model=result.model,
        tier=result.tier,
        stage=result.stage,
        confidence=result.confidence,
        calibrated=bool(result.calibrated),
    )


def _baseline(result: Result) -> BaselineComparison | None:
    baseline = result.baseline
    if baseline is None or baseline.by == "bound":
        return None
    low, high = baseline.low_usd, baseline.high_usd
    return BaselineComparison(
        model=baseline.model,
        cost_usd=baseline.cost_usd,
        saved_usd=baseline.cost_usd - result.cost_usd,
        assumption=baseline.assumption,
        by=baseline.by,
        calls=baseline.calls,
        low_usd=low,
        high_usd=high,
        saved_low_usd=None if low is None else low - result.cost_usd,
        saved_high_usd=None if high is None else high - result.cost_usd,
    )


def _step(context: StepContext) -> StepExplanation:
    step, decision, result, stage = context.step, context.step.decision, context.result, context.stage
    comparison = compare(step)
    check = stage.confidence if stage and decision.rule == "no_estimate" else None
    return StepExplanation(
        number=context.index + 1,
        stage=step.stage,
        action=decision.action,
        rule=decision.rule,
        to=decision.to,
        skipped=decision.rule in SKIPPED,
        gate=_ranked((step.gate or {}).items()),
        calls=tuple(_call(call, judged=call is _judged(step)) for call in step.calls),
        estimate=step.estimate,
        alternatives=_alternatives(step),
        comparison=comparison,
        threshold=decision.threshold,
        marginal=decision.marginal,
        facts=decision.facts,
        detail=decision.detail,
        unmeasured=check.by if check else None,
        spared=_spared(step) if decision.rule == "early_exit" else None,
        stands=decision.rule == "audit" and result.rule == "audit" and result.stage == step.stage,
        what_if=_WHAT_IFS[decision.rule](context, comparison),
    )


def _call(call: Call, *, judged: bool) -> CallSummary:
    return CallSummary(
        model=call.model, tier=call.tier, role=call.role, sample=call.sample, text=call.text,
        error=call.error, cost_usd=call.cost_usd, seconds=call.seconds, local=call.local, judged=judged,
        truncated=call.truncated, thinking=call.thinking,
    )  # fmt: skip


def _ranked(scores: Iterable[tuple[str, float]]) -> tuple[Scored, ...]:
    return tuple(Scored(name=name, score=score) for name, score in sorted(scores, key=lambda item: -item[1]))


def _alternatives(step: Step) -> tuple[Scored, ...]:
    judged = _judged(step)
    labels = {} if judged is None else judged.labels or {}
    others = [
        (name, value)
        for name, value in labels.items()
        if judged is not None and name != judged.text and value >= _MIN_PROBABILITY
    ]
    return _ranked(others)[:_MAX_ALTERNATIVES]


def _spared(step: Step) -> Spared:
    stopped = [call for call in step.calls if call.meta.get("finish_reason") == "early_exit"]
    return Spared(
        written=sum(call.tokens_out for call in stopped),
        tokens=_total(stopped, "spared_tokens_at_most"),
        seconds=_total(stopped, "spared_seconds_at_most"),
    )


def _total(calls: Iterable[Call], key: str) -> float:
    values = [call.meta.get(key) for call in calls]
    return sum(value for value in values if isinstance(value, int | float))


def _saved(context: StepContext) -> Saved:
    """Return what the steps after this one used."""
    later = context.result.trace[context.index + 1 :]
    calls = [call for step in later for call in step.calls]
    return Saved(
        calls=len(calls),
        tiers=tuple(dict.fromkeys(call.tier for call in calls)),
        cost_usd=sum(call.cost_usd for call in calls),
        seconds=sum(step.seconds for step in later),
    )


def _going_on(
    context: StepContext, setting: Setting, bound: Literal["above", "at_most"], compared: Comparison | None
) -> WhatIf:
    """Return where the request would have gone without this decision, on the other side of `compared`."""
    effect: Effect = "unknown_next"
    target = None
    if context.graph is not None and context.stage is not None:
        target = context.graph.next_stage(context.step.stage)
        effect = "next_stage" if target else "nothing_accepted"
    if compared is None:
        return WhatIf(setting=setting, effect=effect, to=target)
    value, now = compared.value, compared.threshold
    return WhatIf(setting=setting, effect=effect, bound=bound, value=value, now=now, to=target)


def _confident(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    if compared is not None and compared.measure == "score":
        return _policy_accept(context, compared)
    if compared is None or compared.value >= 1:
        return None
    return _going_on(context, "accept", "above", compared)


def _audit(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    if context.result.rule == "audit" and context.result.stage == context.step.stage:
        return None
    return WhatIf(setting="audit_rate", effect="accepted", saved=_saved(context))


def _below(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    if compared is None:
        return None
    value, now, draft = compared.value, compared.threshold, context.draft
    summary = draft and DraftSummary(
        model=draft.model, tier=draft.tier, text=draft.text, final=draft.text == context.result.text
    )
    return WhatIf(
        setting="accept", effect="accepted", bound="at_most", value=value, now=now, draft=summary,
        saved=_saved(context),
    )  # fmt: skip


def _over_limit(context: StepContext, compared: Comparison | None) -> WhatIf:
    short = next((fact for fact in context.step.decision.facts if isinstance(fact, LimitShortfall)), None)
    setting = _LIMITS[context.step.decision.rule]
    if short is None:
        return WhatIf(setting=setting, effect="asked", models=context.asked)
    return WhatIf(
        setting=setting,
        effect="asked",
        bound="above" if short.limit == "seconds" else "at_least",
        value=short.used + short.worst_case,
        now=short.allowed,
        models=context.asked,
    )


def _over_budget(context: StepContext, compared: Comparison | None) -> WhatIf:
    short = next((fact for fact in context.step.decision.facts if isinstance(fact, BudgetShortfall)), None)
    if short is None:
        return WhatIf(setting="budgets", effect="asked", models=context.asked)
    needed = short.spent_usd + short.reserved_usd + short.worst_case_usd
    return WhatIf(
        setting="budgets", effect="asked", bound="at_least", value=needed, now=short.allowed_usd,
        models=context.asked,
    )  # fmt: skip


def _routed(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    ranked = _ranked((context.step.gate or {}).items())
    if len(ranked) < 2:
        return None
    best, second = ranked[:2]
    gate = context.stage.gate if context.stage else None
    target = (gate.to or {}).get(second.name) if gate else None
    return WhatIf(
        setting="gate.scores", effect="branch", bound="above", value=best.score, now=second.score,
        candidate=second.name, to=target,
    )  # fmt: skip


def _gate_unsure(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    if compared is None:
        return None
    best = _ranked((context.step.gate or {}).items())[0]
    return WhatIf(
        setting="gate.accept", effect="branch", bound="at_most", value=best.score, now=compared.threshold,
        candidate=best.name,
    )  # fmt: skip


def _policy_accept(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    return None if compared is None else _going_on(context, "policy.accept", "above", compared)


def _policy_below(context: StepContext, compared: Comparison | None) -> WhatIf | None:
    if compared is None:
        return None
    value, now, saved = compared.value, compared.threshold, _saved(context)
    return WhatIf(
        setting="policy.accept", effect="accepted", bound="at_most", value=value, now=now, saved=saved
    )


def _policy_abstain(context: StepContext, compared: Comparison | None) -> WhatIf:
    return _going_on(context, "policy.abstain_below", "at_most", compared)


def _always(setting: Setting, effect: Effect) -> Callable[[StepContext, Comparison | None], WhatIf]:
    """Return a what-if that depends on no number; it names the models where they would have been asked."""

    def what_if(context: StepContext, compared: Comparison | None) -> WhatIf:
        models = context.asked if effect == "asked" else ()
        return WhatIf(setting=setting, effect=effect, models=models)

    return what_if


def _nothing(context: StepContext, compared: Comparison | None) -> None:
    return None


_WHAT_IFS: dict[Rule, Callable[[StepContext, Comparison | None], WhatIf | None]] = {
    "confident": _confident,
    "audit": _audit,
    "unchecked": _always("confidence", "judged"),
    "below_threshold": _below,
    "no_estimate": _always("confidence", "judged"),
    "no_draft": _always("calls", "judged"),
    "truncated": _always("on_truncated", "judged"),
    "invalid": _always("answer", "judged"),
    "unavailable": _always("models", "asked"),
    "local_only": _always("local_only", "asked"),
    "breaker_open": _always("breaker", "asked"),
    "over_budget": _over_budget,
    "early_exit": _always("early_exit", "not_accepted"),
    "hedged": _always("hedge", "asked_in_turn"),
    "cancelled": _nothing,
    "over_cost": _over_limit,
    "over_seconds": _over_limit,
    "over_calls": _over_limit,
    "routed": _routed,
    "gate_unsure": _gate_unsure,
    "gate_failed": _always("gate", "branch"),
    "policy_accept": _policy_accept,
    "policy_below": _policy_below,
    "policy_abstain": _policy_abstain,
    "policy_skip": _always("policy", "asked"),
}
