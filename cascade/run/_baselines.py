"""What the runs of a cascade would have cost at its strongest model alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cascade.models.base import Prompt, prompt_bytes
from cascade.policy.costs import CostCurve, PricedCall
from cascade.policy.result import price_baseline
from cascade.policy.savings import call_of
from cascade.records import Baseline, Request, Step

if TYPE_CHECKING:
    from cascade.graph.stage import Plan
    from cascade.trace import TraceStore

_log = logging.getLogger("cascade.run")
_MAX_CALLS = 500  # that an estimate stands on: the newest
_REFIT = 1.05  # growth of the number of calls after which the curve is fitted again


class Baselines:
    """Prices the baseline of each run of one cascade.

    It knows the calls that the trace store has from earlier runs of the graph, and adds each new one.
    """

    def __init__(self, plan: Plan, store: TraceStore | None) -> None:
        self._plan = plan
        known: Sequence[PricedCall] = ()
        if plan.baseline is not None and store is not None:
            known = store.baseline_calls(plan.graph.name, plan.baseline[0])
        self._calls = deque(known, maxlen=_MAX_CALLS)
        self._curve = CostCurve.fit(self._calls)
        self._fitted, self._seen = len(self._calls), len(self._calls)

    @property
    def calls(self) -> tuple[PricedCall, ...]:
        """The recorded calls of the baseline model, the oldest first."""
        return tuple(self._calls)

    def of_run(
        self, run: str, request: Request, trace: Sequence[Step], outcome: Mapping[str, Any]
    ) -> Baseline | None:
        """Return the baseline of a run that ended with `outcome`; None if none is known."""
        try:
            return self._price(request, trace, outcome)
        except Exception:  # noqa: BLE001 - the run is stored all the same, without a figure of what it saved
            _log.exception("run %s: what it saved cannot be told", run)
            return None

    def _price(self, request: Request, trace: Sequence[Step], outcome: Mapping[str, Any]) -> Baseline | None:
        if self._plan.baseline is None:
            return None
        name, price = self._plan.baseline
        model = self._plan.models[name]
        baseline = price_baseline(
            name,
            price,
            trace,
            prompt_bytes(model, request),
            outcome.get("text") or outcome.get("draft"),
            self._curve,
            model.worst_case(Prompt(request)),
        )
        call = call_of(baseline)
        if call is not None:
            self._add(call)
        return baseline

    def _add(self, call: PricedCall) -> None:
        self._calls.append(call)
        self._seen += 1
        if self._seen > _REFIT * self._fitted:
            self._curve, self._fitted = CostCurve.fit(self.calls), self._seen
