"""Two models on the same requests: which of them was right, and who says so.

A row is a stored run in which a stage's own model and its shadow were both asked. It counts if it belongs to
a fair sample of the stage's requests: the run has a grade, or it was drawn for an audit, which is independent
of what the models answered. A run that merely went on because the stage was unsure is not counted: these are
the requests that the stage's own model is bad at. Where nothing tells who was right, two different answers
count as the worst that is possible for the new model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cascade.confidence.same import normalise
from cascade.policy.decide import audited
from cascade.policy.eprocess import Pairs
from cascade.policy.trials import by_canary
from cascade.records import Call, Result, Step, Trial
from cascade.spec.schema import Stage

Truth = Literal["grade", "later stage", "nothing"]


@dataclass
class PairedRows:
    """What the stored runs say about a stage's own model, `old`, and its shadow, `new`.

    Attributes:
        old: the model of the stage.
        new: its shadow.
        differences: how often each difference came, right(new) − right(old), at least.
        told_by: who told what was right, of the counted rows.
        disagreed: counted rows on which the two answers differ.
        unproved: of these, rows on which nothing tells who was right; they count against `new`.
        failed: counted rows on which `new` gave no answer.
        uncounted: rows of no fair sample: neither graded nor drawn for an audit.
        left_out: rule → number of runs in which the shadow was drawn and left out.
    """

    old: str
    new: str
    differences: Counter[int] = field(default_factory=Counter)
    told_by: Counter[Truth] = field(default_factory=Counter)
    disagreed: int = 0
    unproved: int = 0
    failed: int = 0
    uncounted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> Pairs:
        """The differences."""
        return Pairs(*(self.differences[value] for value in (-1, 0, 1)))

    def swapped(self) -> Pairs:
        """Return the differences as seen from the shadow: how `old` differs from `new`."""
        return Pairs(*(self.differences[value] for value in (1, 0, -1)))


class _Right(NamedTuple):
    """Whether an answer is right, as far as it is known: at least `low`, at most `high` (0 or 1)."""

    low: int
    high: int


def paired_rows(stage: Stage, new: str, results: Iterable[Result], grades: Mapping[str, bool]) -> PairedRows:
    """Return the rows on which `stage`'s own model and its shadow `new` were both asked.

    Args:
        stage: a stage that asks one model.
        new: the shadow.
        results: stored runs of one version of the graph.
        grades: run → whether its answer was right, as the newest grade says.
    """
    rows = PairedRows(stage.ask[0], new)
    for result in results:
        for step in result.trace:
            if step.stage == stage.name and not by_canary(step):
                _add(rows, stage, result, step, grades.get(result.run))
    return rows


def _add(rows: PairedRows, stage: Stage, result: Result, step: Step, grade: bool | None) -> None:
    for fact in step.decision.facts:
        if isinstance(fact, Trial) and fact.part == "shadow" and fact.model == rows.new and fact.refused:
            rows.left_out[fact.refused] += 1
    shadow = next((call for call in step.calls if call.role == "shadow" and call.model == rows.new), None)
    if shadow is None:
        return
    later = _later_answer(result, step) if audited(stage, result.run) else None
    if grade is None and not (audited(stage, result.run) and step.decision.to is not None):
        rows.uncounted += 1
        return
    old, new = _draft(step), shadow if _answers(shadow) else None
    answer = result.draft if result.text is None else result.text
    truth: Truth = "grade" if grade is not None else "later stage" if later is not None else "nothing"
    told = (answer, grade) if grade is not None else (later, True)
    worst, best = _difference(_right(old, *told), _right(new, *told))
    same = _key(old) == _key(new)
    rows.differences[0 if same else worst] += 1
    rows.told_by[truth] += 1
    rows.disagreed += not same
    rows.unproved += not same and worst != best
    rows.failed += new is None


def _difference(old: _Right, new: _Right) -> tuple[int, int]:
    return new.low - old.high, new.high - old.low


def _right(call: Call | None, answer: str | None, correct: bool) -> _Right:
    """Return whether `call` is right, given that `answer` is `correct` or not; None: nothing is known."""
    if call is None:
        return _Right(0, 0)
    if answer is None:
        return _Right(0, 1)
    if normalise(call.text) == normalise(answer):
        return _Right(int(correct), int(correct))
    # Of a closed set only one label is right; two different free texts may both be.
    return _Right(0, 0) if correct and call.labels is not None else _Right(0, 1)


def _draft(step: Step) -> Call | None:
    """Return the answer of the stage's own model that counts."""
    if step.estimate is not None:
        return step.calls[step.estimate.chosen]
    return next((call for call in step.calls if call.role == "answer" and _answers(call)), None)


def _answers(call: Call) -> bool:
    return call.error is None and call.invalid is None


def _key(call: Call | None) -> str | None:
    return None if call is None else normalise(call.text)


def _later_answer(result: Result, step: Step) -> str | None:
    """Return the answer that a later stage gave, if one was accepted."""
    return result.text if result.status == "accepted" and result.stage != step.stage else None
