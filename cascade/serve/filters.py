"""Reads the filter of runs from the query of a page or of the API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_args

from cascade.explain.formatting import parse_age
from cascade.records import Rule, Status
from cascade.trace import RunFilter

STATUSES: tuple[str, ...] = get_args(Status)
RULES: tuple[str, ...] = get_args(Rule)
GRADES = ("right", "wrong", "none")
_CHOICES = {"status": STATUSES, "rule": RULES, "grade": GRADES}
_NUMBERS = ("confidence_min", "confidence_max", "cost_min", "cost_max")
_TIMES = ("since", "until")
NAMES = ("q", "graph", "tier", *_CHOICES, *_NUMBERS, *_TIMES)


@dataclass(frozen=True)
class Query:
    """A query as it was typed, as a filter, and what is wrong with it."""

    given: dict[str, str]
    where: RunFilter
    problems: tuple[str, ...]


def read_query(params: Mapping[str, str]) -> Query:
    """Return the filter that `params` describe; an empty value does not filter."""
    given = {name: params[name].strip() for name in NAMES if params.get(name, "").strip()}
    values: dict[str, Any] = {}
    problems = []
    for name, text in given.items():
        try:
            values["contains" if name == "q" else name] = _value(name, text)
        except ValueError as error:
            problems.append(f"{name} is {text!r}; {error}")
    return Query(given, RunFilter(**values), tuple(problems))


def _value(name: str, text: str) -> str | float:
    if name in _CHOICES and text not in _CHOICES[name]:
        raise ValueError(f"known: {', '.join(_CHOICES[name])}")
    if name in _NUMBERS:
        return _number(text)
    return _time(text) if name in _TIMES else text


def _number(text: str) -> float:
    try:
        value = float(text.removeprefix("$"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("expected a number such as 0.9")
    return value


def _time(text: str) -> str:
    """Return a time, or that of an age, as the store writes it; one without a zone is UTC."""
    try:
        time = parse_age(text) or datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            "expected a time such as 2026-11-21T04:00 (UTC), or an age such as 2h or 3d"
        ) from None
    return time.isoformat(timespec="milliseconds")
