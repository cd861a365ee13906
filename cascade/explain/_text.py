"""An explanation in plain words, for someone who did not write the graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import assert_never

from cascade.explain._records import (
    AnswerSummary,
    BaselineComparison,
    CallSummary,
    Explanation,
    Saved,
    StepExplanation,
    WhatIf,
)
from cascade.explain.formatting import (
    clean,
    fill,
    format_between,
    format_duration,
    format_floor,
    format_number,
    format_pair,
    format_saving,
    format_time,
    format_usd,
    one_line,
    quoted,
)
from cascade.records import (
    BudgetShortfall,
    Decision,
    Estimate,
    Fact,
    GateCandidate,
    LimitShortfall,
    MissingSignals,
    PolicyBasis,
    PolicySkip,
    RaisedThreshold,
    RemoteModels,
    Rule,
    Trial,
    UnavailableModel,
)

_MARGINAL = "The confidence is so near the threshold that the model's numerical noise could have turned this."
_MIN_WIDTH, _MAX_WIDTH = 40, 100  # columns of readable prose
_MAX_BRANCHES, _MAX_ALTERNATIVES = 6, 3  # that a sentence names
_NEEDS = {
    "labels": "the model's probabilities for a closed set of labels",
    "logprob": "the log-probabilities of the answer's tokens",
    "agreement": "at least two answers to compare",
}


def render_text(explanation: Explanation, *, width: int | None = None) -> str:
    """Return an explanation as text for a terminal.

    Args:
        explanation: what `explain` returned.
        width: columns to fill; default: the terminal's (or COLUMNS), 40 to 100.
    """
    columns = width or min(max(shutil.get_terminal_size().columns, _MIN_WIDTH), _MAX_WIDTH)
    blocks = [
        "\n".join(fill(line, columns, hang="  ") for line in _head(explanation)),
        *("\n".join(_step(step, columns)) for step in explanation.steps),
        "\n".join(fill(line, columns, hang="  ") for line in total_sentences(explanation)),
    ]
    return "\n\n".join(blocks)


def _step(step: StepExplanation, width: int) -> Iterator[str]:
    yield fill(f"{step.number}. {step.stage}: {step_verdict(step)} (rule {step.rule})", width, hang="   ")
    lines = step_sentences(step)
    if (what_if := what_if_sentence(step)) is not None:
        lines.append(f"What if: {what_if}")
    for line in lines:
        yield fill(line, width, "   ", "  ")


def _head(explanation: Explanation) -> Iterator[str]:
    yield " · ".join(
        filter(None, (f"Run {explanation.run}", explanation.graph, format_time(explanation.started)))
    )
    local_only = " (local only)" if explanation.local_only else ""
    yield f"Asked: {quoted(explanation.request, 300)}{local_only}"
    answer = "" if explanation.answer is None else _answer(explanation.answer)
    if explanation.status == "accepted":
        yield f"Answer: {answer}."
    elif explanation.status == "best_effort":
        yield f"Best effort, accepted by no stage: {answer}."
    elif explanation.status == "cancelled":
        yield "No answer: the run was cancelled."
    elif explanation.status == "waiting" and explanation.question is not None:
        yield f"No answer yet: stage {explanation.waits_at} waits for a person ({explanation.asks})."
        yield f"Question: {quoted(explanation.question, 2000)}"
        yield f"To answer it: cascade resume {explanation.run} 'ANSWER'"
    elif explanation.status == "waiting":
        yield "No answer yet: the run waits, for a person or for `cascade resume`."
    else:
        yield "No answer: no stage accepted one." + (f" Best draft: {answer}." if answer else "")


def _answer(answer: AnswerSummary) -> str:
    confidence = ""
    if answer.confidence is not None:
        calibrated = "" if answer.calibrated else " (uncalibrated)"
        confidence = f", confidence {format_number(answer.confidence)}{calibrated}"
    source = f"from {answer.tier} ({answer.model}) at stage {answer.stage}"
    return f"{quoted(answer.text, 600)} {source}{confidence}"


def total_sentences(explanation: Explanation) -> list[str]:
    """Return what the run cost, what it saved, and which stages it did not reach."""
    calls, remote = explanation.calls, explanation.remote_calls
    where = f", {remote} of them remote" if remote else ", all on this machine" if calls else ""
    lines = [
        f"Total: {format_usd(explanation.cost_usd)} and {format_duration(explanation.seconds)} for "
        f"{calls} model call{'' if calls == 1 else 's'}{where}."
    ]
    if explanation.baseline is not None:
        lines.append(_saving(explanation.baseline, answered=explanation.answered))
    answer = explanation.answer
    if explanation.status == "abstained" and answer is not None and answer.confidence is not None:
        lines.append("With `on_exhausted: best` the run would have returned its best draft, as best effort.")
    if explanation.not_reached:
        lines.append(f"Not reached: {', '.join(explanation.not_reached)}.")
    return [*map(one_line, lines)]


def _saving(baseline: BaselineComparison, *, answered: bool) -> str:
    saved, cost = baseline.saved_usd, baseline.cost_usd
    if saved >= 0 and not answered:
        verdict = "no saving, since this run gave no answer"
    elif saved == 0:
        verdict = "as much as this run"
    elif cost > 0:
        ends = (baseline.saved_low_usd, baseline.low_usd), (baseline.saved_high_usd, baseline.high_usd)
        low, high = (None if usd is None or not of else usd / of for usd, of in ends)
        exact = baseline.by == "asked" or baseline.high_usd is None
        share = saved / cost
        verdict = f"this run cost {format_saving(share, *((share, share) if exact else (low, high)))}"
    else:
        verdict = f"this run cost {format_usd(-saved)} more"
    assumption = clean(baseline.assumption, 300).rstrip(".")
    alone = format_between(cost, baseline.low_usd, baseline.high_usd)
    return f"{baseline.model} alone would have cost {alone}: {verdict}. Assumed: {assumption}."


def step_verdict(step: StepExplanation) -> str:
    """Return what a step came to, in a few words: `not accepted, escalated to second`."""
    return one_line(_verdict(step))


def _verdict(step: StepExplanation) -> str:
    if step.action == "accept":
        return "accepted"
    if step.action == "route":
        return f"routed to {step.to}"
    if step.rule == "audit":
        return f"confident, passed on to {step.to} for an audit"
    if step.rule == "cancelled":
        return "cancelled"
    done = "skipped" if step.skipped else "not accepted"
    return f"{done}, escalated to {step.to}" if step.to else f"{done}, and no stage is left"


def step_sentences(step: StepExplanation) -> list[str]:
    """Return what was asked and measured at a step, and why it ended as it did, a sentence or two each."""
    lines = [*_evidence(step), _REASONS[step.rule](step)]
    lines += [f"The threshold was {describe_fact(fact)}." for fact in step.facts if _raised(fact)]
    lines += [_trial_sentence(fact) for fact in step.facts if isinstance(fact, Trial)]
    return [*map(one_line, lines), *([_MARGINAL] if step.marginal else [])]


def _evidence(step: StepExplanation) -> Iterator[str]:
    """The gate's scores, each call, the estimate."""
    if step.gate:
        scores = (f"{each.name} {format_number(each.score)}" for each in step.gate[:_MAX_BRANCHES])
        yield f"The gate scored {', '.join(scores)}."
    sampled = any(call.sample for call in step.calls)
    for call in step.calls:
        judged = " This one was judged." if call.judged and len(step.calls) > 1 else ""
        yield _call(call, sampled=sampled) + judged
    if step.estimate is not None:
        yield _estimate(step, step.estimate)
    if step.alternatives:
        shown = (f"{quoted(each.name, 60)} {format_number(each.score)}" for each in step.alternatives)
        yield f"It also thought of {', '.join(list(shown)[:_MAX_ALTERNATIVES])}."


