"""Every expert in reach: who uses it, how it was evaluated, whether it drifts, what it answers and saves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cascade.config.load import LoadedGraph, load_graph
from cascade.config.references import gguf_tasks
from cascade.config.source import parse, read_bytes
from cascade.errors import ConfigError, RequestError
from cascade.formats.expert_file import read_expert
from cascade.lab.monitoring.monitor import stage_reports
from cascade.policy.savings import Alone, PricedRun, Savings
from cascade.records import Record, Result
from cascade.trace import RunFilter, default_url, history

BUNDLED = Path(__file__).resolve().parents[2] / "experts"
_DAY = 86_400
_SPLITS = ("test", "held_out", "val")  # of a card, the most telling first
_YAML = (".yaml", ".yml")
_VERDICTS = ("drifted", "ok", "too few runs", "no reference")  # the most telling first


class Use(Record):
    """A model of a graph that is the expert, and the stages that ask it."""

    graph: str
    file: str
    model: str
    stages: tuple[str, ...]
    drift: str | None = None


class CardFigures(Record):
    """What an expert's card says of its last evaluation; `split` names the rows, None: only one is known."""

    split: str | None
    rows: int
    accuracy: float
    low: float | None
    high: float | None


class ExpertReport(Record):
    """An expert: a task of a GGUF file, or the file itself if it has none.

    Attributes:
        name: `bundled:NAME`, or the file's path.
        task: its task; None for a model without tasks.
        labels: how many there are.
        bytes: of the file.
        age_days: since the file was written here.
        uses: by which graphs.
        evaluation: of its card; None without one.
        drift: the most telling verdict of the stages that ask it; None where no run was stored.
        runs: stored runs of the graphs that use it.
        asked: in how many it was asked.
        answered: how many it answered.
        savings: of the runs that it answered, against the strongest model alone; None if that is unknown.
    """

    name: str
    task: str | None
    labels: int
    bytes: int
    age_days: float
    uses: tuple[Use, ...]
    evaluation: CardFigures | None
    drift: str | None
    runs: int
    asked: int
    answered: int
    savings: Savings | None

    @property
    def share(self) -> float | None:
        """Share of the stored runs that it answered; None without runs."""
        return self.answered / self.runs if self.runs else None


class Inventory(Record):
    """All experts in reach, and what was left out and why."""

    experts: tuple[ExpertReport, ...]
    graphs: tuple[str, ...]
    remarks: tuple[str, ...]


class _Key(NamedTuple):
    file: Path
    task: str | None


