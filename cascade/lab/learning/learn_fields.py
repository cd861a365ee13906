"""From texts with flat JSON objects to an expert, its card and graph, and a certificate or a refusal."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.config.references import bundled_path
from cascade.engine.fields import Extractor
from cascade.errors import RequestError
from cascade.files import replace_file
from cascade.formats.expert_file import write_expert
from cascade.formats.flat_schema import FieldKind, flat_fields
from cascade.lab.evaluation.metrics import ece
from cascade.lab.fitting.closed_fields import closed_fitter
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit_fields import FieldRows, FittedFields, fit_fields, same_value
from cascade.lab.learning import card as cards
from cascade.lab.learning.certify import Graded, Verdict, judge
from cascade.lab.learning.field_rows import FieldData, read_field_rows, read_schema
from cascade.lab.learning.settings import DELTA, MAX_RISK, task_name
from cascade.lab.learning.split import put_aside
from cascade.policy.artifact import Goal
from cascade.policy.intervals import wilson

ENCODER, MAX_TOKENS = "encoder", 256
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
_GRAPH = """\
# Written by cascade learn --schema.
name: {name}
description: {description}
limits: {{cost_usd: 0.05, seconds: 60, calls: 12}}
models:
  expert: {{kind: llamacpp, tier: haiku, path: {path}, task: {name}}}
  strong:
    kind: openai
    tier: opus
    model: gpt-5.2
    logprobs: false # its answer is not checked
    temperature: 1 # reasoning models refuse any other
    prompt: |
      Read the text and answer with one JSON object alone, which satisfies this JSON Schema:
      {schema}

      Text: {{text}}
stages:
  # {promise}
  - {{name: first, ask: [expert], confidence: {{by: labels, signal: expert}}, accept: {accept:g}}}
  - {{name: last, ask: [strong]}}
"""


@dataclass(frozen=True)
class LearnedFields:
    """What was made: the expert, the graph, the card beside the expert, and the threshold's verdict."""

    expert: Path
    graph: Path
    card_path: Path
    card: dict[str, Any]
    verdict: Verdict


class Part:
    """An extractor as the expert's file holds it: a task without labels beside the heads of closed fields."""

    labels: tuple[str, ...] = ()

    def __init__(self, extractor: Extractor) -> None:
        """Take the extractor's own settings and arrays."""
        self.settings, self.arrays = extractor.stored()