def _call(call: CallSummary, *, sampled: bool) -> str:
    who = f"{call.tier} ({call.model}{f', sample {call.sample + 1}' if sampled else ''})"
    who = f"The gate's model, {who}," if call.role == "gate" else who
    who = f"The shadow, {who}," if call.role == "shadow" else who
    took = f"{format_duration(call.seconds)}{'' if call.local else ', remote'}"
    if call.error is not None:
        return f"{who} failed after {took}: {clean(call.error, 300).rstrip('.')}."
    cut = ", and was cut off at its max_tokens" if call.truncated else ""
    thought = f" It thought first: {quoted(call.thinking)}." if call.thinking else ""
    return f"{who} answered {quoted(call.text)} for {format_usd(call.cost_usd)} in {took}{cut}.{thought}"


def _estimate(step: StepExplanation, estimate: Estimate) -> str:
    signals = ", ".join(f"{name} {format_number(value)}" for name, value in estimate.signals.items())
    confidence = format_number(estimate.confidence)
    if step.threshold is not None and estimate.by != "policy":  # a policy's threshold is one of its score
        confidence = format_pair(estimate.confidence, step.threshold)[0]
    meaning = f"Uncalibrated: {confidence} is a raw score, not a measured chance of being right."
    if estimate.calibrated:
        score = format_number(estimate.score)
        meaning = f"The calibration turns the score {score} into a confidence of {confidence}."
        if estimate.score == estimate.confidence:
            meaning = f"The score {confidence} is itself a calibrated chance of being right."
    return f"Judged by {estimate.by}: {signals or 'no signals'}. {meaning}"


