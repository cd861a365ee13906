"""The tables of the trace store, and the way between a `Result` and its rows.

Every field of a result stands in exactly one column, so that a row can be queried and a result read
back without loss; lists and mappings are JSON in a text column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    TypeDecorator,
)

from cascade.records import Baseline, Call, Decision, Estimate, Request, Result, Step, Token

SCHEMA_VERSION = 1


class UnicodeText(TypeDecorator[str]):
    """Text in which lone surrogates become U+FFFD: a model may answer them, no database stores them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        """Return `value` as the database can store it."""
        if value is None or value.isascii():
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Json(TypeDecorator[Any]):
    """JSON in a text column. Python's own dialect, because a log-probability may be -Infinity."""

    impl = UnicodeText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:
        """Return `value` as JSON text; None stays NULL."""
        return None if value is None else _dumps(value)

    def process_result_value(self, value: str | None, dialect: object) -> Any:
        """Return what the JSON text says."""
        return None if value is None else json.loads(value)


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# Fields that have the same name in a record and in its table.
_ANSWER = ("text", "draft", "confidence", "calibrated", "stage", "model", "tier")
_RUN = (*_ANSWER, "run", "status", "rule", "cost_usd", "seconds", "started")
_USE = ("tokens_in", "tokens_out", "cost_usd", "seconds", "local")
_CALL = (*_USE, "model", "tier", "role", "sample", "text", "error", "labels", "meta")

metadata = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s"})

schema_info = Table("schema_info", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "runs",
    metadata,
    # The order of commit. AUTOINCREMENT: a number is never used again, even after the last run was deleted.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("run", UnicodeText, nullable=False, unique=True),
    Column("graph", UnicodeText, nullable=False, index=True),
    Column("digest", UnicodeText),
    Column("status", UnicodeText, nullable=False, index=True),
    Column("rule", UnicodeText, index=True),
    Column("text", UnicodeText),
    Column("draft", UnicodeText),
    Column("confidence", Double, index=True),
    Column("calibrated", Boolean),
    Column("stage", UnicodeText),
    Column("model", UnicodeText),
    Column("tier", UnicodeText, index=True),
    Column("cost_usd", Double, nullable=False, index=True),
    Column("seconds", Double, nullable=False, index=True),
    Column("started", UnicodeText, nullable=False, index=True),
    Column("baseline_model", UnicodeText),
    Column("baseline_cost_usd", Double),
    Column("baseline_assumption", UnicodeText),
    Column("request_text", UnicodeText, nullable=False),
    Column("local_only", Boolean, nullable=False),
    Column("metadata", _Json, nullable=False),
    sqlite_autoincrement=True,
)

steps = Table(
    "steps",
    metadata,
    Column("run", UnicodeText, ForeignKey("runs.run", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("stage", UnicodeText, nullable=False),
    Column("action", UnicodeText, nullable=False),
    Column("rule", UnicodeText, nullable=False),
    Column("threshold", Double),
    Column("target", UnicodeText),
    Column("detail", UnicodeText),
    Column("gate", _Json),
    Column("estimate_by", UnicodeText),  # NULL: nothing was estimated
    Column("chosen", Integer),
    Column("signals", _Json),
    Column("score", Double),
    Column("confidence", Double),
    Column("calibrated", Boolean),
    Column("seconds", Double, nullable=False),
    sqlite_with_rowid=False,
)

calls = Table(
    "calls",
    metadata,
    Column("run", UnicodeText, ForeignKey("runs.run", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("call", Integer, primary_key=True),
    Column("model", UnicodeText, nullable=False),
    Column("tier", UnicodeText, nullable=False),
    Column("role", UnicodeText, nullable=False),
    Column("sample", Integer, nullable=False),
    Column("text", UnicodeText, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("local", Boolean, nullable=False),
    Column("error", UnicodeText),
    Column("labels", _Json),
    Column("tokens", _Json, nullable=False),  # [[text, logprob, margin, entropy], …]
    Column("meta", _Json, nullable=False),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class Rows:
    """One result as rows: one of `runs`, and those of `steps` and `calls` in order."""

    run: dict[str, Any]
    steps: list[dict[str, Any]]
    calls: list[dict[str, Any]]


def to_rows(result: Result) -> Rows:
    """Return the rows of `result`."""
    graph, at, digest = result.graph.partition("@")
    baseline, request = result.baseline, result.request
    run = {name: getattr(result, name) for name in _RUN}
    run |= {
        "graph": graph,
        "digest": digest if at else None,
        "baseline_model": baseline and baseline.model,
        "baseline_cost_usd": baseline and baseline.cost_usd,
        "baseline_assumption": baseline and baseline.assumption,
        "request_text": request.text,
        "local_only": request.local_only,
        "metadata": request.metadata,
    }
    return Rows(
        run,
        [_step_row(result.run, index, step) for index, step in enumerate(result.trace)],
        [
            _call_row(result.run, index, number, call)
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
        "detail": decision.detail,
        "gate": step.gate,
        "estimate_by": estimate and estimate.by,
        "chosen": estimate and estimate.chosen,
        "signals": estimate and estimate.signals,
        "score": estimate and estimate.score,
        "confidence": estimate and estimate.confidence,
        "calibrated": estimate and estimate.calibrated,
        "seconds": step.seconds,
    }


def _call_row(run: str, step: int, number: int, call: Call) -> dict[str, Any]:
    row = {name: getattr(call, name) for name in _CALL}
    tokens = [[token.text, token.logprob, token.margin, token.entropy] for token in call.tokens]
    return row | {"run": run, "step": step, "call": number, "tokens": tokens}


def from_rows(run: RowMapping, steps: Iterable[RowMapping], calls: Iterable[RowMapping]) -> Result:
    """Return the result whose rows these are (`steps` and `calls` in order).

    Raises:
        pydantic.ValidationError: a row holds what no result of this version has.
    """
    by_step: dict[int, list[Call]] = {}
    for row in calls:
        tokens = [
            Token(text=text, logprob=logprob, margin=margin, entropy=entropy)
            for text, logprob, margin, entropy in row["tokens"]
        ]
        call = Call(**{name: row[name] for name in _CALL}, tokens=tuple(tokens))
        by_step.setdefault(row["step"], []).append(call)
    baseline = None
    if run["baseline_model"] is not None:
        baseline = Baseline(
            model=run["baseline_model"],
            cost_usd=run["baseline_cost_usd"],
            assumption=run["baseline_assumption"],
        )
    return Result(
        **{name: run[name] for name in _RUN},
        graph=full_graph(run["graph"], run["digest"]),
        baseline=baseline,
        request=Request(text=run["request_text"], local_only=run["local_only"], metadata=run["metadata"]),
        trace=tuple(_step(row, by_step.get(row["step"], [])) for row in steps),
    )


def _step(row: RowMapping, calls: list[Call]) -> Step:
    estimate = None
    if row["estimate_by"] is not None:
        names = ("chosen", "signals", "score", "confidence", "calibrated")
        estimate = Estimate(by=row["estimate_by"], **{name: row[name] for name in names})
    decision = Decision(
        action=row["action"],
        rule=row["rule"],
        threshold=row["threshold"],
        to=row["target"],
        detail=row["detail"],
    )
    return Step(
        stage=row["stage"],
        decision=decision,
        gate=row["gate"],
        calls=tuple(calls),
        estimate=estimate,
        seconds=row["seconds"],
    )


def full_graph(name: str, digest: str | None) -> str:
    """Return `name@digest`, as results call their graph."""
    return name if digest is None else f"{name}@{digest}"