def learn_fields(
    source: str | Path,
    schema: str | Path,
    *,
    out: str | Path | None = None,
    graph_out: str | Path | None = None,
    text: str | None = None,
    label: str | None = None,
    max_risk: float = MAX_RISK,
    delta: float = DELTA,
    test: str | Path | None = None,
    seed: int = 0,
    on_progress: Callable[[str, float], None] = lambda _, __: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> LearnedFields:
    """Learn to answer a text with a flat JSON object; write expert, card, and a graph that asks it first.

    Args:
        source: rows with a text, and a column for each field or one with a JSON object.
        schema: the file of a flat JSON Schema.
        out: the expert to write; default: `experts/NAME.gguf`, NAME being that of `source`.
        graph_out: the graph to write; default: `graphs/NAME.yaml`. One that is there already is kept.
        text: the column of the texts; default: guessed.
        label: the column of the JSON object; default: guessed.
        max_risk: the promise: at most this share of the answers it gives alone is wrong in any field …
        delta: … except with this probability.
        test: rows that the promise is checked on; default: a third of `source`.
        seed: seed of every random choice.
        on_progress: called with a stage and the share of it that is done.
        on_note: called with each line about the rows.

    Raises:
        RequestError: the rows or the schema do not do, or a file may not be replaced or written.
        ConfigError: the extra `learn` is not installed.
    """
    began, source = time.monotonic(), Path(source)
    out, graph_out = _targets(source, out, graph_out)
    flat = read_schema(Path(schema))
    data = read_field_rows(source, flat, text, label)
    held = None if test is None else read_field_rows(Path(test), flat, text, label)
    train, tested = _split(data, held, seed)
    for line in (*data.lines, f"{len(train.texts):,} rows train, {len(tested.texts):,} are held out"):
        on_note(line)
    fitted = _fit(flat, train, seed, on_progress)
    for remark in fitted.remarks:
        on_note(remark)
    answers = answered(fitted.extractor, tested, on_progress)
    goal = Goal(kind="max_risk", value=max_risk, delta=delta)
    held_out = Graded(answers.confidence, answers.correct)
    verdict = judge(Graded(fitted.confidence, fitted.correct), held_out, goal)
    told = {
        "file": source.name, "sha256": data.sha256, "train": len(train.texts),
        "test_file": None if test is None else Path(test).name, "held_out": len(tested.texts),
    }  # fmt: skip
    card = _card(task_name(out), told, fitted, answers, verdict, goal)
    on_progress("writing", 0.0)
    whole = _write(fitted.extractor, cards.rounded(card | {"seed": seed}), flat, out, graph_out, began)
    return LearnedFields(out, graph_out, out.with_suffix(".json"), whole, verdict)


def _targets(source: Path, out: str | Path | None, graph: str | Path | None) -> tuple[Path, Path]:
    """Return where expert and graph go."""
    name = task_name(source)
    target = Path("experts") / f"{name}.gguf" if out is None else Path(out)
    beside = Path("graphs") / f"{name}.yaml" if graph is None else Path(graph)
    if beside.exists():
        raise RequestError(f"{beside} is there already; give another --graph-out, or move it away")
    return target, beside


def _card(
    task: str, data: dict[str, Any], fitted: FittedFields, answers: Answers, verdict: Verdict, goal: Goal
) -> dict[str, Any]:
    """Return the card as it stands in the expert's file: nothing in it differs between two equal calls."""
    own = Answers(fitted.fields, fitted.correct, fitted.confidence)
    return {
        "version": 1,
        "task": task,
        "size": "fields",
        "data": data,
        "accept": verdict.accept,
        "promise": cards.promise(verdict, goal.value, goal.delta or 0.0),
        "figures": {
            "cross_fitted": figures(own, verdict.accept),
            "held_out": figures(answers, verdict.accept) if len(answers.correct) else None,
        },
        "remarks": list(fitted.remarks),
        "versions": cards.versions(),
    }


class Answers(NamedTuple):
    """What answers are worth: by field and as a whole, whether each row is right and how sure it is."""

    fields: Mapping[str, tuple[Booleans, Floats]]
    correct: Booleans
    confidence: Floats


def answered(
    extractor: Extractor, rows: FieldRows, on_progress: Callable[[str, float], None] = lambda _, __: None
) -> Answers:
    """Answer rows that fitted nothing, as at run time."""
    vectors = _vectors(rows, on_progress) if extractor.heads and rows.texts else None
    made = [
        extractor.answer(None if vectors is None else vectors[index], text)
        for index, text in enumerate(rows.texts)
    ]
    fields, correct = {}, np.ones(len(made), bool)
    for field in extractor.fields:
        right = np.array(
            [
                same_value(each.answer.get(field.name), truth.get(field.name))
                for each, truth in zip(made, rows.answers, strict=True)
            ],
            bool,
        )
        fields[field.name] = (right, np.array([each.fields[field.name] for each in made], np.float64))
        correct &= right
    return Answers(fields, correct, np.array([each.confidence for each in made], np.float64))


def figures(answers: Answers, accept: float) -> dict[str, Any]:
    """Return what answers are worth, with 95 % intervals (Wilson 1927): of the whole answer, and by field."""
    right, rows = int(answers.correct.sum()), len(answers.correct)
    taken = answers.confidence >= accept
    wrong = int((taken & ~answers.correct).sum())
    return {
        "rows": rows,
        "accuracy": right / rows, "accuracy_ci": wilson(right, rows),
        "ece": ece(answers.confidence, answers.correct),
        "coverage": float(taken.mean()), "wrong_accepted": wrong,
        "risk": wrong / int(taken.sum()) if taken.any() else None,
        "risk_ci": wilson(wrong, int(taken.sum())) if taken.any() else None,
        "fields": {
            name: {
                "accuracy": float(own.mean()), "accuracy_ci": wilson(int(own.sum()), rows),
                "ece": ece(confidence, own),
            }
            for name, (own, confidence) in answers.fields.items()
        },
    }  # fmt: skip


def _split(data: FieldData, held: FieldData | None, seed: int) -> tuple[FieldRows, FieldRows]:
    """Return the rows that train and those held out, one of each group of near-duplicates."""
    rows = data.rows
    if held is not None:
        known = set(rows.texts)
        fresh = [index for index, text in enumerate(held.rows.texts) if text not in known]
        return rows, _first_of_groups(held.rows.take(fresh))
    kept, aside = put_aside(["row"] * len(rows.texts), rows.groups, seed)
    return rows.take(kept.tolist()), _first_of_groups(rows.take(aside.tolist()))


def _first_of_groups(rows: FieldRows) -> FieldRows:
    return rows.take(np.sort(np.unique(rows.groups, return_index=True)[1]).tolist())


def _fit(
    schema: dict[str, Any], rows: FieldRows, seed: int, on_progress: Callable[[str, float], None]
) -> FittedFields:
    closed = any(field.kind is FieldKind.CLOSED for field in flat_fields(schema))
    vectors = _vectors(rows, on_progress) if closed else np.empty((len(rows.texts), 0), np.float32)
    fitter = closed_fitter(rows.texts, vectors, rows.groups, seed=seed)
    return fit_fields(schema, rows, fitter, seed=seed, report=on_progress)


def _vectors(rows: FieldRows, on_progress: Callable[[str, float], None]) -> npt.NDArray[np.float32]:
    return embed_texts(bundled_path(ENCODER), rows.texts, MAX_TOKENS, on_progress, None)


def _write(
    extractor: Extractor, card: dict[str, Any], schema: dict[str, Any], out: Path, graph: Path, began: float
) -> dict[str, Any]:
    """Write expert, card and graph; return the card as it stands beside the expert."""
    name = str(card["task"])
    heads: dict[str, Any] = {f"{name}/{field}": head for field, head in extractor.heads.items()}
    try:
        write_expert(bundled_path(ENCODER), {name: Part(extractor)} | heads, {name: card}, out, MAX_TOKENS)
        data = out.read_bytes()
        beside = card | {
            "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        replace_file(
            out.with_suffix(".json"), (json.dumps(beside, indent=2, ensure_ascii=False) + "\n").encode()
        )
        replace_file(graph, _graph(card, schema, out, graph).encode())
    except OSError as error:
        raise RequestError(f"{error.filename or out}: {error.strerror}; give another --out") from error
    return beside


def _graph(card: Mapping[str, Any], schema: dict[str, Any], out: Path, graph: Path) -> str:
    made, promise = card["promise"]["certificate"], card["promise"]
    words = f"not certified: {promise['refused']}"
    if made is not None:
        words = (
            f"Certified: with probability {1 - promise['delta']:g}, at most {100 * promise['max_risk']:g} % "
            "of the answers it gives alone are wrong in any field "
            f"({made['errors']} of {made['accepted']} held-out ones were)."
        )
    return _GRAPH.format(
        name=card["task"], accept=card["accept"], promise=words,
        description=json.dumps(f"A text as JSON with {len(schema['properties'])} fields."),
        path=json.dumps(Path(os.path.relpath(out.resolve(), graph.resolve().parent)).as_posix()),
        schema=json.dumps(schema, ensure_ascii=False),
    )  # fmt: skip
