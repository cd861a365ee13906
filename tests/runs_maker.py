"""Helper of the viewer's tests: runs as a cascade stores them, and a viewer to ask for them."""

from __future__ import annotations

from typing import Any

from cascade.records import Baseline, Call, Decision, Estimate, Request, Result, Step, Token

HAIKU = Call(
    model="nano",
    tier="haiku",
    text="card_arrival",
    tokens_in=9,
    tokens_out=1,
    seconds=0.004,
    labels={"card_arrival": 0.62, "lost_card": 0.31, "oos": 0.01},
)
OPUS = Call(
    model="strong", tier="opus", text="lost_card", tokens_in=620, tokens_out=3, cost_usd=0.0011, seconds=0.5,
    local=False,
)  # fmt: skip
WRITTEN = Call(
    model="nano",
    tier="haiku",
    text="Paris, I think",
    tokens_out=4,
    seconds=0.2,
    tokens=(
        Token(text="Paris", logprob=-0.01, margin=4.0, entropy=0.1),
        Token(text=",", logprob=-0.6),
        Token(text=" I", logprob=-3.0, margin=0.1),
        Token(text=" <think>", logprob=float("-inf")),
    ),
)


def step(
    stage: str, rule: str, *calls: Call, confidence: float | None = None, threshold: float = 0.95, **more: Any
) -> Step:
    """A stage whose first call was judged, if `confidence` is given."""
    actions = {"confident": "accept", "unchecked": "accept", "routed": "route"}
    action = actions.get(rule, "escalate" if more.get("to") else "abstain")
    estimate = None
    if confidence is not None:
        estimate = Estimate(by="labels", chosen=0, signals={"top1": 0.62}, score=0.62, confidence=confidence)
    compared = threshold if rule in ("confident", "below_threshold", "gate_unsure") else None
    decision = Decision.model_validate(
        {"action": action, "rule": rule, "threshold": compared, "to": more.get("to")}
    )
    seconds = sum(call.seconds for call in calls)
    return Step(
        stage=stage, decision=decision, calls=calls, estimate=estimate, gate=more.get("gate"), seconds=seconds
    )


def run(name: str, **fields: Any) -> Result:
    """A run that escalated from haiku to opus, changed by `fields`."""
    given: dict[str, Any] = {
        "run": name,
        "graph": "support@9f2c41ab",
        "status": "accepted",
        "rule": "unchecked",
        "text": "lost_card",
        "stage": "last",
        "model": "strong",
        "tier": "opus",
        "cost_usd": 0.0011,
        "baseline": Baseline(model="strong", cost_usd=0.0011, assumption="strong was asked: its real cost"),
        "seconds": 0.51,
        "started": "2026-11-21T03:00:00.000+00:00",
        "request": Request(text="Where has my card got to?"),
        "trace": (
            step("first", "below_threshold", HAIKU, confidence=0.58, to="last"),
            step("last", "unchecked", OPUS),
        ),
    }
    return Result(**(given | fields))


def quick(name: str, **fields: Any) -> Result:
    """A run that haiku answered alone, changed by `fields`."""
    alone: dict[str, Any] = {
        "rule": "confident",
        "text": "card_arrival",
        "stage": "first",
        "model": "nano",
        "tier": "haiku",
        "confidence": 0.97,
        "calibrated": True,
        "cost_usd": 0.0,
        "seconds": 0.004,
        "trace": (step("first", "confident", HAIKU, confidence=0.97),),
    }
    return run(name, **(alone | fields))
