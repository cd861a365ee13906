"""Figures of the newest runs, and the drafts of runs in which several stages answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from cascade.policy.costs import PricedCall
from cascade.policy.savings import PricedRun, call_of
from cascade.trace._filters import RunFilter
from cascade.trace._grades import newest_grade
from cascade.trace._rows import baseline_of
from cascade.trace._search import has_number, newest_runs
from cascade.trace._tables import calls, runs, steps

OVERVIEW_WINDOW = 2000  # newest runs in an overview, few enough to be read in a tenth of a second
_MAX_TEXT = 200  # characters


class Figures(NamedTuple):
    """The numbers of one run. The fields are those of `Result`; `correct` is the newest grade."""

    run: str
    status: str
    tier: str | None
    confidence: float | None
    cost_usd: float
    baseline_cost_usd: float | None
    baseline_model: str | None
    seconds: float
    started: str
    request: str
    correct: bool | None
    graph: str
    baseline_assumption: str | None

    @property
    def priced(self) -> PricedRun | None:
        """The run with its baseline; None if it has none that can be read."""
        try:
            baseline = baseline_of(self._asdict())
        except (ValueError, TypeError):
            return None
        return None if baseline is None else PricedRun(self.graph, self.cost_usd, baseline)


class Opinion(NamedTuple):
    """The draft of one stage and its confidence; `closed` if the draft is one of a set of labels."""

    tier: str
    model: str
    text: str
    confidence: float | None
    closed: bool


class Overview(NamedTuple):
    """The newest runs, the last stored first, and the drafts of each run that has several."""

    figures: Sequence[Figures] = ()
    opinions: dict[str, tuple[Opinion, ...]] = {}  # noqa: RUF012 - never changed


def read_overview(connection: Connection, where: RunFilter, limit: int) -> Overview:
    """Return the figures of the newest `limit` runs that match `where`."""
    selected = has_number(connection, newest_runs(connection, where, limit=limit))
    computed: dict[str, ColumnElement[Any]] = {
        "request": func.substr(runs.c.request_text, 1, _MAX_TEXT),
        "correct": newest_grade(),
    }
    columns = [computed[name] if name in computed else runs.c[name] for name in Figures._fields]
    query = select(*columns).where(selected).order_by(runs.c.seq.desc())
    figures = [Figures(*row) for row in connection.execute(query).all()]
    return Overview(figures, _opinions(connection, selected))


def _opinions(connection: Connection, selected: ColumnElement[bool]) -> dict[str, tuple[Opinion, ...]]:
    """Return the drafts, one per stage, of each of these runs that has more than one."""
    text = func.substr(calls.c.text, 1, _MAX_TEXT)
    opinion = (calls.c.tier, calls.c.model, text, steps.c.confidence, calls.c.labels.is_not(None))
    query = (
        select(calls.c.run, calls.c.step, calls.c.call, steps.c.chosen, *opinion)
        .join_from(calls, steps, (steps.c.run == calls.c.run) & (steps.c.step == calls.c.step))
        .where(
            calls.c.run.in_(select(runs.c.run).where(selected)),
            calls.c.role == "answer",
            calls.c.error.is_(None),
        )
        .order_by(calls.c.run, calls.c.step, calls.c.call)
    )
    opinions = {}
    for run, rows in groupby(connection.execute(query).all(), key=itemgetter(0)):
        answers = list(rows)
        if answers[0][1] != answers[-1][1]:  # of several steps
            opinions[run] = tuple(_draft(list(group)) for _, group in groupby(answers, key=itemgetter(1)))
    return opinions


def _draft(answers: Sequence[Sequence[Any]]) -> Opinion:
    """Return the draft that was judged, else the first that did not fail."""
    row = next((row for row in answers if row[2] == row[3]), answers[0])
    return Opinion(*row[4:])


def baseline_calls(connection: Connection, graph: str, model: str) -> list[PricedCall]:
    """Return what calls of baseline model `model` cost in the newest 2,000 runs of `graph` (its name)."""
    columns = [runs.c[name] for name in ("baseline_model", "baseline_cost_usd", "baseline_assumption")]
    newest = newest_runs(connection, RunFilter(graph=graph), limit=OVERVIEW_WINDOW)
    query = select(*columns).where(has_number(connection, newest), runs.c.baseline_model == model)
    found = []
    for row in connection.execute(query).mappings():
        with suppress(ValueError, TypeError):  # a damaged row tells nothing
            found.append(call_of(baseline_of(row)))
    return [call for call in found if call is not None]
