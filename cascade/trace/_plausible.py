"""Which numbers and times no run can have: a file with them is refused before it spoils sums and charts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from cascade.records import Call, Result, Step

_MOST_USD = 1e6  # of a run: budgets count up to nine million dollars a day
_MOST_SECONDS = 1e9  # of a run: thirty years
_MOST_TOKENS = 10**12
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def implausible(result: Result) -> str | None:
    """Return which value of `result` no run can have, and what was expected; None if all are possible."""
    return next(_problems(result), None)


def implausible_time(text: str) -> str | None:
    """Return why nothing can have happened at the ISO 8601 time `text`; None if it can, or is no time."""
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except ValueError:
        return None
    except OverflowError:
        return f"{text} is beyond the calendar"
    return None if _EARLIEST <= time < _LATEST else f"{text}; expected a time from 1970 to 2199"


def _problems(result: Result) -> Iterator[str]:
    yield from _amounts("cost_usd", _MOST_USD, result.cost_usd)
    yield from _amounts("seconds", _MOST_SECONDS, result.seconds)
    if (wrong := implausible_time(result.started)) is not None:
        yield f"started is {wrong}"
    if result.baseline is not None:
        known = (result.baseline.cost_usd, result.baseline.low_usd, result.baseline.high_usd)
        yield from _amounts("baseline", _MOST_USD, *(usd for usd in known if usd is not None))
        yield from _counts("baseline.calls", result.baseline.calls, result.baseline.prompt_bytes or 0)
    yield from _no_nan("confidence", result.confidence)
    for index, step in enumerate(result.trace):
        for problem in _of_step(step):
            yield f"trace.{index}.{problem}"


def _of_step(step: Step) -> Iterator[str]:
    yield from _amounts("seconds", _MOST_SECONDS, step.seconds)
    yield from _amounts("started", _MOST_SECONDS, step.started)
    yield from _no_nan("threshold", step.decision.threshold)
    yield from _no_nan("gate", *(step.gate or {}).values())
    if step.estimate is not None:
        yield from _counts("estimate.chosen", step.estimate.chosen)
        yield from _no_nan("estimate.score", step.estimate.score, step.estimate.confidence)
        yield from _no_nan("estimate.signals", *step.estimate.signals.values())
    for index, call in enumerate(step.calls):
        for problem in _of_call(call):
            yield f"calls.{index}.{problem}"


def _of_call(call: Call) -> Iterator[str]:
    yield from _amounts("cost_usd", _MOST_USD, call.cost_usd)
    yield from _amounts("seconds", _MOST_SECONDS, call.seconds)
    yield from _amounts("started", _MOST_SECONDS, call.started)
    yield from _counts("tokens_in", call.tokens_in)
    yield from _counts("tokens_out", call.tokens_out)
    yield from _counts("sample", call.sample)
    yield from _no_nan("labels", *(call.labels or {}).values())
    for token in call.tokens:
        yield from _no_nan("tokens", token.logprob, token.margin, token.entropy)


def _amounts(name: str, most: float, *values: float) -> Iterator[str]:
    for value in values:
        if not 0 <= value <= most:  # so is NaN
            yield f"{name} is {value}; expected 0 to {most:g}"


def _counts(name: str, *values: int) -> Iterator[str]:
    for value in values:
        if not 0 <= value <= _MOST_TOKENS:
            yield f"{name} is {_short(value)}; expected 0 to {_MOST_TOKENS:,}"


def _no_nan(name: str, *values: float | None) -> Iterator[str]:
    if any(value is not None and math.isnan(value) for value in values):
        yield f"{name} is NaN; expected a number"


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**30 else f"an integer of {value.bit_length()} bits"
