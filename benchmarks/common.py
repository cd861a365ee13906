"""What the benchmarks share: arguments, rows, rates with intervals, tables and JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from engine_sections.load import Watch
from published import default_dir
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cascade.errors import CascadeError
from cascade.policy.intervals import Interval, wilson

T = TypeVar("T")
Figures = dict[str, Any]
GRAPHS = Path(__file__).resolve().parents[1] / "graphs"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every benchmark has."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--data", type=Path, default=default_dir(), help="folder of the data sets")
    arguments.add_argument("--json", action="store_true", help="print one JSON object in place of tables")
    arguments.add_argument("--rows", type=int, help="at most this many rows of each set, for a quick look")
    return arguments


class Stopwatch:
    """Time since it was made, and what other processes used of the machine meanwhile."""

    def __init__(self) -> None:
        self._start, self._own, self._watch = time.perf_counter(), time.process_time(), Watch()

    def figures(self) -> Figures:
        """Return seconds of wall time, of own CPU time, and the cores that others used."""
        return {
            "seconds": time.perf_counter() - self._start,
            "cpu_seconds": time.process_time() - self._own,
            "others_cores": self._watch.others(),
        }

    def line(self) -> str:
        """Return the same for people."""
        found = self.figures()
        return (
            f"took {found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU); "
            f"other processes used {found['others_cores']:.2f} cores meanwhile"
        )


def thin(rows: Sequence[T], most: int | None) -> list[T]:
    """Return at most `most` of `rows`, evenly spaced."""
    if most is None or most >= len(rows):
        return list(rows)
    return [rows[index * len(rows) // most] for index in range(most)]


def rate(name: str, hits: int, rows: int) -> Figures:
    """Return a share and its 95 % Wilson interval; None without rows."""
    return {name: hits / rows if rows else math.nan, f"{name}_ci": wilson(hits, rows)}


def shown(figures: Figures, name: str, digits: int = 3) -> str:
    """Return a figure with its interval as a table cell."""
    value = figures.get(name)
    if value is None or math.isnan(value):
        return "–"
    low, high = figures.get(f"{name}_ci", Interval(math.nan, math.nan))
    spread = "" if math.isnan(low) else f" [dim]{low:.{digits}f}–{high:.{digits}f}[/dim]"
    return f"{value:.{digits}f}{spread}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(made)


def progress() -> Progress:
    """Return a progress bar on standard error."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), transient=True)


def print_json(figures: Figures) -> None:
    """Print one JSON object; NaN (a figure that the rows cannot tell) becomes null."""
    print(json.dumps(_plain(figures), ensure_ascii=False))


def guarded(main: Callable[[], None]) -> None:
    """Run a benchmark; an error that cascade raises on purpose is a message and exit status 1."""
    try:
        main()
    except CascadeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
