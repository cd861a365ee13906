"""Why requests have no answer, and what to set to get one, out of what their runs recorded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from cascade.records import BudgetShortfall, LimitShortfall, RemoteModels, Result, Step, UnavailableModel

_SHOWN = 5  # reasons, those of most requests first
_NUMBER = re.compile(r"\d[\d.]*")
_LOCAL_ONLY = "it is not on this machine, and the request may not leave it (local only)"


def hints(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return why models could not be asked, or failed, in runs without an answer.

    Reasons that differ in their numbers only are one, and told as the first of them.

    Returns:
        Rows `{"rows": how many requests, "model": name, "reason": why, and what to set}`, the most first.
    """
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    for result in results:
        if result.text is None and result.status == "abstained":
            found = [pair for step in result.trace for pair in _reasons(step)]
            keys = {(model, _NUMBER.sub("0", reason)): reason for model, reason in found}
            first = keys | first
            counts.update(keys.keys())
    return [{"rows": rows, "model": key[0], "reason": first[key]} for key, rows in counts.most_common(_SHOWN)]


def hint_line(hint: dict[str, Any]) -> str:
    """Return a hint as a line of text."""
    rows = hint["rows"]
    return f"{rows} row{'' if rows == 1 else 's'} without {hint['model']}: {hint['reason']}"


def _reasons(step: Step) -> Iterator[tuple[str, str]]:
    from cascade.explain import describe_fact

    for fact in step.decision.facts:
        if isinstance(fact, UnavailableModel):
            yield fact.model, fact.reason
        elif isinstance(fact, RemoteModels):
            yield from ((model, _LOCAL_ONLY) for model in fact.models)
        elif isinstance(fact, LimitShortfall):
            yield f"stage {step.stage}", f"{describe_fact(fact)}; raise limits.{fact.limit} of the graph"
        elif isinstance(fact, BudgetShortfall):
            yield f"stage {step.stage}", f"{describe_fact(fact)}; raise it, or wait for the next day (UTC)"
    if not any(call.error is None for call in step.calls):
        yield from ((call.model, call.error) for call in step.calls if call.error is not None)
