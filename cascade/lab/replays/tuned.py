"""A recorded step decided anew by a policy. Calls no model."""

from __future__ import annotations

from collections.abc import Mapping

from cascade.policy.artifact import Policy
from cascade.policy.tuned import MEASURED_KEY, MeasuredAnswer, decide_by_policy
from cascade.records import Result, Step
from cascade.spec.schema import Graph, Stage


def decided_anew(
    policy: Policy,
    graph: Graph,
    stage: Stage,
    result: Result,
    old: Step,
    answers: Mapping[str, MeasuredAnswer],
) -> Step | None:
    """Return `old` as `policy` decides it; None if the record lacks what a live run might have measured.

    Args:
        policy: the policy, which names the stage.
        graph: the graph that it decides in.
        stage: the step's stage.
        result: the step's run.
        old: the recorded step, with calls.
        answers: model → answer of this step and those before it.
    """
    good = [index for index, call in enumerate(old.calls) if call.role == "answer" and call.error is None]
    noted = [index for index in good if MEASURED_KEY in old.calls[index].meta]
    judged = [] if old.estimate is None else [old.estimate.chosen]
    decision, estimate = decide_by_policy(
        policy,
        graph,
        stage,
        prompt=result.request.text,
        answers=answers,
        chosen=next(iter([*noted, *judged, *good]), None),
        calls=old.calls,
        checked=None if old.estimate is None or old.estimate.by == "policy" else old.estimate,
        run=result.run,
    )
    if decision.rule == "no_estimate" and not noted:
        return None
    return old.model_copy(update={"decision": decision, "estimate": estimate})