def describe(decision: Decision | StepExplanation) -> str | None:
    """Return what is known of a decision beside its rule, in words; None if nothing is."""
    return "; ".join(_descriptions(decision)) or None


def _descriptions(decision: Decision | StepExplanation) -> Iterator[str]:
    yield from map(describe_fact, decision.facts)
    if decision.detail:
        yield decision.detail


def describe_fact(fact: Fact) -> str:
    """Return a fact in words, without a full stop."""
    match fact:
        case LimitShortfall():
            return _limit(fact)
        case BudgetShortfall():
            return (
                f"worst case ${fact.worst_case_usd:.6f}, ${fact.left_usd:.6f} left of "
                f"${fact.allowed_usd:.6f} for {fact.scope} on {fact.day} (${fact.reserved_usd:.6f} reserved)"
            )
        case RemoteModels() | UnavailableModel() | GateCandidate() | MissingSignals():
            return _named(fact)
        case PolicyBasis():
            return _basis(fact)
        case PolicySkip():
            return _policy_skip_fact(fact)
        case RaisedThreshold():
            return _raised_threshold(fact)
        case Trial():
            return _trial(fact)
        case _:
            assert_never(fact)


def _named(fact: RemoteModels | UnavailableModel | GateCandidate | MissingSignals) -> str:
    match fact:
        case RemoteModels():
            return f"{', '.join(fact.models)} would leave this machine"
        case UnavailableModel():
            return fact.reason
        case GateCandidate():
            return f"best candidate {fact.name!r} has {fact.score:.3f}"
        case MissingSignals():
            return f"not measured: {', '.join(fact.signals) or 'a text'}"


def _limit(fact: LimitShortfall) -> str:
    if fact.limit == "cost_usd":
        return f"worst case ${fact.worst_case:.6f}, ${fact.left:.6f} left of ${fact.allowed:.6f}"
    if fact.limit == "calls":
        return f"needs {fact.worst_case:.0f} calls, {fact.left:.0f} left of {fact.allowed:.0f}"
    return f"{fact.used:.3f} s used of {fact.allowed:g} s"


def _basis(fact: PolicyBasis) -> str:
    certificate = fact.certificate
    if certificate is None:
        return f"policy {fact.digest}, not certified"
    what = "error" if certificate.promise == "max_risk" else "loss"
    return (
        f"policy {fact.digest}, certified {what} at most {certificate.alpha:g} with probability "
        f"{1 - certificate.delta:.4g} (bound {certificate.bound:.4f})"
    )


def _policy_skip_fact(fact: PolicySkip) -> str:
    asked = ", ".join(fact.asks)
    if fact.score is None or fact.skip_at is None:
        return f"policy {fact.digest} asks {asked}"
    reached = f"the prompt's score {fact.score:.4f} reaches {fact.skip_at:.4f}"
    return f"policy {fact.digest}: {reached}, so {asked} is asked at once"


