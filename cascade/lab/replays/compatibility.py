"""Which stored runs can be decided anew by a graph."""

from __future__ import annotations

from cascade.records import Result
from cascade.spec.gates import ClassifierGate
from cascade.spec.schema import Graph


def misfit(result: Result, graph: Graph) -> str | None:
    """Return why `result` says nothing about `graph`, or None if it fits."""
    if result.status == "cancelled":
        return "it was cancelled by its caller"
    stages = {stage.name: stage for stage in graph.stages}
    for step in result.trace:
        stage = stages.get(step.stage)
        if stage is None:
            return f"stage {step.stage!r} is not in this graph"
        gate = [stage.gate.model] if isinstance(stage.gate, ClassifierGate) else []
        for call in step.calls:
            if call.model not in (gate if call.role == "gate" else stage.ask):
                return f"stage {step.stage!r} asked model {call.model!r}, which it does not in this graph"
        drafts = [call for call in step.calls if call.role == "answer"]
        if len(drafts) != stage.samples * len({call.model for call in drafts}):
            return f"stage {step.stage!r} drew another number of samples"
        if step.gate and not set(step.gate) <= set((stage.gate and stage.gate.to) or stage.ask):
            return f"stage {step.stage!r} had a gate with other candidates"
    return None
