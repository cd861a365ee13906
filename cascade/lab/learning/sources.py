"""Who made the label of a row, where that is known, and what it is worth."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.policy.bounds import risk_upper

PERSON, GRADE, TEACHER, AGREEMENT = "person", "grade", "teacher", "agreement"
TRUSTED = (PERSON, GRADE)
WORDS = {
    PERSON: "answered by a person",
    GRADE: "graded right",
    TEACHER: "answered by the top tier",
    AGREEMENT: "on which tiers agree",
}
SPEAKERS = {TEACHER: "the teacher", AGREEMENT: "two smaller models"}
_TAIL = 0.025  # of each side of an interval


def teacher_share(sources: dict[str, int], rows: int) -> float:
    """Return the share of `rows` labels that models made, from the rows of each source."""
    return (sources.get(TEACHER, 0) + sources.get(AGREEMENT, 0)) / rows


def teaching(share: float, graded: Iterable[bool] = ()) -> str:
    """Return what it means that models made a `share` of the labels, and how good the teacher is.

    Args:
        share: from 0 to 1.
        graded: whether the teacher was right, a value for each graded run that tells.
    """
    text = (
        f"models made {share:.0%} of the labels: on these a student never beats its teacher, "
        "and what is measured there is agreement with it"
    )
    right = list(graded)
    if not right:
        return f"{text}; no grade tells how good the teacher is"
    low = 1 - risk_upper(len(right) - sum(right), len(right), _TAIL)
    high = risk_upper(sum(right), len(right), _TAIL)
    share_right = f"in {sum(right)} of {len(right)} graded runs ({low:.0%} to {high:.0%})"
    return f"{text}; the teacher was right {share_right}"