def _raised_threshold(fact: RaisedThreshold) -> str:
    since = f"tightened since drift (alarm in run {fact.alarm})"
    if fact.accept is not None:
        audits = f"{fact.errors} of {fact.rows} audited answers wrong"
        return f"{since}: accept is {fact.accept:.6g}, was {fact.was:.6g}; {audits}"
    return (
        f"{since}: nothing is accepted, was {fact.was:.6g}; {fact.audited} audited requests support no "
        f"threshold; the next look needs at least {fact.rows_needed} answers above one, "
        "if none of them is wrong"
    )


def _trial(fact: Trial) -> str:
    drawn = f"{fact.part} {fact.model} (share {fact.share:g})"
    if fact.refused is None:
        return f"{drawn} asked"
    return f"{drawn} left out by rule {fact.refused}" + (f": {fact.detail}" if fact.detail else "")


def _trial_sentence(fact: Trial) -> str:
    if fact.refused is not None:
        return f"Drawn for the {_trial(fact)}."
    if fact.part == "canary":
        return (
            f"The run was drawn for the canary: {fact.model} answers {fact.share:.3g} of the requests here."
        )
    return (
        f"The shadow, {fact.model}, is asked beside {fact.share:.3g} of the requests; its answer is not used."
    )


def _raised(fact: Fact) -> bool:
    return isinstance(fact, RaisedThreshold)


def _known(step: StepExplanation) -> str:
    """What is known beside the comparison, as the end of a sentence."""
    text = describe(_without_notes(step)) or "no detail was recorded"
    return clean(text, 300).rstrip(".") + "."


def _without_notes(step: StepExplanation) -> StepExplanation:
    """Return `step` without the facts that have a sentence of their own."""
    facts = tuple(fact for fact in step.facts if not isinstance(fact, RaisedThreshold | Trial))
    return step.model_copy(update={"facts": facts})


def _compared(step: StepExplanation) -> tuple[str, str] | None:
    comparison = step.comparison
    return None if comparison is None else format_pair(comparison.value, comparison.threshold)


def _confident(step: StepExplanation) -> str:
    if step.estimate is not None and step.estimate.by == "policy":
        return _policy_accept(step)
    if (pair := _compared(step)) is None:
        return "Its confidence reached the stage's threshold."
    return f"Confidence {pair[0]} reaches the {pair[1]} that this stage asks for (accept)."


def _audit(step: StepExplanation) -> str:
    passed_on = f"{_confident(step)} It was passed on all the same, drawn for an audit (audit_rate)"
    if step.stands:
        return f"{passed_on}; no later stage accepted an answer, so this one stands."
    return f"{passed_on}, so that a later stage grades it."


def _below(step: StepExplanation) -> str:
    if (pair := _compared(step)) is None:
        return "Its confidence did not reach the stage's threshold."
    return f"Confidence {pair[0]} is less than the {pair[1]} that this stage asks for (accept)."


def _no_estimate(step: StepExplanation) -> str:
    reason = describe(_without_notes(step))
    if reason is not None:
        return f"There is an answer, but judging it failed: {clean(reason, 300)}."
    needs = _NEEDS.get(step.unmeasured or "", "its signals")
    return f"There is an answer, but nothing to judge it by: {needs} could not be measured."


def _no_draft(step: StepExplanation) -> str:
    answers = sum(call.role == "answer" for call in step.calls)
    if not answers:
        return "It got no answer."
    return "Its only call failed." if answers == 1 else f"All of its {answers} calls failed."


def _invalid(step: StepExplanation) -> str:
    drafts = sum(call.role == "answer" and call.error is None for call in step.calls)
    what = "Its answer is" if drafts == 1 else f"All of its {drafts} answers are"
    return f"{what} not the JSON or the tool calls that the request asks for: {_known(step)}"


def _truncated(step: StepExplanation) -> str:
    known = describe(_without_notes(step))
    return "Its answer was cut off, so it was not judged while a later stage is left" + (
        f": {_known(step)}" if known else "."
    )


def _early_exit(step: StepExplanation) -> str:
    spared = step.spared
    asked = "what" if step.threshold is None else f"the {format_number(step.threshold)} that"
    saved = ""
    if spared is not None and spared.tokens:
        time = format_duration(spared.seconds)
        pace = f" and, at the pace of what was written, {time}" if spared.seconds else ""
        saved = f" That spared at most {spared.tokens:.0f} tokens{pace}."
    return (
        f"It was stopped after {spared.written if spared else 0} tokens: whatever came next, its confidence "
        f"could not reach {asked} this stage asks for (accept).{saved}"
    )


