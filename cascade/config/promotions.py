"""What was promoted in a graph file, kept beside it, so that one command undoes it.

The history holds the whole text of the graph before each promotion. It is written before the graph is, so a
crash in between leaves an entry whose graph never came: it does not match the file and undoes nothing.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from cascade.config.source import read_bytes
from cascade.errors import ConfigError
from cascade.files import read_record, replace_file, sole_writer, write_whole
from cascade.records import Record

_REDO = "remove it to forget what was promoted"


class Promotion(Record):
    """One promotion: at a stage of the graph, model `new` in place of model `old`.

    `before` is the text of the graph file until then, `before_sha256` and `after_sha256` are the SHA-256
    (hex) of its bytes before and after. `rows` proved that `new` is not worse by `epsilon`, at `delta`.
    `undone` is the time of the rollback and `why` its reason; both are None while the promotion holds.
    """

    stage: str
    old: str
    new: str
    at: str
    epsilon: float
    delta: float
    rows: int
    before: str
    before_sha256: str
    after_sha256: str
    undone: str | None = None
    why: str | None = None


class Promotions(Record):
    """The history of a graph file, the oldest promotion first."""

    version: int = 1
    graph: str
    promotions: tuple[Promotion, ...] = ()


def history_path(graph: Path) -> Path:
    """Return the file that holds the promotions of the graph file `graph`."""
    return graph.with_suffix(".promotions.json")


def read_promotions(graph: Path) -> tuple[Promotion, ...]:
    """Return the promotions of a graph file, the oldest first; none if there is no history.

    Raises:
        ConfigError: the history is broken.
    """
    path = history_path(graph)
    return read_record(Promotions, path, "promotions", _REDO).promotions if path.exists() else ()


def holding(graph: Path) -> Promotion | None:
    """Return the newest promotion that has not been undone, if any.

    Raises:
        ConfigError: the history is broken.
    """
    return next((each for each in reversed(read_promotions(graph)) if each.undone is None), None)


def now() -> str:
    """Return the time, UTC in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256(data: bytes) -> str:
    """Return the SHA-256 (hex) of `data`."""
    return hashlib.sha256(data).hexdigest()


def write_promotion(graph: Path, before: bytes, after: bytes, promotion: Promotion) -> None:
    """Note `promotion` in the history, and then replace the text of the graph file by `after`.

    Raises:
        ConfigError: the file does not hold `before` any more, or it cannot be written; it is as it was.
    """
    with sole_writer(graph):
        if read_bytes(graph) != before:
            raise ConfigError(f"{graph}: was changed in the meantime; nothing is promoted; try again")
        _write_history(graph, [*read_promotions(graph), promotion])
        _replace(graph, after)


def undo_promotion(graph: Path, why: str) -> Promotion:
    """Bring back the text that the graph file had before its newest promotion; return that promotion.

    Raises:
        ConfigError: nothing is promoted, or the file was edited since, which would be lost.
    """
    with sole_writer(graph):
        promotions = list(read_promotions(graph))
        index = next((i for i in reversed(range(len(promotions))) if promotions[i].undone is None), None)
        if index is None:
            raise ConfigError(f"{graph}: no promotion is in force, so there is nothing to undo")
        promotion = promotions[index]
        found = sha256(read_bytes(graph))
        if found not in (promotion.after_sha256, promotion.before_sha256):
            raise ConfigError(
                f"{graph}: was edited since {promotion.new!r} was promoted at stage {promotion.stage!r} "
                f"({promotion.at}); it is left as it is, so that no edit is lost. Ask {promotion.old!r} "
                f"there again by hand; the text before is the last one in {history_path(graph)} ('before')"
            )
        if found == promotion.after_sha256:  # otherwise it never came, or a rollback was cut short
            _replace(graph, promotion.before.encode())
        promotions[index] = undone = promotion.model_copy(update={"undone": now(), "why": why})
        _write_history(graph, promotions)
        return undone


def _write_history(graph: Path, promotions: list[Promotion]) -> None:
    kept = Promotions(graph=graph.name, promotions=tuple(promotions))
    text = json.dumps(kept.model_dump(mode="json"), indent=1, ensure_ascii=False)
    write_whole(text + "\n", history_path(graph), "promotions")


def _replace(graph: Path, data: bytes) -> None:
    try:
        replace_file(graph, data)
    except OSError as error:
        raise ConfigError(f"{graph}: cannot be written: {error.strerror}; it is as it was") from error
