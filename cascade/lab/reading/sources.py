"""Who made the label of a row, where that is known, and what it is worth."""

from __future__ import annotations

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


def teaching(share: float, right: int, graded: int) -> str:
    """Return what it means that models made a `share` of the labels, and how good the teacher is.

    Args:
        share: from 0 to 1.
        right: graded runs in which the teacher was right.
        graded: graded runs that tell whether it was.
    """
    text = (
        f"models made {share:.0%} of the labels: on these a student never beats its teacher, "
        "and what is measured there is agreement with it"
    )
    if not graded:
        return f"{text}; no grade tells how good the teacher is"
    low, high = teacher_interval(right, graded)
    return f"{text}; the teacher was right in {right} of {graded} graded runs ({low:.0%} to {high:.0%})"


def teacher_interval(right: int, graded: int) -> tuple[float, float]:
    """Return the exact 95 % interval of the teacher's accuracy."""
    return 1 - risk_upper(graded - right, graded, _TAIL), risk_upper(right, graded, _TAIL)
