"""A step of a run, as the sentences about it see it."""

from __future__ import annotations

from dataclasses import dataclass

from cascade.records import Call, Result, Step
from cascade.spec.schema import Graph, Stage


@dataclass(frozen=True)
class StepContext:
    """A step of a run; the graph it ran on, if known, tells what the step could have done instead."""

    result: Result
    index: int
    graph: Graph | None

    @property
    def step(self) -> Step:
        """The step itself."""
        return self.result.trace[self.index]

    @property
    def stage(self) -> Stage | None:
        """The step's stage in the graph, if the graph is known and still has it."""
        stages = self.graph.stages if self.graph else []
        return next((stage for stage in stages if stage.name == self.step.stage), None)

    @property
    def onward(self) -> str:
        """Where the step would have gone without an accepted answer."""
        if self.graph is None or self.stage is None:
            return "the request would have gone on to the next stage, if there is one"
        target = self.graph.next_stage(self.step.stage)
        return f"the request would have gone on to {target}" if target else "nothing would have been accepted"

    @property
    def asked(self) -> str:
        """The models of a stage that was not started."""
        return " and ".join(self.stage.ask) if self.stage and self.stage.ask else "its models"

    @property
    def draft(self) -> Call | None:
        """The draft that was judged, or would have been."""
        if self.step.estimate is not None and self.step.estimate.chosen < len(self.step.calls):
            return self.step.calls[self.step.estimate.chosen]
        good = [call for call in self.step.calls if call.role == "answer" and call.error is None]
        return good[0] if good else None


Reason = tuple[str, str | None]  # why it happened; what would have changed it
