"""One stage, from request and trace to the next step. Knows nothing of LangGraph."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cascade import confidence, gates
from cascade.config.schema import ClassifierGate, Graph, Stage
from cascade.graph.ask import ask
from cascade.models.base import Model, OnText, Reply, cost
from cascade.policy.budget import Spend, spent, worst_case
from cascade.policy.calibrate import Calibration
from cascade.policy.decide import admit, decide, route
from cascade.records import Call, Decision, Estimate, Request, Step


@dataclass(frozen=True)
class Plan:
    """A checked graph with its models and calibrations (stage name → map): what every run of it shares."""

    graph: Graph
    models: Mapping[str, Model]
    calibrations: Mapping[str, Calibration]


async def run_stage(
    plan: Plan,
    stage: Stage,
    request: Request,
    trace: Sequence[Step],
    on_text: OnText | None = None,
    run: str | None = None,
) -> Step:
    """Ask the models of `stage` and decide what happens next.

    Args:
        plan: the graph and its models.
        stage: the stage to run.
        request: what is asked.
        trace: the steps so far; what is left of the limits follows from them.
        on_text: receives the answer piece by piece, only if the stage accepts without a check.
        run: the run's id; without one nothing is audited.
    """
    start = time.perf_counter()
    used = spent(trace)
    limit = plan.graph.limits.seconds
    turn = _Turn(plan, stage, request, None if limit is None else start + limit - used.seconds, run)
    decision = await turn.run(used, on_text)
    return Step(
        stage=stage.name,
        decision=decision,
        gate=turn.scores,
        calls=tuple(turn.calls),
        estimate=turn.estimate,
        seconds=time.perf_counter() - start,
    )


@dataclass
class _Turn:
    """A stage at work on one request; `calls[i]` and `replies[i]` belong together."""

    plan: Plan
    stage: Stage
    request: Request
    deadline: float | None
    id: str | None
    calls: list[Call] = field(default_factory=list)
    replies: list[Reply | None] = field(default_factory=list)
    scores: dict[str, float] | None = None
    estimate: Estimate | None = None

    async def run(self, used: Spend, on_text: OnText | None) -> Decision:
        """Admit, gate, ask, estimate, decide."""
        usable, refused = self._usable(used)
        if refused is not None:
            return refused
        gate = self.stage.gate
        if gate is not None:
            candidates = list(gate.to) if gate.to else usable
            self.scores = await gates.score(gate, candidates, self.request.text, self._ask_gate)
            turned = route(self.plan.graph, self.stage, self.scores)
            if turned is not None:
                return turned
            usable = sorted(usable, key=lambda name: -(self.scores or {})[name])[: gate.top]
        await self._draft(usable, on_text)
        trouble = self._estimate()
        decision = decide(self.plan.graph, self.stage, self.calls, self.estimate, self.id)
        return decision.model_copy(update={"detail": trouble}) if trouble else decision

    def _usable(self, used: Spend) -> tuple[list[str], Decision | None]:
        """Return the stage's models that may be asked now, or the decision that none may."""
        models, ask_names = self.plan.models, self.stage.ask
        gate = [self.stage.gate.model] if isinstance(self.stage.gate, ClassifierGate) else []
        here = [name for name in ask_names if models[name].local or not self.request.local_only]
        reasons = {name: models[name].unavailable() for name in [*gate, *here]}
        usable = [name for name in here if reasons[name] is None]
        needed = gate if usable or not ask_names else [*gate, *here]
        refused = admit(
            self.plan.graph,
            self.stage,
            self.request,
            remote=[*(name for name in gate if not models[name].local), *([] if here else ask_names)],
            unavailable=[reason for name in needed if (reason := reasons[name])],
            used=used,
            worst=self._worst_case(gate, usable),
        )
        return usable, refused

    def _worst_case(self, gate: Sequence[str], usable: Sequence[str]) -> Spend:
        def price(name: str) -> float:
            model = self.plan.models[name]
            return cost(model.price, *model.worst_case(self.request.text))

        return worst_case(self.stage, gate, usable, price)

    async def _ask_gate(self, name: str) -> Reply | None:
        call, reply = await ask(self.plan.models[name], self.request, role="gate", seconds=self._left())
        self._record(call, reply)
        return reply

    async def _draft(self, names: Sequence[str], on_text: OnText | None) -> None:
        """Ask every model of `names`, each `samples` times, all at once."""
        samples = self.stage.samples
        unchecked = self.stage.confidence is None and len(names) == samples == 1
        todo = [
            ask(
                self.plan.models[name],
                self.request,
                sample=sample,
                seconds=self._left(),
                on_text=on_text if unchecked else None,
            )
            for name in names
            for sample in range(samples)
        ]
        for call, reply in await asyncio.gather(*todo):
            self._record(call, reply)

    def _estimate(self) -> str | None:
        """Measure the confidence of the drafts; return what went wrong, if anything did."""
        check = self.stage.confidence
        if check is None:
            return None
        calibration = self.plan.calibrations.get(self.stage.name)
        try:
            self.estimate = confidence.estimate(check, self.calls, self.replies, calibration)
        except Exception as failure:  # noqa: BLE001 - an estimator that raises fails closed: rule no_estimate
            return f"confidence by {check.by}: {type(failure).__name__}: {failure}"
        return None

    def _record(self, call: Call, reply: Reply | None) -> None:
        self.calls.append(call)
        self.replies.append(reply)

    def _left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())
