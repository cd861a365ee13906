"""The card of a learned expert as the terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_SHOWN = 12  # labels of a task
_PAIRS = 3  # that are confused


def described(path: Path) -> dict[str, Any]:
    """Return a GGUF file's name, size, and tasks with labels and cards, as plain JSON.

    Raises:
        ConfigError: the file is broken.
    """
    from cascade.formats.expert_file import read_expert, task_labels
    from cascade.formats.gguf_parts import file_bytes

    expert = read_expert(path)
    cards = {} if expert is None else {name: task.card for name, task in expert.tasks.items()}
    tasks = {
        name: {"labels": list(labels), "card": cards.get(name)} for name, labels in task_labels(path).items()
    }
    return {"file": str(path), "bytes": file_bytes(path), "tasks": tasks}


def lines_of(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what `described` found, as a title and a text each."""
    yield "file", f"{found['file']}, {found['bytes'] / 1e6:.1f} MB"
    if not found["tasks"]:
        yield "tasks", "none: a model without labels of its own"
    for name, task in found["tasks"].items():
        labels = task["labels"]
        more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        yield "task", f"{name}: {len(labels)} labels: {', '.join(labels[:_SHOWN])}{more}"
        if task["card"]:
            try:
                yield from [*_data(task["card"]["data"]), *card_lines(task["card"])]
            except (KeyError, TypeError, ValueError, AttributeError):  # another program's card
                yield "card", "in another form; --json shows it"


def _data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "data", f"{data['file']} (sha256 {data['sha256'][:16]}…), {data['rows']:,} rows"
    yield "rows", f"{data['train']:,} trained, {data['held_out']:,} held out: {data['split']}"


def card_lines(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a card says of quality and promise, as a title and a text each."""
    from cascade.lab.evaluation.formatting import percent

    figures = card["figures"]
    if note := card["data"].get("teacher_note"):
        yield "labels", note
    for name, rows in (("held_out", "held-out rows"), ("cross_fitted", "rows that trained, cross-fitted")):
        if figures[name] is not None:
            yield from _figures(figures[name], rows)
    if figures["cross_fitted"]["known_auroc"] is None:
        yield "unknown", figures["cross_fitted"]["known_note"]
    for pair in card["confused"][:_PAIRS]:
        rows = f"{pair['rows']} row{'' if pair['rows'] == 1 else 's'}"
        yield "confused", f"{pair['label']} answered as {pair['answered']}: {rows}"
    for part in card["slices"]:
        accuracy = f"accuracy {percent(part['accuracy'])}{_interval(part['accuracy_ci'])}"
        answers = f"answers {percent(part['coverage'])}"
        yield "slice", f"{part['value']}: {part['rows']} rows, {accuracy}, {answers}"
    yield "promise", _promise(card["promise"])


def _figures(part: Mapping[str, Any], rows: str) -> Iterator[tuple[str, str]]:
    from cascade.lab.evaluation.formatting import percent

    yield "accuracy", f"{percent(part['accuracy'])}{_interval(part['accuracy_ci'])} on {part['rows']} {rows}"
    risk = (
        ""
        if part["risk"] is None
        else f", {percent(part['risk'])} of these wrong{_interval(part['risk_ci'])}"
    )
    yield "answers", f"{percent(part['coverage'])} of the texts alone{risk}"
    known = part["known_auroc"]
    quality = [
        f"calibration error {part['ece']:.3f}",
        "" if part["auroc"] is None else f"AUROC right/wrong {part['auroc']:.3f}",
        "" if known is None else f"known/unknown {known:.3f}",
    ]
    yield "confidence", ", ".join(filter(None, quality))


def _promise(promise: Mapping[str, Any]) -> str:
    made = promise["certificate"]
    if made is None:
        rows = promise["rows_needed"]
        needed = "" if rows is None else f"; about {rows:,} rows like these, held out, would do"
        return f"refused: {promise['refused']}{needed}"
    return (
        f"certified: with probability {1 - promise['delta']:g}, at most {100 * promise['max_risk']:g}% of "
        f"what the expert answers is wrong (bound {100 * made['bound']:.2f}%: {made['errors']} errors of "
        f"{made['accepted']} answered, {made['rows']} held-out rows)"
    )


def _interval(ends: list[float] | None) -> str:
    from cascade.lab.evaluation.formatting import percent

    return "" if ends is None else f" ({percent(ends[0])} to {percent(ends[1])})"
