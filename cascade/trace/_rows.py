"""Converts between a `Result` and its rows.

Rows to be written hold exactly what the database will hold: JSON as text, no lone surrogates. They are made
once, and stored and hashed as they are (`cascade.trace._ledger`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnClause,
    Connection,
    Insert,
    Select,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    column,
    insert,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from cascade.formats.plain import valid_unicode
from cascade.records import Baseline, Call, Decision, Estimate, Record, Request, Result, Step, Token
from cascade.trace._tables import Json, UnicodeText, calls, dumps, runs, steps

# Fields with the same name in a record and in its table.
_ANSWER = ("text", "draft", "confidence", "calibrated", "stage", "model", "tier")
_RUN = (*_ANSWER, "run", "status", "rule", "cost_usd", "seconds", "started")
_REQUEST = ("tool_choice", "output_schema", "local_only", "account", "metadata")
_USE = ("tokens_in", "tokens_out", "cost_usd", "started", "seconds", "local")
_CALL = (*_USE, "model", "tier", "role", "sample", "text", "error", "labels", "meta")
_BATCH = 500  # rows that are read in one query

Row = Mapping[Any, Any]


@dataclass(frozen=True, slots=True)
class RunRows:
    """The rows of one result: one of `runs` (without its `seq`), and those of `steps` and `calls`."""

    run: dict[str, Any]
    steps: list[dict[str, Any]]
    calls: list[dict[str, Any]]

    def without_nul(self) -> RunRows:
        """Return the rows with NUL, which PostgreSQL does not store, replaced by U+FFFD."""
        return RunRows(
            without_nul(self.run), [*map(without_nul, self.steps)], [*map(without_nul, self.calls)]
        )

    def result(self) -> Result:
        """Return the result that these rows of a database describe.

        Raises:
            pydantic.ValidationError: a row holds a value that no result of this version has.
            ValueError: a JSON column does not hold JSON.
        """
        return from_rows(
            _decoded(runs, self.run),
            [_decoded(steps, row) for row in self.steps],
            [_decoded(calls, row) for row in self.calls],
        )


def _decoded(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    texts = {name: row[name] for name in _JSON[table.name]}
    return row | {name: None if text is None else json.loads(text) for name, text in texts.items()}


def without_nul(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with NUL characters replaced by U+FFFD."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
        for name, value in row.items()
    }


def insert_raw(table: Table) -> Insert:
    """Return the statement that stores rows as they are, without the conversions of the column types."""
    return insert(table).values(
        {item.name: bindparam(item.name, type_=_plain_type(item.type)) for item in table.c}
    )


def select_raw(table: Table) -> Select[Any]:
    """Return a query of `table` that returns what the database holds, without conversions."""
    columns: list[Any] = [type_coerce(item, NullType()).label(item.name) for item in table.c]
    return select(*columns)


def raw_batches(connection: Connection, query: Select[Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a raw query of a table with a `seq`, in that order, a few hundred at a time."""
    seq: ColumnClause[int] = column("seq")
    last = -(2**63)
    while True:
        batch = connection.execute(query.where(seq > last).order_by(seq).limit(_BATCH)).mappings()
        rows = [dict(row) for row in batch]
        if not rows:
            return
        last = rows[-1]["seq"]
        yield rows


def raw_rows(connection: Connection, of_run: list[dict[str, Any]]) -> Iterator[RunRows]:
    """Yield all raw rows of the runs whose raw rows in `runs` are `of_run`."""
    names = [row["run"] for row in of_run]
    of_step = _by_run(connection, select_raw(steps), names, "step")
    of_call = _by_run(connection, select_raw(calls), names, "step", "call")
    for row in of_run:
        yield RunRows(row, of_step.get(row["run"], []), of_call.get(row["run"], []))


def _by_run(
    connection: Connection, query: Select[Any], names: list[str], *order: str
) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    wanted = query.where(column("run").in_(names)).order_by(*map(column, order))
    for row in connection.execute(wanted).mappings():
        groups.setdefault(row["run"], []).append(dict(row))
    return groups


def _plain_type(kind: Any) -> Any:
    return Text() if isinstance(kind, TypeDecorator) else kind


