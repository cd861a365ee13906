"""From labelled rows to a calibration: ask a stage, grade its answers, fit, and measure the fit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cascade.confidence import signal_name
from cascade.confidence.agreement import normalise
from cascade.errors import RequestError
from cascade.graph.stage import Plan, run_stage
from cascade.lab.evaluation.metrics import accuracy, auroc, brier, ece
from cascade.policy.calibrate import Calibration, Method, cross_fit, fit, thin
from cascade.records import Request
from cascade.spec.schema import ConfidenceConfig, Limits, Stage

# Fewer tell nothing that holds: of 30 rows, five folds of 6 are judged by maps from 24; of 5 wrong answers,
# each fold's map has seen about 4.
LEAST_ROWS = 30
LEAST_OF_EACH = 5


@dataclass(frozen=True)
class Graded:
    """Scores of a stage's answers, uncalibrated, and whether each was right.

    `missing` says why each other row has no score: its call failed, or the signal was not measured.
    """

    scores: list[float]
    correct: list[bool]
    missing: list[str]


@dataclass(frozen=True)
class Source:
    """What a calibration belongs to: the confidence method, the data, the model."""

    check: ConfidenceConfig
    data_sha256: str
    model_fingerprint: str


async def grade(
    plan: Plan,
    stage: Stage,
    rows: Sequence[tuple[str, str]],
    *,
    concurrency: int = 8,
    on_row: Callable[[], object] = lambda: None,
) -> Graded:
    """Ask `stage` about every (text, label), at most `concurrency` at a time.

    An answer is right if it is the label, without regard to case or white space. The graph's limits do not
    apply, nor do its calibrations. `on_row` is called after each row.
    """
    unlimited = Plan(plan.graph.model_copy(update={"limits": Limits()}), plan.models, {})
    slots = asyncio.Semaphore(concurrency)

    async def one(text: str, label: str) -> tuple[float, bool] | str:
        async with slots:
            step = await run_stage(unlimited, stage, Request(text=text), ())
        on_row()
        if step.estimate is None:
            errors = [call.error for call in step.calls if call.error]
            return errors[0] if errors else step.decision.detail or step.decision.rule
        answer = step.calls[step.estimate.chosen].text
        return step.estimate.score, normalise(answer) == normalise(label)

    found = await asyncio.gather(*(one(text, label) for text, label in rows))
    graded = [item for item in found if not isinstance(item, str)]
    return Graded(
        scores=[score for score, _ in graded],
        correct=[right for _, right in graded],
        missing=[item for item in found if isinstance(item, str)],
    )


def fit_calibration(
    graded: Graded, source: Source, *, method: Method = "isotonic", seed: int = 0
) -> Calibration:
    """Fit a map on all graded rows, and measure it on cross-fitted confidences.

    Raises:
        RequestError: the rows are too few, or too few of them are right or wrong.
    """
    _check_enough(graded)
    held_out = cross_fit(method, graded.scores, graded.correct, seed=seed)
    curve = fit(method, graded.scores, graded.correct)
    return Calibration(
        **curve.model_dump(),
        by=source.check.by,
        signal=signal_name(source.check),
        rows=len(graded.scores),
        accuracy=round(accuracy(graded.correct), 6),
        auroc=round(auroc(held_out, graded.correct), 6),
        ece=round(ece(held_out, graded.correct), 6),
        brier=round(brier(held_out, graded.correct), 6),
        data_sha256=source.data_sha256,
        model_fingerprint=source.model_fingerprint,
        fitted=datetime.now(UTC).date().isoformat(),
        scores=thin(graded.scores),
    )


def rows_sha256(rows: Sequence[tuple[str, str]]) -> str:
    """Return the SHA-256 (hex) of (text, label) rows, written as one JSON list a line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_enough(graded: Graded) -> None:
    rows, right = len(graded.correct), sum(graded.correct)
    why = (
        f"; {len(graded.missing)} more have no score, the first: {graded.missing[0]}"
        if graded.missing
        else ""
    )
    if rows < LEAST_ROWS:
        raise RequestError(f"{rows} rows have a score, a calibration needs {LEAST_ROWS}{why}")
    for count, kind in [(right, "right"), (rows - right, "wrong")]:
        if count >= LEAST_OF_EACH:
            continue
        needed = f"about {math.ceil(rows * LEAST_OF_EACH / count)} rows like these" if count else "other rows"
        raise RequestError(
            f"{count} of {rows} answers are {kind}, a calibration needs {LEAST_OF_EACH}: give {needed}, "
            f"or {'easier' if kind == 'right' else 'harder'} ones{why}"
        )
