"""Why a step ended as it did, and what would have changed it: a few plain sentences for each rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cascade.explain.context import Reason, StepContext
from cascade.explain.formatting import (
    clean,
    format_duration,
    format_floor,
    format_number,
    format_pair,
    format_usd,
    quoted,
)
from cascade.records import Call, Rule

SKIPPED = frozenset({
    "unavailable", "breaker_open", "local_only", "over_budget", "over_cost", "over_seconds", "over_calls",
    "policy_skip",
})  # fmt: skip
_NEEDS = {
    "labels": "the model's probabilities for a closed set of labels",
    "logprob": "the log-probabilities of the answer's tokens",
    "agreement": "at least two answers to compare",
}


def reason(context: StepContext) -> Reason:
    """Return why the step at `context` ended as it did, and what it would have taken to end otherwise."""
    return _REASONS[context.step.decision.rule](context)


def _confident(context: StepContext) -> Reason:
    estimate, threshold = context.step.estimate, context.step.decision.threshold
    if estimate is not None and estimate.by == "policy":
        return _policy_accept(context)
    if estimate is None or threshold is None:
        return "Its confidence reached the stage's threshold.", None
    shown, needed = format_pair(estimate.confidence, threshold)
    why = f"Confidence {shown} reaches the {needed} that this stage asks for (accept)."
    if estimate.confidence >= 1:
        return why, None
    return (
        why,
        f"at any accept above {format_number(estimate.confidence, 6)} (now {needed}), {context.onward}.",
    )


def _audit(context: StepContext) -> Reason:
    why, _ = _confident(context)
    onward = f"{why} It was passed on all the same, drawn for an audit (audit_rate)"
    if context.result.rule == "audit" and context.result.stage == context.step.stage:
        return f"{onward}; no later stage accepted an answer, so this one stands.", None
    return (
        f"{onward}, so that a later stage grades it.",
        f"undrawn, it would have been accepted; {_saved(context)}",
    )


def _unchecked(context: StepContext) -> Reason:
    why = "This stage does not check its answers: it accepts whatever it gets."
    return why, "a `confidence` and an `accept` at this stage would have the answer judged first."


def _below(context: StepContext) -> Reason:
    estimate, threshold = context.step.estimate, context.step.decision.threshold
    if estimate is None or threshold is None:
        return "Its confidence did not reach the stage's threshold.", None
    shown, needed = format_pair(estimate.confidence, threshold)
    why = f"Confidence {shown} is less than the {needed} that this stage asks for (accept)."
    if estimate.confidence <= 0:
        return why, "only accept: 0 would have taken this answer."
    limit = f"accept ≤ {format_floor(estimate.confidence)} (now {needed})"
    if context.draft is None:
        return why, f"at {limit} its draft would have been accepted; {_saved(context)}"
    again = ", as the run did in the end" if context.draft.text == context.result.text else ""
    answered = f"{context.draft.tier} would have answered {quoted(context.draft.text)} at {limit}{again}"
    return why, f"{answered}; {_saved(context)}"


def _saved(context: StepContext) -> str:
    """What the steps after this one cost."""
    later = context.result.trace[context.index + 1 :]
    calls = [call for step in later for call in step.calls]
    if not calls:
        return "nothing more was called afterwards."
    tiers = list(dict.fromkeys(call.tier for call in calls))
    each = f"{tiers[0]}'s call" if len(calls) == 1 else f"{len(calls)} calls ({', '.join(tiers)})"
    seconds = sum(step.seconds for step in later)
    cost = format_usd(sum(call.cost_usd for call in calls))
    return f"{each}, {cost} and {format_duration(seconds)} would have been saved."


def _no_estimate(context: StepContext) -> Reason:
    detail = context.step.decision.detail
    needs = _NEEDS.get(context.stage.confidence.by) if context.stage and context.stage.confidence else None
    why = f"There is an answer, but nothing to judge it by: {needs or 'its signals'} could not be measured."
    if detail:
        why = f"There is an answer, but judging it failed: {clean(detail, 300)}."
    return why, "with a measured confidence the answer could have been accepted; without one it never is."


def _no_draft(context: StepContext) -> Reason:
    answers = [call for call in context.step.calls if call.role == "answer"]
    why = "Its only call failed." if len(answers) == 1 else f"All of its {len(answers)} calls failed."
    return why if answers else "It got no answer.", "one call that works would have given an answer to judge."


def _invalid(context: StepContext) -> Reason:
    drafts = [call for call in context.step.calls if call.role == "answer" and call.error is None]
    what = "Its answer is" if len(drafts) == 1 else f"All of its {len(drafts)} answers are"
    why = f"{what} not the JSON or the tool calls that the request asks for: {_detail(context)}"
    return why, "an answer that satisfies the schema would have been judged; no stage accepts an invalid one."


def _unavailable(context: StepContext) -> Reason:
    why = f"Nothing was called, because no model of this stage can be: {_detail(context)}"
    return why, f"with that put right, {context.asked} would have been asked."


def _breaker_open(context: StepContext) -> Reason:
    why = f"Nothing was called, because it failed again and again: {_detail(context)}"
    return why, f"once the breaker lets a call through, {context.asked} would have been asked."


def _over_budget(context: StepContext) -> Reason:
    why = f"Nothing was called, because it could have cost more than is left for today: {_detail(context)}"
    return why, f"with a larger budget (budgets), or tomorrow, {context.asked} would have been asked."


def _early_exit(context: StepContext) -> Reason:
    stopped = [call for call in context.step.calls if call.meta.get("finish_reason") == "early_exit"]
    needed = context.step.decision.threshold
    asked = (
        "what this stage asks for"
        if needed is None
        else f"the {format_number(needed)} that this stage asks for"
    )
    written = sum(call.tokens_out for call in stopped)
    spared, seconds = (_total(stopped, f"spared_{what}_at_most") for what in ("tokens", "seconds"))
    why = f"It was stopped after {written} tokens: whatever came next, its confidence could not reach {asked}"
    time = f" and, at the pace of what was written, {format_duration(seconds)}" if seconds else ""
    saved = f" That spared at most {spared:.0f} tokens{time}." if spared else ""
    return (
        f"{why} (accept).{saved}",
        "without early_exit it would have been written to its end, and not accepted.",
    )


def _total(calls: Iterable[Call], key: str) -> float:
    noted = [call.meta.get(key) for call in calls]
    return sum(value for value in noted if isinstance(value, int | float))


def _hedged(context: StepContext) -> Reason:
    other = context.step.decision.to
    why = f"It ran at the same time as {other}, which answered first; what was still under way was cancelled."
    return why, "without hedge the stages would have been asked one after the other."


def _cancelled(context: StepContext) -> Reason:
    return "The run was cancelled while this stage was at work; a call that had begun may be billed.", None


def _local_only(context: StepContext) -> Reason:
    why = f"Nothing was called, because the request must stay on this machine: {_detail(context)}"
    return why, f"without local_only, {context.asked} would have been asked."


def _over_cost(context: StepContext) -> Reason:
    why = f"Nothing was called, because it could have cost more than is left: {_detail(context)}"
    spent = sum(call.cost_usd for step in context.result.trace[: context.index] for call in step.calls)
    worst = re.match(r"worst case \$([0-9.]+)", context.step.decision.detail or "")
    needed = f" of at least {format_usd(spent + float(worst[1]))}" if worst else " that covers it"
    return why, f"with a limit (limits.cost_usd){needed}, {context.asked} would have been asked."


def _over_seconds(context: StepContext) -> Reason:
    why = f"Nothing was called, because the time is used up: {_detail(context)}"
    return why, f"with a longer limit (limits.seconds), {context.asked} would have been asked."


def _over_calls(context: StepContext) -> Reason:
    why = f"Nothing was called, because it makes more calls than are left: {_detail(context)}"
    made = sum(len(step.calls) for step in context.result.trace[: context.index])
    more = re.match(r"needs (\d+) calls", context.step.decision.detail or "")
    needed = f" of at least {made + int(more[1])}" if more else " that covers them"
    return why, f"with a limit (limits.calls){needed}, {context.asked} would have been asked."


def _routed(context: StepContext) -> Reason:
    ranked = sorted((context.step.gate or {}).items(), key=lambda item: -item[1])
    why = f"The gate's best branch leads to {context.step.decision.to}."
    if len(ranked) < 2:
        return why, None
    (first, top), (second, next_best) = ranked[:2]
    low, high = format_pair(next_best, top)
    where = (
        context.stage.gate.to.get(second)
        if context.stage and context.stage.gate and context.stage.gate.to
        else None
    )
    leads = f", which leads to {where}," if where else ""
    return (
        why,
        f"branch {second}{leads} would have been taken had it scored more than {first}: {high}, not {low}.",
    )


def _gate_unsure(context: StepContext) -> Reason:
    scores, threshold = context.step.gate or {}, context.step.decision.threshold
    if not scores or threshold is None:
        return f"The gate's best branch scored too low: {_detail(context)}", None
    best = max(scores, key=lambda name: scores[name])
    shown, needed = format_pair(scores[best], threshold)
    why = f"The gate's best branch, {best}, scored {shown}: less than the gate's accept, {needed}."
    return (
        why,
        f"at the gate's accept ≤ {format_floor(scores[best])} (now {needed}), "
        f"branch {best} would have been taken.",
    )


def _gate_failed(context: StepContext) -> Reason:
    why = "The gate could not score its branches"
    detail = f": {_detail(context)}" if context.step.decision.detail else "."
    return why + detail, "a gate that works would have chosen a branch."


def _policy_accept(context: StepContext) -> Reason:
    estimate, threshold = context.step.estimate, context.step.decision.threshold
    if estimate is None or threshold is None:
        return f"The policy accepts whatever this stage answers: {_detail(context)}", None
    shown, needed = format_pair(estimate.score, threshold)
    why = f"The policy's score {shown} reaches its threshold {needed}: {_detail(context)}"
    return why, f"at any threshold above {format_number(estimate.score, 6)} (now {needed}), {context.onward}."


def _policy_below(context: StepContext) -> Reason:
    estimate, threshold = context.step.estimate, context.step.decision.threshold
    if estimate is None or threshold is None:
        why = "The policy asks this model only for what its answer tells about the next ones"
        return f"{why}: {_detail(context)}", None
    shown, needed = format_pair(estimate.score, threshold)
    why = f"The policy's score {shown} is less than its threshold {needed}: {_detail(context)}"
    least = format_floor(estimate.score) if 0.0 < estimate.score <= 1.0 else format_number(estimate.score, 6)
    limit = f"a threshold of at most {least} (now {needed})"
    return why, f"at {limit} this answer would have been accepted; {_saved(context)}"


def _policy_abstain(context: StepContext) -> Reason:
    estimate, threshold = context.step.estimate, context.step.decision.threshold
    shown, needed = ("its score", "the policy's least")
    if estimate is not None and threshold is not None:
        shown, needed = format_pair(estimate.score, threshold)
    why = f"The policy gives up here: score {shown} is less than {needed}, so asking on is not worth it"
    return f"{why}: {_detail(context)}", f"at a lower abstention threshold {context.onward}."


def _policy_skip(context: StepContext) -> Reason:
    why = f"Nothing was called, because the policy passes this stage over: {_detail(context)}"
    return why, f"without the policy, {context.asked} would have been asked."


def _detail(context: StepContext) -> str:
    return clean(context.step.decision.detail or "no detail was recorded", 300).rstrip(".") + "."


_REASONS: dict[Rule, Callable[[StepContext], Reason]] = {
    "confident": _confident,
    "audit": _audit,
    "unchecked": _unchecked,
    "below_threshold": _below,
    "no_estimate": _no_estimate,
    "no_draft": _no_draft,
    "invalid": _invalid,
    "unavailable": _unavailable,
    "local_only": _local_only,
    "breaker_open": _breaker_open,
    "over_budget": _over_budget,
    "early_exit": _early_exit,
    "hedged": _hedged,
    "cancelled": _cancelled,
    "over_cost": _over_cost,
    "over_seconds": _over_seconds,
    "over_calls": _over_calls,
    "routed": _routed,
    "gate_unsure": _gate_unsure,
    "gate_failed": _gate_failed,
    "policy_accept": _policy_accept,
    "policy_below": _policy_below,
    "policy_abstain": _policy_abstain,
    "policy_skip": _policy_skip,
}