def _stored(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` as the database will hold it.

    Raises:
        TypeError: a value is not plain JSON.
        ValueError: a value contains itself.
    """
    for name in _JSON[table.name]:
        if (value := row[name]) is not None:
            row[name] = dumps(value)
    for name in _TEXT[table.name]:
        if (value := row[name]) is not None:
            row[name] = valid_unicode(value)
    return row


_TABLES = (runs, steps, calls)
_JSON = {table.name: [item.name for item in table.c if isinstance(item.type, Json)] for table in _TABLES}
_TEXT = {
    table.name: [item.name for item in table.c if isinstance(item.type, UnicodeText)] for table in _TABLES
}


def to_rows(result: Result) -> RunRows:
    """Return the rows of `result`.

    Raises:
        TypeError: its metadata is not plain JSON.
        ValueError: its metadata contains itself.
    """
    graph, at, digest = result.graph.partition("@")
    baseline, request = result.baseline, result.request
    run = {name: getattr(result, name) for name in _RUN}
    run |= {
        "graph": graph,
        "digest": digest if at else None,
        "baseline_model": baseline and baseline.model,
        "baseline_cost_usd": baseline and baseline.cost_usd,
        "baseline_assumption": baseline and _basis(baseline),
        "tool_calls": _answer_calls(result),
        "request_text": request.text,
        "messages": _plain(request.messages),
        "tools": _plain(request.tools),
    } | {name: getattr(request, name) for name in _REQUEST}
    return RunRows(
        _stored(runs, run),
        [_stored(steps, _step_row(result.run, index, step)) for index, step in enumerate(result.trace)],
        [
            _stored(calls, _call_row(result.run, index, number, call))
            for index, step in enumerate(result.trace)
            for number, call in enumerate(step.calls)
        ],
    )


def _step_row(run: str, index: int, step: Step) -> dict[str, Any]:
    decision, estimate = step.decision, step.estimate
    return {
        "run": run,
        "step": index,
        "stage": step.stage,
        "action": decision.action,
        "rule": decision.rule,
        "threshold": decision.threshold,
        "target": decision.to,
        "facts": _plain(decision.facts),
        "detail": decision.detail,
        "marginal": decision.marginal,
        "gate": step.gate,
        "estimate_by": estimate and estimate.by,
        "chosen": estimate and estimate.chosen,
        "signals": estimate and estimate.signals,
        "score": estimate and estimate.score,
        "confidence": estimate and estimate.confidence,
        "calibrated": estimate and estimate.calibrated,
        "started": step.started,
        "seconds": step.seconds,
    }


def _call_row(run: str, step: int, number: int, call: Call) -> dict[str, Any]:
    row = {name: getattr(call, name) for name in _CALL}
    tokens = [[token.text, token.logprob, token.margin, token.entropy] for token in call.tokens]
    return row | {
        "run": run,
        "step": step,
        "call": number,
        "tool_calls": _plain(call.tool_calls),
        "tokens": tokens,
    }


def _plain(records: Iterable[Record]) -> list[dict[str, Any]] | None:
    """Return records as plain JSON, or None if there are none, which takes no space."""
    return [record.model_dump() for record in records] or None


def from_rows(run: Row, steps: Iterable[Row], calls: Iterable[Row]) -> Result:
    """Return the result with these rows; `steps` and `calls` must be in order.

    Raises:
        pydantic.ValidationError: a row holds a value that no result of this version has.
    """
    by_step: dict[int, list[Call]] = {}
    for row in calls:
        tokens = [
            Token(text=text, logprob=logprob, margin=margin, entropy=entropy)
            for text, logprob, margin, entropy in row["tokens"]
        ]
        call = Call(
            **{name: row[name] for name in _CALL}, tool_calls=row["tool_calls"] or (), tokens=tuple(tokens)
        )
        by_step.setdefault(row["step"], []).append(call)
    return Result(
        **{name: run[name] for name in _RUN},
        graph=full_graph(run["graph"], run["digest"]),
        baseline=baseline_of(run),
        question=question_of(run["tool_calls"]),
        tool_calls=_tool_calls(run["tool_calls"]),
        request=Request(
            text=run["request_text"],
            messages=run["messages"] or (),
            tools=run["tools"] or (),
            **{name: run[name] for name in _REQUEST},
        ),
        trace=tuple(_step(row, by_step.get(row["step"], [])) for row in steps),
    )


def _answer_calls(result: Result) -> Any:
    """Return the column `tool_calls` of a run: its tool calls, with the question if it waits for a person."""
    plain = _plain(result.tool_calls)
    return plain if result.question is None else {"question": result.question, "tool_calls": plain}


def question_of(tool_calls: Any) -> str | None:
    """Return the question that a run's column `tool_calls`, decoded, holds; None if it holds none."""
    return tool_calls.get("question") if isinstance(tool_calls, dict) else None


def _tool_calls(tool_calls: Any) -> Any:
    return (tool_calls.get("tool_calls") if isinstance(tool_calls, dict) else tool_calls) or ()


def baseline_of(run: Row) -> Baseline | None:
    """Return the baseline in the three columns of a row of `runs`.

    Raises:
        pydantic.ValidationError: they hold none of this version.
    """
    if run["baseline_model"] is None:
        return None
    model, cost_usd, words = run["baseline_model"], run["baseline_cost_usd"], run["baseline_assumption"]
    facts: Any = {"assumption": words}
    if words is not None and words.startswith("{"):
        with suppress(ValueError):
            facts = json.loads(words)
    return Baseline(**{**facts, "model": model, "cost_usd": cost_usd})


def _basis(baseline: Baseline) -> str:
    """Return the text of `baseline_assumption`: JSON that says how it was found; of old versions, words."""
    facts = baseline.model_dump(exclude={"model", "cost_usd"}, exclude_defaults=True)
    plain = Baseline(model=baseline.model, cost_usd=baseline.cost_usd, assumption=baseline.assumption)
    return baseline.assumption if plain == baseline else dumps({"by": baseline.by, **facts})


def _step(row: Row, calls: list[Call]) -> Step:
    estimate = None
    if row["estimate_by"] is not None:
        names = ("chosen", "signals", "score", "confidence", "calibrated")
        estimate = Estimate(by=row["estimate_by"], **{name: row[name] for name in names})
    decision = Decision(
        action=row["action"],
        rule=row["rule"],
        threshold=row["threshold"],
        to=row["target"],
        facts=row["facts"] or (),
        detail=row["detail"],
        marginal=row["marginal"],
    )
    return Step(
        stage=row["stage"],
        decision=decision,
        gate=row["gate"],
        calls=tuple(calls),
        estimate=estimate,
        started=row["started"],
        seconds=row["seconds"],
    )


def full_graph(name: str, digest: str | None) -> str:
    """Return `name@digest`, the form used in results."""
    return name if digest is None else f"{name}@{digest}"
