"""The labels of a user's rows: whether an answer equals one, and whether the models can give them at all."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cascade.confidence.same import normalise
from cascade.errors import RequestError

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph

_SHOWN = 3  # foreign labels in a message, the most frequent first
_LISTED = 8  # of a label set; a larger one is only counted
_WIDTH = 60  # characters of a label in a message


class LabelSet(NamedTuple):
    """What models may answer: the labels of those with a closed set, and the names of the others."""

    labels: tuple[str, ...]
    free: tuple[str, ...]


def is_right(answer: str, label: str) -> bool:
    """Return whether an answer equals the label, as answers are compared everywhere (`normalise`)."""
    return normalise(answer) == normalise(label)


def label_set(loaded: LoadedGraph, models: Iterable[str]) -> LabelSet:
    """Return what `models` of a graph may answer; a model that is a graph answers what its stages may."""
    labels: dict[str, None] = {}
    free: list[str] = []
    for name in models:
        inner, facts = loaded.nested.get(name), loaded.facts.get(name)
        if inner is not None:
            own = label_set(inner, asked_models(inner))
            labels.update(dict.fromkeys(own.labels))
            free += [f"{name}.{model}" for model in own.free]
        elif facts is None or facts.labels is None:
            free.append(name)
        else:
            labels.update(dict.fromkeys(facts.labels))
    return LabelSet(tuple(labels), tuple(free))


def asked_models(loaded: LoadedGraph) -> list[str]:
    """Return the models that the stages of a graph ask, each once."""
    return list(dict.fromkeys(name for stage in loaded.graph.stages for name in stage.ask))


def check_labels(labels: Sequence[str], known: LabelSet, source: str) -> str | None:
    """Return a remark on labels that no answer can equal; None if there is none, or no closed set.

    Args:
        labels: the rows' labels.
        known: what the models may answer.
        source: where the rows are from, for the message.

    Raises:
        RequestError: most labels are outside the set, and no model answers freely.
    """
    own = {normalise(label) for label in known.labels}
    counts = Counter(labels).items()
    foreign = Counter({label: rows for label, rows in counts if normalise(label) not in own})
    if not own or not foreign:
        return None
    count = foreign.total()
    text = (
        f"{source}: {count} of {len(labels)} labels are not among {_described(known.labels)}: "
        f"{_named(foreign, known.labels)}"
    )
    if known.free:
        return f"{text}; only {', '.join(known.free)} may answer them"
    if 2 * count > len(labels):
        raise RequestError(f"{text}; give rows with the models' labels; --label COL names another column")
    return f"{text}; no answer to these rows can be right"


def _described(labels: Sequence[str]) -> str:
    if len(labels) > _LISTED:
        return f"the {len(labels)} that the models answer"
    return f"those that the models answer ({', '.join(map(_short, labels))})"


def _named(foreign: Counter[str], known: Sequence[str]) -> str:
    by_key = {normalise(label): label for label in known}
    parts = []
    for label, count in foreign.most_common(_SHOWN):
        near = difflib.get_close_matches(normalise(label)[: 2 * _WIDTH], by_key, n=1)
        meant = f", did you mean {_short(by_key[near[0]])}?" if near else ""
        parts.append(f"{_short(label)} ({count} row{'' if count == 1 else 's'}{meant})")
    more = len(foreign) - _SHOWN
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _short(label: str) -> str:
    return repr(label if len(label) <= _WIDTH else f"{label[: _WIDTH - 1]}…")
