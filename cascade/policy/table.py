"""Outcome tables in columns: what each model answered, row by row, and what that cost.

The one shape that tuning and evaluation work on; `cascade.lab.tables.outcomes` reads and writes the files.
All columns have one value a row, in the order of `ids`. What was not measured is NaN or None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ModelOutcomes:
    """One model's columns; every number of a row is NaN where the model was not run on it.

    Where its call failed the row has a cost, and no quality.

    Attributes:
        quality: 1 right, 0 wrong, or a grade between.
        cost_usd: US dollars of that answer.
        seconds: time of that answer.
        confidence: P(correct) in [0, 1], as the model's check reported it.
        signals: name → raw measurement.
        texts: the answers, for agreement between models and their length.
        truncated: where the answer is known to have been cut off at `max_tokens`; None: nowhere.
    """

    quality: Column
    cost_usd: Column
    seconds: Column
    confidence: Column
    signals: Mapping[str, Column] = field(default_factory=dict)
    texts: Sequence[str | None] = ()
    truncated: Mask | None = None

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Where the model was asked, and paid, and gave no answer."""
        return np.asarray(np.isnan(self.quality) & np.isfinite(self.cost_usd))

    @property
    def credit(self) -> Column:
        """The quality, 0 where the call failed."""
        return np.where(self.failed, 0.0, self.quality)

    @property
    def unscored(self) -> Mask:
        """Where a check has nothing to judge while a later stage is left: a failed call or a cut answer."""
        return self.failed if self.truncated is None else self.failed | self.truncated

    def take(self, rows: Rows) -> ModelOutcomes:
        """Return the given rows, in that order."""
        return ModelOutcomes(
            self.quality[rows],
            self.cost_usd[rows],
            self.seconds[rows],
            self.confidence[rows],
            {name: column[rows] for name, column in self.signals.items()},
            [self.texts[row] for row in rows] if self.texts else (),
            None if self.truncated is None else self.truncated[rows],
        )


@dataclass(frozen=True)
class Outcomes:
    """A table: rows, models, and the fields that rows can be sliced by.

    Attributes:
        ids: the rows' names.
        prompts: the requests; None where the table does not hold one.
        models: name → columns, in the table's order (cheapest first, by convention).
        fields: name → one text per row, for slices.
        sha256: of the file that the rows are from; empty for rows that are from none.
        parent: the table and its rows that these were taken from, so that texts are read only once.
        memo: what was computed from the rows; it belongs to who computes it.
    """

    ids: Sequence[str]
    prompts: Sequence[str | None]
    models: Mapping[str, ModelOutcomes]
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sha256: str = ""
    # Not for the caller to give, so that a table with other columns starts anew (`dataclasses.replace`).
    parent: tuple[Outcomes, Rows] | None = field(init=False, default=None, compare=False, repr=False)
    memo: dict[object, Any] = field(init=False, default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Rows) -> Outcomes:
        """Return the given rows, in that order; `sha256` stays that of the whole file."""
        taken = Outcomes(
            [self.ids[row] for row in rows],
            [self.prompts[row] for row in rows],
            {name: model.take(rows) for name, model in self.models.items()},
            {name: [values[row] for row in rows] for name, values in self.fields.items()},
            self.sha256,
        )
        object.__setattr__(taken, "parent", (self, rows))
        return taken