def _hedged(step: StepExplanation) -> str:
    return (
        f"It ran at the same time as {step.to}, which answered first; what was still under way was cancelled."
    )


def _gate_unsure(step: StepExplanation) -> str:
    if (pair := _compared(step)) is None:
        return f"The gate's best branch scored too low: {_known(step)}"
    best = step.gate[0].name
    return f"The gate's best branch, {best}, scored {pair[0]}: less than the gate's accept, {pair[1]}."


def _gate_failed(step: StepExplanation) -> str:
    return "The gate could not score its branches" + (
        f": {_known(step)}" if describe(_without_notes(step)) else "."
    )


def _policy_accept(step: StepExplanation) -> str:
    if (pair := _compared(step)) is None:
        return f"The policy accepts whatever this stage answers: {_known(step)}"
    return f"The policy's score {pair[0]} reaches its threshold {pair[1]}: {_known(step)}"


def _policy_below(step: StepExplanation) -> str:
    if (pair := _compared(step)) is None:
        why = "The policy asks this model only for what its answer tells about the next ones"
        return f"{why}: {_known(step)}"
    return f"The policy's score {pair[0]} is less than its threshold {pair[1]}: {_known(step)}"


def _policy_abstain(step: StepExplanation) -> str:
    score, threshold = _compared(step) or ("its score", "the policy's least")
    why = f"The policy gives up here: score {score} is less than {threshold}, so asking on is not worth it"
    return f"{why}: {_known(step)}"


def _sentence(text: str) -> Callable[[StepExplanation], str]:
    return lambda step: text


def _not_called(why: str) -> Callable[[StepExplanation], str]:
    return lambda step: f"Nothing was called, because {why}: {_known(step)}"


_REASONS: dict[Rule, Callable[[StepExplanation], str]] = {
    "confident": _confident,
    "audit": _audit,
    "unchecked": _sentence("This stage does not check its answers: it accepts whatever it gets."),
    "below_threshold": _below,
    "no_estimate": _no_estimate,
    "no_draft": _no_draft,
    "truncated": _truncated,
    "invalid": _invalid,
    "unavailable": _not_called("no model of this stage can be"),
    "local_only": _not_called("the request must stay on this machine"),
    "breaker_open": _not_called("it failed again and again"),
    "over_budget": _not_called("it could have cost more than is left for today"),
    "early_exit": _early_exit,
    "hedged": _hedged,
    "cancelled": _sentence(
        "The run was cancelled while this stage was at work; a call that had begun may be billed."
    ),
    "over_cost": _not_called("it could have cost more than is left"),
    "over_seconds": _not_called("the time is used up"),
    "over_calls": _not_called("it makes more calls than are left"),
    "routed": lambda step: f"The gate's best branch leads to {step.to}.",
    "gate_unsure": _gate_unsure,
    "gate_failed": _gate_failed,
    "policy_accept": _policy_accept,
    "policy_below": _policy_below,
    "policy_abstain": _policy_abstain,
    "policy_skip": _not_called("the policy passes this stage over"),
}


def what_if_sentence(step: StepExplanation) -> str | None:
    """Return what would have changed a step, as the end of a sentence that begins with `What if: `."""
    return None if step.what_if is None else one_line(_what_if(step, step.what_if))


def _what_if(step: StepExplanation, what_if: WhatIf) -> str:
    if what_if.effect == "asked":
        return f"{_condition(what_if)}, {' and '.join(what_if.models) or 'its models'} would have been asked."
    if what_if.effect in ("next_stage", "nothing_accepted", "unknown_next"):
        return f"{_threshold(what_if)} {_onward(what_if)}."
    if what_if.setting == "gate.scores":
        return _other_branch(step, what_if)
    if what_if.setting == "gate.accept":
        limit = f"accept ≤ {format_floor(what_if.value or 0.0)} (now {_now(what_if)})"
        return f"at the gate's {limit}, branch {what_if.candidate} would have been taken."
    if what_if.setting == "accept":
        return _accepted(what_if)
    if what_if.setting == "policy.accept":
        value = what_if.value or 0.0
        shown = format_floor(value) if 0.0 < value <= 1.0 else format_number(value, 6)
        limit = f"a threshold of at most {shown} (now {_now(what_if)})"
        return f"at {limit} this answer would have been accepted; {_saved(what_if.saved)}"
    if what_if.setting == "audit_rate":
        return f"undrawn, it would have been accepted; {_saved(what_if.saved)}"
    return _FIXED[step.rule]


