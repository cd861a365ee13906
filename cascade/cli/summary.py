"""What `cascade run` prints: a line a request, and a summary."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cascade.cli.hints import hint_line, hints
from cascade.lab.tables.rows import Row
from cascade.policy.costs import PricedCall
from cascade.policy.intervals import wilson
from cascade.policy.savings import Alone, PricedRun
from cascade.records import Result

_MIN_TEXT_WIDTH = 24  # of a request on a narrow terminal
_LABEL_WIDTH = 20
_COLUMNS = "{text}  {answer:<25} {tier:<6} {confidence:>6}  {rule:<15} {ms:>6} {usd:>9}"
_OTHER_WIDTH = len(_COLUMNS.format(text="", answer="", tier="", confidence="", rule="", ms="", usd=""))


def heading(*, labelled: bool = False) -> str:
    """Return the names of the columns of `line`."""
    columns = _COLUMNS.format(
        text=_fit("request", _text_width(labelled)),
        answer="answer",
        tier="tier",
        confidence="conf.",
        rule="rule",
        ms="ms",
        usd="$",
    )
    return f"{columns}  wrong: right is" if labelled else columns


def line(row: Row, result: Result, *, labelled: bool = False) -> str:
    """Return one line: request, answer (or `draft?`), tier, confidence, rule, milliseconds, dollars.

    An uncalibrated confidence is marked with an asterisk. With `labelled`, the right answer stands behind a
    wrong one.
    """
    from cascade.explain.formatting import clean

    answer = result.text or (f"{result.draft}?" if result.draft else "—")
    confidence = "—" if result.confidence is None else f"{result.confidence:.3f}"
    columns = _COLUMNS.format(
        text=_fit(row.text, _text_width(labelled)),
        answer=_fit(answer, 25),
        tier=result.tier or "—",
        confidence=confidence + ("*" if result.calibrated is False else ""),
        rule=result.rule or result.status,
        ms=f"{result.seconds * 1e3:.0f}",
        usd=f"{result.cost_usd:.6f}",
    )
    wrong = labelled and right(row, result) is False
    return f"{columns}  {clean(row.label or '', _LABEL_WIDTH)}" if wrong else columns


def result_row(row: Row, result: Result) -> dict[str, Any]:
    """Return the output row of one result; with a label, also that and whether the answer is it."""
    labelled = {} if row.label is None else {"label": row.label, "right": right(row, result)}
    return {
        "id": row.id,
        "status": result.status,
        "text": result.text,
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "stage": result.stage,
        "model": result.model,
        "tier": result.tier,
        "rule": result.rule,
        "cost_usd": result.cost_usd,
        "seconds": result.seconds,
        "run": result.run,
        **labelled,
        **({} if result.question is None else {"question": result.question}),
    }


def _text_width(labelled: bool) -> int:
    other = _OTHER_WIDTH + (2 + _LABEL_WIDTH if labelled else 0)
    return max(_MIN_TEXT_WIDTH, shutil.get_terminal_size((120, 24)).columns - other)


def summarise(
    rows: Sequence[Row], results: Sequence[Result], calls: Sequence[PricedCall] = ()
) -> dict[str, Any]:
    """Return the figures of a batch.

    Shares are of all requests. `hints` say why models could not be asked or failed where there is no answer,
    and what to set. `accuracy` and `selective_risk` (the error rate among the answered rows) need labels in
    the input; `NAME_ci` are their 95 % intervals (Wilson), and `none_right` shows the first answer beside its
    label if no answer is right. `savings` compares the answered requests with the baseline model alone (see
    `cascade.policy.savings.Savings`), `unanswered_savings` the others; `basis` says in words what they stand
    on. They are left out if they are not known for every request, as in a batch that
    was continued after a stop. `calls` are recorded calls of the baseline model.
    """
    total = len(results)
    answered = [result for result in results if result.text is not None]
    unanswered = [result for result in results if result.text is None]
    summary: dict[str, Any] = {
        "requests": total,
        "answered": len(answered) / total,
        "status": dict(Counter(result.status for result in results)),
        "tiers": {str(t): n / total for t, n in Counter(r.tier for r in answered).most_common()},
        "unanswered": dict(Counter(result.rule or result.status for result in unanswered)),
        "hints": hints(results),
        "cost_usd": sum(result.cost_usd for result in results),
    }
    if all(result.graph for result in results):
        alone = Alone([*_priced(results)], calls)
        for name, group in (("savings", answered), ("unanswered_savings", unanswered)):
            found = alone.savings([*_priced(group)])
            if found is not None:
                summary[name] = {**found.model_dump(), "basis": found.basis}
                summary["baseline"] = found.models[0]
        if "baseline" in summary:
            usd = {
                name: summary.get(name, {}).get("cost_usd", 0.0) for name in ("savings", "unanswered_savings")
            }
            summary["baseline_usd"], summary["unanswered_baseline_usd"] = usd.values()
    return summary | _quality(rows, results)


def _priced(results: Sequence[Result]) -> Iterator[PricedRun]:
    for result in results:
        if result.baseline is not None:
            yield PricedRun(result.graph.partition("@")[0], result.cost_usd, result.baseline)


def _quality(rows: Sequence[Row], results: Sequence[Result]) -> dict[str, Any]:
    labelled = [(row, result) for row, result in zip(rows, results, strict=True) if row.label is not None]
    graded = [verdict for row, result in labelled if (verdict := right(row, result)) is not None]
    if not labelled:
        return {}
    wrong = len(graded) - sum(graded)
    first = next(((row.label, result.text) for row, result in labelled if result.text is not None), None)
    none_right = {"none_right": {"label": first[0], "answer": first[1]}} if first and not sum(graded) else {}
    return {
        **none_right,
        "labelled": len(labelled),
        "accuracy": sum(graded) / len(labelled),
        "accuracy_ci": list(wilson(sum(graded), len(labelled))),
        "selective_risk": wrong / len(graded) if graded else None,
        "selective_risk_ci": list(wilson(wrong, len(graded))) if graded else None,
    }


def right(row: Row, result: Result) -> bool | None:
    """Return whether the answer is right; None without an answer or a label."""
    from cascade.lab.tables.labels import is_right

    return None if result.text is None or row.label is None else is_right(result.text, row.label)


def print_summary(summary: dict[str, Any], trace_db: str | None) -> None:
    """Print the summary of a batch."""
    print()
    tiers = ", ".join(f"{tier} {share:.0%}" for tier, share in summary["tiers"].items())
    print(f"answered   {summary['answered']:.0%} of {summary['requests']} ({tiers or 'no tier'})")
    unanswered = summary["unanswered"]
    if unanswered:
        rules = ", ".join(f"{count} {rule}" for rule, count in unanswered.items())
        print(f"abstained  {sum(unanswered.values())} ({rules})")
    for hint in summary["hints"]:
        print(f"           {hint_line(hint)}")
    if waiting := summary["status"].get("waiting"):
        print(f"waiting    {waiting} (cascade trace list --status waiting)")
    if "accuracy" in summary:
        _print_quality(summary)
    print(f"cost       ${summary['cost_usd']:.6f}")
    for name, of in (("savings", "the answered requests"), ("unanswered_savings", "the others")):
        if name in summary:
            print(f"           {_compared(summary[name], of)}")
    if trace_db is not None:
        print(f"traces     {trace_db}   (cascade trace list, cascade trace explain RUN)")


def _print_quality(summary: Mapping[str, Any]) -> None:
    from cascade.explain.formatting import clean

    risk = summary["selective_risk"]
    print(
        f"right      {summary['accuracy']:.1%} of {summary['labelled']} labelled rows; "
        f"wrong among the answered {'—' if risk is None else f'{risk:.1%}'}"
    )
    if "none_right" in summary:
        first = {name: clean(text, 60) for name, text in summary["none_right"].items()}
        print(
            f"           no answer is right; the first was {first['answer']!r}, its label {first['label']!r}"
        )
    ends = [f"right {_ends(summary['accuracy_ci'])}"]
    ends += [] if risk is None else [f"wrong {_ends(summary['selective_risk_ci'])}"]
    print(f"           95 % intervals: {', '.join(ends)}")


def _ends(interval: Sequence[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"


def _compared(savings: Mapping[str, Any], of: str) -> str:
    """Return what the baseline model alone would have cost, with its interval and what that stands on."""
    from cascade.explain.formatting import format_between, format_saving

    alone = format_between(savings["cost_usd"], savings["low_usd"], savings["high_usd"])
    share = format_saving(savings["share"], savings["share_low"], savings["share_high"]) or "no saving"
    return (
        f"{', '.join(savings['models'])} alone: {alone} for {of}; they cost {share}\n"
        f"           ({savings['basis']})"
    )


def _fit(text: str, width: int) -> str:
    from cascade.explain.formatting import clean

    return clean(text, width).ljust(width)
