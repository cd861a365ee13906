"""What `cascade learn` was asked for, checked before anything is read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from cascade.errors import RequestError
from cascade.extras import require
from cascade.lab.reading.from_traces import TraceOptions
from cascade.lab.reading.row_reading import RowOptions
from cascade.policy.artifact import Goal

MAX_RISK, DELTA, MINUTES = 0.02, 0.1, 20.0
_LENGTH = 64  # characters of a name in a graph
_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def check_installed() -> None:
    """Check that the packages of the extra `learn` are there.

    Raises:
        ConfigError: one is not.
    """
    for package in ("llama_cpp", "scipy", "threadpoolctl"):
        require(package, "cascade learn", "learn")


@dataclass(frozen=True)
class LearnSettings:
    """How to learn.

    Attributes:
        out: the expert's file (.gguf); its card stands beside it with the suffix .json.
        graph_out: the graph's file.
        text: column of the texts; None: guessed.
        label: column of the right answers; None: guessed.
        traces: learn from the stored runs of the graph in the given file; None: from rows in it.
        rows: what else is told of the rows.
        size: how large the expert may be: `head`, `tuned`, `tiny`, `auto`; None: the best that is installed.
        minutes: how long it may take in all.
        max_risk: the promise: at most this share of what the expert answers is wrong …
        delta: … except with this probability.
        test: a file of labelled rows that the promise is checked on; None: some rows are held out.
        unlabelled: a file of texts without labels, for the sizes that can use them.
        seed: seed of every random choice.
        resume: go on with what an interrupted call has left beside `out`.
    """

    out: Path
    graph_out: Path
    text: str | None = None
    label: str | None = None
    rows: RowOptions = field(default_factory=RowOptions)
    traces: TraceOptions | None = None
    size: str | None = None
    minutes: float = MINUTES
    max_risk: float = MAX_RISK
    delta: float = DELTA
    test: Path | None = None
    unlabelled: Path | None = None
    seed: int = 0
    resume: bool = False

    @property
    def task(self) -> str:
        """The name of the expert's task and of its graph: that of the file."""
        return task_name(self.out)

    @property
    def card(self) -> Path:
        """The file of the card."""
        return self.out.with_suffix(".json")


def goal_of(settings: LearnSettings) -> Goal:
    """Return the promise as tuning has it."""
    return Goal(kind="max_risk", value=settings.max_risk, delta=settings.delta)


def task_name(path: Path) -> str:
    """Return a name for the task that is learned into (or from) the file at `path`."""
    name = _NAME.sub("-", path.stem).strip("-_").lower() or "expert"
    return (name if name[0].isalpha() else f"task-{name}")[:_LENGTH].rstrip("-_")


def check_settings(settings: LearnSettings) -> LearnSettings:
    """Return `settings`.

    Raises:
        RequestError: a number is out of its range, or a file cannot have the name that is asked for.
    """
    for option, value in (("--max-risk", settings.max_risk), ("--delta", settings.delta)):
        if not 0.0 < value < 1.0:
            raise RequestError(f"{option} is {value:g}; expected a number between 0 and 1")
    if not (math.isfinite(settings.minutes) and settings.minutes > 0):
        raise RequestError(f"--minutes is {settings.minutes:g}; expected a number above 0")
    if settings.seed < 0:
        raise RequestError(f"--seed is {settings.seed}; expected 0 or more")
    for option, path, suffixes in (
        ("--out", settings.out, (".gguf",)),
        ("--graph-out", settings.graph_out, (".yaml", ".yml")),
    ):
        if path.suffix.lower() not in suffixes:
            raise RequestError(f"{option} is {str(path)!r}; expected a file that ends in {suffixes[0]}")
        if path.is_dir():
            raise RequestError(f"{option} is {str(path)!r}, a folder; give a file in it")
    return settings
