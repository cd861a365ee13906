"""What a graph looks like: boxes and arrows, and their text as a Mermaid flowchart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cascade.spec.schema import Graph, Stage

START, ANSWER, GIVE_UP = "request", "answer", "finish"  # Mermaid cannot have a node called `end`
Kind = Literal["start", "asks", "branches", "answer", "end"]


@dataclass(frozen=True)
class Box:
    """A node: lines of text, its name first; `accepts` says when a stage answers, if it ever does."""

    key: str
    kind: Kind
    lines: tuple[str, ...]
    accepts: str | None = None


@dataclass(frozen=True)
class Arrow:
    """A connection from box `source` to box `target`, taken when `label` holds."""

    source: str
    target: str
    label: str = ""


def outline(graph: Graph) -> tuple[list[Box], list[Arrow]]:
    """Return the boxes of the request, the stages and the end, and the arrows between them.

    Accepted answers have no arrow here: every box says in `accepts` when it answers.
    """
    boxes = [Box(START, "start", ("request",))]
    arrows = [Arrow(START, _key(graph, graph.stages[0].name))]
    for stage in graph.stages:
        boxes.append(_box(graph, stage))
        arrows += _arrows(graph, stage)
    if any(arrow.target == GIVE_UP for arrow in arrows):
        text = "abstain" if graph.on_exhausted == "abstain" else "best draft, or abstain"
        boxes.append(Box(GIVE_UP, "end", (text,)))
    return boxes, arrows


def _key(graph: Graph, name: str) -> str:
    # Not the name itself: some mean something to Mermaid (`end`, `style`, `a--b`).
    return f"stage{[stage.name for stage in graph.stages].index(name)}"


def _box(graph: Graph, stage: Stage) -> Box:
    gate, check = stage.gate, stage.confidence
    if gate is not None and gate.to:
        return Box(_key(graph, stage.name), "branches", (stage.name, f"gate: {gate.summary}"))
    lines = [stage.name, *(f"{name} ({graph.models[name].tier})" for name in stage.ask)]
    if gate is not None:
        lines.append(f"gate: {gate.summary}, asks the best {gate.top}")
    if stage.samples > 1:
        lines.append(f"{stage.samples} samples each")
    shares = {"shadow": stage.shadow, "canary": stage.canary}
    lines += [f"{part}: {each.model}, {each.share:.3g} of requests" for part, each in shares.items() if each]
    if check is not None:
        lines.append(
            f"checked by {check.summary}"
            + (", calibrated" if check.calibration or check.score_is_calibrated else "")
        )
    accepts = "unchecked" if stage.accept is None else f"≥ {stage.accept:g}"
    return Box(_key(graph, stage.name), "asks", tuple(lines), "by policy" if graph.policy else accepts)


def _arrows(graph: Graph, stage: Stage) -> list[Arrow]:
    gate, source = stage.gate, _key(graph, stage.name)
    after = graph.next_stage(stage.name)
    labels: dict[str, list[str]] = {}
    for candidate, target in (gate.to or {}).items() if gate is not None else ():
        labels.setdefault(_key(graph, target), []).append(candidate)
    labels.setdefault(GIVE_UP if after is None else _key(graph, after), []).append(_otherwise(graph, stage))
    return [Arrow(source, target, " / ".join(texts)) for target, texts in labels.items()]


def _otherwise(graph: Graph, stage: Stage) -> str:
    """Return when a stage neither answers nor branches, for an arrow's label."""
    gate = stage.gate
    unsure = f"gate < {gate.accept:g}" if gate is not None and gate.accept is not None else ""
    if gate is not None and gate.to:
        return unsure or "gate fails"
    check = "no answer" if stage.accept is None else f"< {stage.accept:g}"
    check = "otherwise" if graph.policy else check
    return f"{unsure} / {check}" if unsure else check


_SHAPES = {"start": ("([", "])"), "asks": ("[", "]"), "branches": ("{{", "}}"), "end": ("([", "])")}


def mermaid(graph: Graph) -> str:
    """Return `graph` as the text of a Mermaid flowchart."""
    boxes, arrows = outline(graph)
    lines = ["flowchart TD"]
    for box in boxes:
        opening, closing = _SHAPES[box.kind]
        lines.append(f'    {box.key}{opening}"{"<br/>".join(map(_escape, box.lines))}"{closing}')
    answers = [box for box in boxes if box.accepts is not None]
    if answers:
        lines.append(f'    {ANSWER}(["answer"])')
    for arrow in arrows:
        label = f'|"{_escape(arrow.label)}"|' if arrow.label else ""
        lines.append(f"    {arrow.source} -->{label} {arrow.target}")
    lines += [f'    {box.key} ==>|"{_escape(box.accepts or "")}"| {ANSWER}' for box in answers]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Return `text` for a quoted Mermaid label: entity codes for everything that it or HTML would read."""
    safe = "".join(char if char.isalnum() or char in " _-.,:()/≥" else f"#{ord(char)};" for char in text)
    return " ".join(safe.split())