_FIXED: dict[Rule, str] = {
    "unchecked": "a `confidence` and an `accept` at this stage would have the answer judged first.",
    "no_estimate": (
        "with a measured confidence the answer could have been accepted; without one it never is."
    ),
    "no_draft": "one call that works would have given an answer to judge.",
    "invalid": (
        "an answer that satisfies the schema would have been judged; no stage accepts an invalid one."
    ),
    "truncated": "with larger max_tokens, or on_truncated: accept, the answer would have been judged.",
    "early_exit": "without early_exit it would have been written to its end, and not accepted.",
    "hedged": "without hedge the stages would have been asked one after the other.",
    "gate_failed": "a gate that works would have chosen a branch.",
}


def _condition(what_if: WhatIf) -> str:
    """What it would have taken for the models of a stage to be asked."""
    match what_if.setting:
        case "models":
            return "with that put right"
        case "breaker":
            return "once the breaker lets a call through"
        case "budgets":
            return "with a larger budget (budgets), or tomorrow"
        case "limits.cost_usd":
            needed = (
                " that covers it" if what_if.value is None else f" of at least {format_usd(what_if.value)}"
            )
            return f"with a limit (limits.cost_usd){needed}"
        case "limits.calls":
            needed = " that covers them" if what_if.value is None else f" of at least {what_if.value:.0f}"
            return f"with a limit (limits.calls){needed}"
        case "limits.seconds":
            return "with a longer limit (limits.seconds)"
        case "policy":
            return "without the policy"
        case _:
            return f"without {what_if.setting}"


def _threshold(what_if: WhatIf) -> str:
    """At which threshold the request would have gone on."""
    if what_if.setting == "policy.abstain_below":
        return "at a lower abstention threshold"
    name = "any accept" if what_if.setting == "accept" else "any threshold"
    return f"at {name} above {format_number(what_if.value or 0.0, 6)} (now {_now(what_if)}),"


def _onward(what_if: WhatIf) -> str:
    if what_if.effect == "nothing_accepted":
        return "nothing would have been accepted"
    return f"the request would have gone on to {what_if.to or 'the next stage, if there is one'}"


def _now(what_if: WhatIf) -> str:
    """The present value, with as many digits as it takes to tell it from the other."""
    return format_pair(what_if.value or 0.0, what_if.now or 0.0)[1]


def _accepted(what_if: WhatIf) -> str:
    value, draft = what_if.value or 0.0, what_if.draft
    if value <= 0:
        return "only accept: 0 would have taken this answer."
    limit = f"accept ≤ {format_floor(value)} (now {_now(what_if)})"
    if draft is None:
        return f"at {limit} its draft would have been accepted; {_saved(what_if.saved)}"
    again = ", as the run did in the end" if draft.final else ""
    answered = f"{draft.tier} would have answered {quoted(draft.text)} at {limit}{again}"
    return f"{answered}; {_saved(what_if.saved)}"


def _saved(saved: Saved | None) -> str:
    if saved is None or not saved.calls:
        return "nothing more was called afterwards."
    each = (
        f"{saved.calls} calls ({', '.join(saved.tiers)})" if saved.calls > 1 else f"{saved.tiers[0]}'s call"
    )
    return f"{each}, {format_usd(saved.cost_usd)} and {format_duration(saved.seconds)} would have been saved."


def _other_branch(step: StepExplanation, what_if: WhatIf) -> str:
    leads = f", which leads to {what_if.to}," if what_if.to else ""
    lower, higher = format_pair(what_if.now or 0.0, what_if.value or 0.0)
    return (
        f"branch {what_if.candidate}{leads} would have been taken had it scored more than "
        f"{step.gate[0].name}: {higher}, not {lower}."
    )