@dataclass
class _Runs:
    """The stored runs of a graph's name: how many, who was asked, who answered, and their prices."""

    count: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    answered: dict[str, list[PricedRun]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    priced: list[PricedRun] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.count += 1
        for model in {c.model for step in result.trace for c in step.calls if c.role == "answer"}:
            self.asked[model] = self.asked.get(model, 0) + 1
        run = None
        if result.baseline is not None:
            run = PricedRun(result.graph.partition("@")[0], result.cost_usd, result.baseline)
            self.priced.append(run)
        if result.text is not None and result.model is not None:
            self.counts[result.model] = self.counts.get(result.model, 0) + 1
            self.answered.setdefault(result.model, []).extend([] if run is None else [run])


def experts(graphs: Sequence[str | Path] | None = None, *, trace_db: str | None = None) -> Inventory:
    """Return every expert in reach: the bundled ones, those that graphs use, and those in `experts` folders.

    Nothing is loaded, asked or changed.

    Args:
        graphs: graph files, or folders with some; default: this folder and its `graphs`.
        trace_db: the trace store, a SQLAlchemy URL or a file; default: the usual one.

    Raises:
        RequestError: one of `graphs` does not exist.
        TraceError: the trace store cannot be read.
    """
    places = [Path(), Path("graphs")] if graphs is None else [Path(each) for each in graphs]
    remarks: list[str] = []
    loaded = [
        each for path in _graph_files(places, given=graphs is not None) if (each := _load(path, remarks))
    ]
    url = default_url() if trace_db is None else trace_db
    runs = {name: _runs(url, name) for name in {each.graph.name for each in loaded}}
    uses: dict[_Key, list[Use]] = {}
    for key in _files(places, remarks):
        uses.setdefault(key, [])
    for graph in loaded:
        drift = _drift(graph, url) if runs[graph.graph.name].count else {}
        for model, key in _experts_of(graph, remarks):
            uses.setdefault(key, []).append(_use(graph, model, drift))
    reports = [_report(key, found, runs, remarks) for key, found in uses.items()]
    return Inventory(
        experts=tuple(report for report in reports if report is not None),
        graphs=tuple(str(each.path) for each in loaded),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _graph_files(places: Iterable[Path], *, given: bool) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(path for path in place.iterdir() if path.suffix in _YAML and path.is_file())
        elif place.exists():
            yield place
        elif given:
            raise RequestError(
                f"--graphs: {place} does not exist; give graph files, or folders that hold some"
            )


def _load(path: Path, remarks: list[str]) -> LoadedGraph | None:
    """Return the graph of a YAML file; None, with a remark if it is a broken one, for others."""
    try:
        values, _ = parse(read_bytes(path), str(path))
        return load_graph(path, tightened=False) if {"models", "stages"} <= values.keys() else None
    except ConfigError as error:
        remarks.append(f"left out: {error.problems[0]}")
        return None


def _files(places: Iterable[Path], remarks: list[str]) -> Iterator[_Key]:
    """Yield the bundled experts, and those in folders called `experts` at or beside the places."""
    folders = [BUNDLED]
    for place in places:
        base = place if place.is_dir() else place.parent
        folders += [base / "experts", base.resolve().parent / "experts"]
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        for path in sorted(folder.glob("*.gguf")):
            yield from _tasks(path, remarks)


def _tasks(path: Path, remarks: list[str]) -> Iterator[_Key]:
    try:
        for task in gguf_tasks(path):
            yield _Key(path.resolve(), task)
    except ConfigError as error:
        remarks.append(f"left out: {error.problems[0]}")


def _experts_of(graph: LoadedGraph, remarks: list[str]) -> Iterator[tuple[str, _Key]]:
    """Yield the models of a graph whose weights are a file here, with the file and its task."""
    for name, model in graph.graph.models.items():
        weights = model.weights(graph.base)
        if weights is None:
            continue
        keys = list(_tasks(weights.file, remarks))
        chosen = [key for key in keys if weights.task is None or key.task == weights.task]
        yield name, chosen[0] if len(chosen) == 1 else _Key(weights.file.resolve(), weights.task)


def _runs(url: str, name: str) -> _Runs:
    runs = _Runs()
    for result in history(url, RunFilter(graph=name)):
        if result.status != "waiting":
            runs.add(result)
    return runs


def _drift(graph: LoadedGraph, url: str) -> dict[str, str]:
    return {report.stage: report.verdict for report in stage_reports(graph, url)}


def _use(graph: LoadedGraph, model: str, drift: Mapping[str, str]) -> Use:
    stages = tuple(stage.name for stage in graph.graph.stages if model in stage.ask)
    verdicts = [drift[stage] for stage in stages if stage in drift]
    return Use(
        graph=graph.graph.name, file=str(graph.path), model=model, stages=stages, drift=_telling(verdicts)
    )


def _telling(verdicts: Iterable[str]) -> str | None:
    return min(verdicts, key=_VERDICTS.index, default=None)


def _report(
    key: _Key, uses: Sequence[Use], runs: Mapping[str, _Runs], remarks: list[str]
) -> ExpertReport | None:
    pairs = list(dict.fromkeys((use.graph, use.model) for use in uses))
    own = [runs[name] for name in dict.fromkeys(use.graph for use in uses)]
    answered = [run for name, model in pairs for run in runs[name].answered.get(model, [])]
    alone = Alone([run for each in own for run in each.priced])
    try:
        labels = gguf_tasks(key.file).get(key.task or "", ())
        evaluation = _evaluation(_card(key))
        facts = key.file.stat()
    except (ConfigError, OSError) as error:
        remarks.append(f"left out: {key.file}: {error}")
        return None
    return ExpertReport(
        name=_name(key.file),
        task=key.task,
        labels=len(labels),
        bytes=facts.st_size,
        age_days=max(0.0, time.time() - facts.st_mtime) / _DAY,
        uses=tuple(uses),
        evaluation=evaluation,
        drift=_telling(use.drift for use in uses if use.drift is not None),
        runs=sum(each.count for each in own),
        asked=sum(runs[name].asked.get(model, 0) for name, model in pairs),
        answered=sum(runs[name].counts.get(model, 0) for name, model in pairs),
        savings=alone.savings(answered),
    )


def _name(file: Path) -> str:
    if file.parent == BUNDLED:
        return f"bundled:{file.stem}"
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)


def _card(key: _Key) -> Mapping[str, Any]:
    """Return the card of a task: within a learned expert's file, or beside another one; empty without one."""
    learned = read_expert(key.file)
    if learned is not None and key.task in learned.tasks:
        return learned.tasks[key.task].card
    try:
        card = json.loads(key.file.with_suffix(".json").read_bytes())
        found = card.get("tasks", {}).get(key.task, {})
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _evaluation(card: Mapping[str, Any]) -> CardFigures | None:
    """Return the figures of the first of a card's row sets that has an accuracy, test rows before others."""
    found = {**card, **(card.get("figures") or {})}
    parts = {name: part for name, part in found.items() if isinstance(part, dict)}
    ordered = sorted(
        parts.items(), key=lambda item: _SPLITS.index(item[0]) if item[0] in _SPLITS else len(_SPLITS)
    )
    for split, part in [(None, card), *ordered]:
        accuracy, rows = part.get("accuracy"), part.get("rows")
        if isinstance(accuracy, int | float) and isinstance(rows, int):
            ends = part.get("accuracy_ci") or part.get("interval_95") or (None, None)
            return CardFigures(split=split, rows=rows, accuracy=accuracy, low=ends[0], high=ends[1])
    return None
