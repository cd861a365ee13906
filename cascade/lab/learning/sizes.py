"""The sizes of an expert: each is one way of making it out of rows, behind one small interface.

A size is a function `(rows, material) -> Trained`. It asks `material.session.seconds_left()` now and then,
and ends with the best it has when that is 0. What takes long goes through `material.store`, so that an
interrupted call can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cascade.config.messages import suggest
from cascade.errors import RequestError
from cascade.lab.learning.session import Session
from cascade.lab.learning.settings import LearnSettings
from cascade.lab.learning.store import Store
from cascade.lab.learning.vectors import Vectors

Column = NDArray[np.float64]


class Rows(Protocol):
    """Labelled rows; rows of one group never stand on both sides of a split."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """The name of each text's label."""
        ...

    @property
    def groups(self) -> NDArray[np.intp]:
        """A number for each text's group."""
        ...


class Answers(NamedTuple):
    """What an expert says of some texts; each array has one value a text.

    Attributes:
        predicted: index of the answered label.
        confidence: calibrated P(correct).
        known: how much the text looks like those that it learned from, 0 to 1.
        inside: the probability of the best label that is not the out-of-scope one; None where not kept.
    """

    predicted: NDArray[np.intp]
    confidence: Column
    known: Column
    inside: Column | None = None


@dataclass(frozen=True)
class Material:
    """What a size works with, beside the rows.

    Attributes:
        settings: what was asked for.
        unlabelled: texts without labels.
        session: the clock, the progress, the notes.
        store: what is kept for `--resume`.
        vectors: of the bundled encoder; what was embedded once is not embedded again.
    """

    settings: LearnSettings
    unlabelled: Sequence[str]
    session: Session
    store: Store
    vectors: Vectors


class Trained(Protocol):
    """An expert that is trained and not yet written.

    Attributes:
        size: the name of its size.
        labels: its labels.
        scores: what it says of the rows that it was made from, each row's answer from a fit without that
            row's group.
        rows: indices of the rows that `scores` speaks of, in its order.
        notes: what it chose and measured, for the card: plain JSON.
        confidence: the keys of `confidence` in a graph that uses it.
    """

    size: str
    labels: Sequence[str]
    scores: Answers
    rows: NDArray[np.intp]
    notes: Mapping[str, Any]
    confidence: Mapping[str, str]

    def answers(self, texts: Sequence[str], session: Session) -> Answers:
        """Answer texts as the expert will at run time, through llama.cpp."""
        ...

    def write(self, out: Path, task: str, card: Mapping[str, Any]) -> None:
        """Write the expert's file whole, with its card inside, the same bytes for the same expert and card.

        Raises:
            OSError: it cannot be written; what was there before is as it was.
        """
        ...


Size = Callable[[Rows, Material], Trained]
# Size → where its function is, and what it needs that the extra `learn` does not bring.
SIZES: dict[str, tuple[str, str | None]] = {
    "head": ("cascade.lab.learning.head_size:train", None),
    "tuned": ("cascade.lab.learning.tuned_size:train", "torch"),
    "tiny": ("cascade.lab.learning.tiny_size:train", "torch"),
    "auto": ("cascade.lab.learning.auto_size:train", "torch"),
}


def installed(name: str) -> bool:
    """Return whether what a size needs is installed."""
    needed = SIZES[name][1]
    return needed is None or find_spec(needed) is not None


def pick_size(name: str | None) -> tuple[str, Size]:
    """Return a size by name; None is `auto` where there is more than `head` to choose from.

    Raises:
        RequestError: there is none of that name, or it needs what is not installed.
    """
    if name is None:
        name = "auto" if "auto" in SIZES and installed("auto") else "head"
    if name not in SIZES:
        raise RequestError(f"--size is {name!r}; {suggest(name, SIZES)}")
    place, needed = SIZES[name]
    if not installed(name):
        raise RequestError(f"--size {name} needs {needed}; pip install 'cascade-moe[train]', or take head")
    module, _, function = place.partition(":")
    size: Size = getattr(import_module(module), function)
    return name, size
