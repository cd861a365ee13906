"""Making an outcome table: every model of a graph over labelled rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cascade.confidence.agreement import normalise
from cascade.confidence.measurement import measured
from cascade.graph.ask import ask
from cascade.models.base import Model
from cascade.policy.calibrate import Calibration
from cascade.records import Request
from cascade.spec.schema import Graph, HumanModel, Stage


class Labelled(NamedTuple):
    """One row to ask about: its id, the text, and the right answer."""

    id: str
    text: str
    label: str


@dataclass(frozen=True)
class Asked:
    """How one model is asked: as the stage does that asks it alone, if there is one.

    `stage` gives the number of samples and the confidence check; None asks once, and reports signals only.
    """

    model: Model
    stage: Stage | None
    calibration: Calibration | None


def answering(graph: Graph) -> list[str]:
    """Return the models of `graph` whose answers can be collected, in the order that stages ask them.

    Gates answer nothing, and a person is not asked about a whole table.
    """
    asked = dict.fromkeys(name for stage in graph.stages for name in stage.ask)
    return [name for name in asked if not isinstance(graph.models[name], HumanModel)]


def how_asked(
    graph: Graph, models: Mapping[str, Model], calibrations: Mapping[str, Calibration]
) -> list[Asked]:
    """Return how each of `models` is asked."""
    found = []
    for name, model in models.items():
        alone = (stage for stage in graph.stages if stage.ask == [name])
        stage = next(alone, None)
        found.append(Asked(model, stage, calibrations.get(stage.name) if stage else None))
    return found


async def collect(
    asked: Sequence[Asked], rows: Iterable[Labelled], keep: Callable[[dict[str, Any]], None], concurrency: int
) -> None:
    """Ask every model about every row, at most `concurrency` rows at a time, and `keep` each finished row.

    An answer is right if it is the label, without regard to case or white space. A failed call is no error:
    the model stands in the row's `failed`.
    """
    todo = iter(rows)

    async def work() -> None:
        for row in todo:  # shared: each row goes to the one worker that takes it
            outcomes = await asyncio.gather(*(_outcome(each, row) for each in asked))
            keep(_row(row, dict(zip((each.model.name for each in asked), outcomes, strict=True))))

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:  # one that could not keep its row ends the others
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _row(row: Labelled, outcomes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    models = {name: entry for name, entry in outcomes.items() if "correct" in entry}
    failed = {name: entry for name, entry in outcomes.items() if "correct" not in entry}
    made = {"id": row.id, "prompt": row.text, "label": row.label, "models": models}
    return made | ({"failed": failed} if failed else {})


async def _outcome(asked: Asked, row: Labelled) -> dict[str, Any]:
    samples = asked.stage.samples if asked.stage else 1
    request = Request(text=row.text)
    done = await asyncio.gather(*(ask(asked.model, request, sample=sample) for sample in range(samples)))
    calls, replies = [call for call, _ in done], [reply for _, reply in done]
    paid = {
        "cost_usd": round(sum(call.cost_usd for call in calls), 12),
        "seconds": round(max(call.seconds for call in calls), 6),
    }
    check = asked.stage.confidence if asked.stage else None
    found = measured(check, calls, replies, asked.calibration)
    if found is None:
        return paid | {"error": calls[0].error or "no answer"}
    text = calls[found.chosen].text
    entry = {"correct": int(normalise(text) == normalise(row.label)), **paid, "text": text}
    if found.signals:
        entry["signals"] = found.signals
    if found.confidence is not None:
        entry["confidence"] = found.confidence
    return entry
