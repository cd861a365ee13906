"""`cascade run --watch`: draw the running graph in the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from cascade.config.draw import Box, outline
from cascade.explain import compare
from cascade.explain.formatting import clean, format_pair, format_usd
from cascade.observers import Observer
from cascade.records import Request, Result, Step
from cascade.spec.schema import Graph

_REFRESHES_PER_SECOND = 12
_WIDTH = 72
_STYLES = {"accept": "green", "escalate": "yellow", "route": "cyan", "abstain": "red"}
_WORDS = {"accept": "accepted", "escalate": "escalated", "route": "routed", "abstain": "gave up"}


@dataclass
class _StageActivity:
    """What a stage has done so far."""

    asking: Counter[str] = field(default_factory=Counter)  # run → 1 while the stage works on it
    actions: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    last: str = ""


class Watch(Observer):
    """Draws the stages of `graph` and what each is doing, on stderr, while it is open."""

    def __init__(self, graph: Graph, console: Console | None = None) -> None:
        self._name = graph.name
        self._nested_runs: set[str] = set()  # runs of nested graphs
        self._boxes = [box for box in outline(graph)[0] if box.kind in ("asks", "branches")]
        self._activity = {box.lines[0]: _StageActivity() for box in self._boxes}
        self._live = Live(
            get_renderable=self.drawing,
            console=console or Console(stderr=True),
            refresh_per_second=_REFRESHES_PER_SECOND,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def on_run_start(self, run: str, graph: str, request: Request) -> None:
        """See `Observer.on_run_start`."""
        if graph.partition("@")[0] != self._name:
            self._nested_runs.add(run)

    def on_stage_start(self, run: str, stage: str) -> None:
        """See `Observer.on_stage_start`."""
        if run not in self._nested_runs:
            self._activity[stage].asking[run] = 1

    def on_stage_end(self, run: str, step: Step) -> None:
        """See `Observer.on_stage_end`."""
        if run in self._nested_runs:
            return
        activity = self._activity[step.stage]
        activity.asking.pop(run, None)
        activity.actions[step.decision.action] += 1
        activity.cost_usd += sum(call.cost_usd for call in step.calls)
        activity.last = _reason(step)

    def on_run_end(self, result: Result) -> None:
        """See `Observer.on_run_end`."""
        self._remove(result.run)

    def on_run_error(self, run: str) -> None:
        """See `Observer.on_run_error`."""
        self._remove(run)

    def _remove(self, run: str) -> None:
        self._nested_runs.discard(run)
        for activity in self._activity.values():
            activity.asking.pop(run, None)

    def drawing(self) -> RenderableType:
        """Return the stages as boxes, from top to bottom."""
        parts: list[RenderableType] = []
        for box in self._boxes:
            if parts:
                parts.append(Text("   │", style="dim"))
            parts.append(_box(box, self._activity[box.lines[0]]))
        return Group(*parts)


def _box(box: Box, activity: _StageActivity) -> Panel:
    asking = sum(activity.asking.values())
    lines = [Text(clean(line, _WIDTH), style="dim") for line in box.lines[1:]]
    state = Text()
    if asking:
        state.append(f"● asking {asking}" if asking > 1 else "● asking", style="bold")
    for action, times in sorted(activity.actions.items()):
        state.append("   " if state else "")
        state.append(f"{_WORDS[action]} {times}", style=_STYLES[action])
    if activity.cost_usd:
        state.append(f"   {format_usd(activity.cost_usd)}")
    if activity.last:
        state.append(f"   {activity.last}", style="dim")
    style = "bold" if asking else "green" if activity.actions["accept"] else "dim"
    return Panel(
        Group(*lines, state), title=box.lines[0], title_align="left", width=_WIDTH, border_style=style
    )


def _reason(step: Step) -> str:
    """Return the last decision in a few words: its comparison if it has one, else its rule."""
    comparison = compare(step)
    if comparison is None:
        return step.decision.rule.replace("_", " ")
    value, needed = format_pair(comparison.value, comparison.threshold)
    return f"{value} {'≥' if comparison.reached else '<'} {needed}"
