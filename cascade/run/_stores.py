"""What a cascade stores: traces, daily budgets, and runs that wait for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cascade.errors import ConfigError
from cascade.spec.parts import DayBudgets

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph
    from cascade.graph.checkpoints import Checkpoints
    from cascade.trace import BudgetBook, TraceStore


@dataclass(frozen=True)
class Stores:
    """The stores of one cascade, all in one database; None where nothing is to be stored."""

    trace: TraceStore | None = None
    book: BudgetBook | None = None
    checkpoints: Checkpoints | None = None

    @classmethod
    def none(cls, loaded: LoadedGraph) -> Self:
        """Store nothing; runs that wait for a person wait in memory.

        Raises:
            ConfigError: the graph has budgets, which need a database.
        """
        if _budgeted(loaded):
            text = "budgets: they are kept in the trace database; load the graph with record=True"
            raise ConfigError(f"{loaded.path}: {text}")
        return cls()

    @classmethod
    def open(
        cls, loaded: LoadedGraph, url: str | None, granted: Callable[[str], float | None] | None = None
    ) -> Self:
        """Open what the graph needs at `url`; default: CASCADE_TRACE_DB, else the user's data folder.

        `granted` returns what an account may spend in a UTC day, in USD, by its API key.

        Raises:
            TraceError: the database cannot be opened.
        """
        from cascade.trace import TraceStore, default_url

        url = default_url() if url is None else url
        trace = TraceStore(url, store_text=loaded.graph.trace.store_text)
        book, checkpoints = None, None
        try:
            if granted is not None or _budgeted(loaded):
                from cascade.trace import BudgetBook

                book = BudgetBook(url, granted=granted)
            if loaded.graph.has_person:
                from cascade.graph.checkpoints import open_checkpoints

                checkpoints = open_checkpoints(url)
        except BaseException:
            cls(trace, book).close()
            raise
        return cls(trace, book, checkpoints)

    def close(self) -> None:
        """Finish pending writes and close the database."""
        for store in (self.trace, self.book, self.checkpoints):
            if store is not None:
                store.close()


def _budgeted(loaded: LoadedGraph) -> bool:
    """Return whether the graph, or one within it, has budgets."""
    return loaded.graph.budgets != DayBudgets() or any(map(_budgeted, loaded.nested.values()))
