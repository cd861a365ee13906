"""Why requests have no answer, and what to set to get one, out of what their runs recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from cascade.records import RemoteModels, Result, Step, UnavailableModel

_SHOWN = 5  # reasons, those of most requests first
_LOCAL_ONLY = "it is not on this machine, and the request may not leave it (local only)"


def hints(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return why models could not be asked, or failed, in runs without an answer.

    Returns:
        Rows `{"rows": how many requests, "model": name, "reason": why, and what to set}`, the most first.
    """
    reasons: Counter[tuple[str, str]] = Counter()
    for result in results:
        if result.text is None and result.status == "abstained":
            reasons.update({reason for step in result.trace for reason in _reasons(step)})
    return [
        {"rows": rows, "model": model, "reason": reason}
        for (model, reason), rows in reasons.most_common(_SHOWN)
    ]


def hint_line(hint: dict[str, Any]) -> str:
    """Return a hint as a line of text."""
    rows = hint["rows"]
    return f"{rows} row{'' if rows == 1 else 's'} without {hint['model']}: {hint['reason']}"


def _reasons(step: Step) -> Iterator[tuple[str, str]]:
    for fact in step.decision.facts:
        if isinstance(fact, UnavailableModel):
            yield fact.model, fact.reason
        elif isinstance(fact, RemoteModels):
            yield from ((model, _LOCAL_ONLY) for model in fact.models)
    if not any(call.error is None for call in step.calls):
        yield from ((call.model, call.error) for call in step.calls if call.error is not None)
