"""What a request would have cost at the strongest model alone, on a stated assumption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cascade.records import Baseline, Step
from cascade.spec.parts import Price
from cascade.spec.schema import Graph

BYTES_PER_TOKEN = 4  # the usual figure for English; the assumption is recorded with each run


def baseline_model(graph: Graph, prices: Mapping[str, Price | None]) -> str | None:
    """Return the model that savings are measured against, or None if no model of `graph` costs anything.

    Args:
        graph: names it by `baseline`, or else it is the priced model of the latest stage that has one.
        prices: model name → price.
    """
    if graph.baseline is not None:
        return graph.baseline
    for stage in reversed(graph.stages):
        for name in stage.ask:
            price = prices[name]
            if price is not None and (price.input > 0 or price.output > 0):
                return name
    return None


def price_baseline(
    name: str, price: Price, trace: Sequence[Step], prompt_bytes: int, answer: str | None
) -> Baseline:
    """Price one call of model `name`: the real one if the trace has it, else an assumed one.

    Args:
        name: the baseline model.
        price: its price.
        trace: the run's steps.
        prompt_bytes: UTF-8 bytes of the prompt that the model would have read.
        answer: the run's answer or best draft; assumed to be the baseline's answer, too.
    """
    for step in trace:
        for call in step.calls:
            if call.model == name and call.role == "answer" and call.error is None:
                assumption = f"{name} was asked: its real cost"
                return Baseline(model=name, cost_usd=call.cost_usd, assumption=assumption)
    tokens_in = math.ceil(prompt_bytes / BYTES_PER_TOKEN)
    tokens_out = max(1, math.ceil(len((answer or "").encode()) / BYTES_PER_TOKEN))
    cost_usd = (tokens_in * price.input + tokens_out * price.output) / 1e6
    assumption = (
        f"{name} asked once: {tokens_in} prompt and {tokens_out} answer tokens "
        f"({BYTES_PER_TOKEN} bytes a token), no reasoning tokens"
    )
    return Baseline(model=name, cost_usd=cost_usd, assumption=assumption)
