"""What was measured on a model's answers, in the form that outcome tables hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cascade.confidence import labels, logprob
from cascade.confidence.agreement import answer_key, vote
from cascade.models.base import Reply
from cascade.policy.calibrate import DECIMALS
from cascade.policy.decider import MeasuredAnswer
from cascade.records import Call, Estimate, Step

MEASURED_KEY = "measured"  # in a call's meta: what a later stage, or a replay, cannot measure again


class Measurement(NamedTuple):
    """The chosen draft (an index), what was measured on it, and what the stage's check says of it."""

    chosen: int
    signals: dict[str, float]
    judged: Estimate | None

    @property
    def confidence(self) -> float | None:
        """P(correct) as the check reports it, rounded as in tables."""
        return None if self.judged is None else round(self.judged.confidence, DECIMALS)

    def answer(self, text: str) -> MeasuredAnswer:
        """Return the chosen draft, whose text is `text`, with what was measured on it."""
        return MeasuredAnswer(text, self.signals, self.confidence)


def measure(reply: Reply) -> dict[str, float]:
    """Return all signals of one reply: of its label distribution where it has one, else of its tokens."""
    return dict(labels.signals(reply) or logprob.signals(reply))


def measured(
    calls: Sequence[Call],
    replies: Sequence[Reply | None],
    judged: Estimate | None,
) -> Measurement | None:
    """Measure the answer calls of one model; None if all failed.

    The draft is the one that was `judged`, else the first. `agreement` is the share of drafts that agree,
    where there are several.
    """
    good = [index for index, reply in enumerate(replies) if reply is not None and _answers(calls[index])]
    chosen = judged.chosen if judged else next(iter(good), None)
    reply = None if chosen is None else replies[chosen]
    if chosen is None or reply is None:
        return None
    asked = [reply for call, reply in zip(calls, replies, strict=True) if call.role == "answer"]
    signals = measure(reply) | _agreement(asked, judged)
    return Measurement(chosen, {name: round(value, DECIMALS) for name, value in signals.items()}, judged)


def _agreement(asked: Sequence[Reply | None], judged: Estimate | None) -> dict[str, float]:
    """Return the share of drafts that agree, by the stage's own check if it measured that."""
    if judged is not None and "agreement" in judged.signals:
        return {"agreement": judged.signals["agreement"]}
    voted = vote([answer_key(reply) if reply else None for reply in asked])
    return {"agreement": voted[1]["agreement"]} if voted else {}


def noted(call: Call, measurement: Measurement) -> Call:
    """Return `call` with what was measured on it in its `meta`."""
    note = {"signals": measurement.signals, "confidence": measurement.confidence}
    return call.model_copy(update={"meta": call.meta | {MEASURED_KEY: note}})


def answers(trace: Iterable[Step]) -> dict[str, MeasuredAnswer]:
    """Return model → answer of the steps of a run, live or stored; a model that failed is absent."""
    by_model: dict[str, MeasuredAnswer] = {}
    for step in trace:
        for name in dict.fromkeys(call.model for call in step.calls if _answers(call)):
            by_model[name] = recorded(step, draft_of(step, name))
    return by_model


def draft_of(step: Step, name: str) -> Call:
    """Return the answer of model `name` that counts: the noted or the judged one, else the first."""
    good = [call for call in step.calls if _answers(call) and call.model == name]
    chosen = None if step.estimate is None else step.calls[step.estimate.chosen]
    return next((call for call in good if MEASURED_KEY in call.meta or call is chosen), good[0])


def recorded(step: Step, draft: Call) -> MeasuredAnswer:
    """Return what a step recorded about one of its drafts."""
    note = draft.meta.get(MEASURED_KEY)
    if isinstance(note, Mapping):
        return MeasuredAnswer(draft.text, dict(note.get("signals", {})), note.get("confidence"))
    signals = measure(Reply(draft.text, labels=draft.labels, tokens=draft.tokens, meta=draft.meta))
    estimate = step.estimate
    if estimate is None or estimate.by == "policy" or step.calls[estimate.chosen] is not draft:
        return MeasuredAnswer(draft.text, {name: round(value, DECIMALS) for name, value in signals.items()})
    signals |= estimate.signals
    rounded = {name: round(value, DECIMALS) for name, value in signals.items()}
    return MeasuredAnswer(draft.text, rounded, round(estimate.confidence, DECIMALS))


def _answers(call: Call) -> bool:
    return call.role == "answer" and call.error is None and call.invalid is None
