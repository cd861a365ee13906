"""The records of an explanation. They hold numbers and names; the sentences are made in `_text`."""

from __future__ import annotations

from typing import Literal

from cascade.records import Action, Estimate, Fact, Record, Role, Rule, Status, Step

SKIPPED: frozenset[Rule] = frozenset({
    "unavailable", "breaker_open", "local_only", "over_budget", "over_cost", "over_seconds", "over_calls",
    "policy_skip",
})  # fmt: skip

Setting = Literal[
    "accept",  # the stage's threshold
    "audit_rate",
    "confidence",  # the stage's check, or a confidence that could be measured
    "calls",  # one that works
    "answer",  # a valid one
    "models",  # available ones
    "breaker",  # a closed one
    "budgets",
    "early_exit",
    "on_truncated",
    "hedge",
    "local_only",
    "limits.cost_usd",
    "limits.seconds",
    "limits.calls",
    "gate",  # one that works
    "gate.accept",
    "gate.scores",
    "policy",
    "policy.accept",
    "policy.abstain_below",
]
Effect = Literal[
    "accepted",  # the draft would have been accepted
    "not_accepted",  # the draft would have been finished, and not accepted
    "judged",  # an answer would have been judged
    "asked",  # the stage's models would have been asked
    "asked_in_turn",  # the two stages would not have run at the same time
    "branch",  # the gate would have chosen `candidate`
    "next_stage",  # the request would have gone on to stage `to`
    "nothing_accepted",  # no stage comes after this one
    "unknown_next",  # the request would have gone on; the graph, and so the next stage, is not known
]


class Scored(Record):
    """A name with its score or probability."""

    name: str
    score: float


class CallSummary(Record):
    """A model call: what it answered, or why it failed; `judged` marks the draft that was judged.

    `truncated` says that the answer was cut off at `max_tokens`; `thinking` is what was split off it.
    """

    model: str
    tier: str
    role: Role
    sample: int
    text: str
    error: str | None
    cost_usd: float
    seconds: float
    local: bool
    judged: bool
    truncated: bool = False
    thinking: str | None = None


class Comparison(Record):
    """What was compared with a threshold: the confidence, a policy's score, or a gate's best score."""

    measure: Literal["confidence", "score", "gate"]
    value: float
    threshold: float

    @property
    def reached(self) -> bool:
        """Whether the value is at least the threshold."""
        return self.value >= self.threshold


class DraftSummary(Record):
    """A draft that was not accepted; `final` says that the run gave the same answer in the end."""

    model: str
    tier: str
    text: str
    final: bool


class Saved(Record):
    """What the later stages of the run used; `tiers` in the order they were asked."""

    calls: int
    tiers: tuple[str, ...]
    cost_usd: float
    seconds: float


class Spared(Record):
    """What an early exit spared at most: it stopped after `written` tokens."""

    written: int
    tokens: float
    seconds: float


class WhatIf(Record):
    """The smallest change that would have changed what a step led to.

    `setting` would have had to be `bound` (above, at least, at most) `value` instead of `now`; a setting
    that is no number has none of the three. `effect` says what would have happened then, to the stage `to`,
    the models `models`, the branch `candidate` or the draft `draft`; `saved` would not have been used.
    """

    setting: Setting
    effect: Effect
    bound: Literal["above", "at_least", "at_most"] | None = None
    value: float | None = None
    now: float | None = None
    to: str | None = None
    models: tuple[str, ...] = ()
    candidate: str | None = None
    draft: DraftSummary | None = None
    saved: Saved | None = None


class StepExplanation(Record):
    """Why a stage accepted, escalated, routed or abstained, and what would have changed that.

    Attributes:
        number: 1 for the first step.
        stage: its name.
        action: what was decided.
        rule: by which rule.
        to: the next stage, if any.
        skipped: nothing was called.
        gate: the gate's candidates, the best first.
        calls: every model call.
        estimate: how the judged draft was judged.
        alternatives: the most probable labels beside the answer, where a model scored a closed set.
        comparison: what was compared with a threshold.
        marginal: the model's numerical noise could have turned the comparison.
        facts: what was known beside the comparison (see `cascade.records.Fact`).
        detail: the words of an error.
        unmeasured: the confidence method whose signals are missing.
        spared: what an early exit spared.
        stands: the answer passed on for an audit is the run's, since no later stage accepted one.
        what_if: what would have changed the step.
    """

    number: int
    stage: str
    action: Action
    rule: Rule
    to: str | None
    skipped: bool
    gate: tuple[Scored, ...]
    calls: tuple[CallSummary, ...]
    estimate: Estimate | None
    alternatives: tuple[Scored, ...]
    comparison: Comparison | None
    threshold: float | None
    marginal: bool
    facts: tuple[Fact, ...]
    detail: str | None
    unmeasured: str | None
    spared: Spared | None
    stands: bool
    what_if: WhatIf | None


class AnswerSummary(Record):
    """The answer of a run, or its best draft where it gave none."""

    text: str | None
    draft: bool
    model: str | None
    tier: str | None
    stage: str | None
    confidence: float | None
    calibrated: bool


class BaselineComparison(Record):
    """What the strongest model alone would have cost, and where the figure comes from
    (`cascade.records.Baseline`).

    `saved_usd` is negative where the run cost more. `low_usd` to `high_usd` is the interval of `cost_usd`,
    and `saved_low_usd` to `saved_high_usd` that of `saved_usd`; None where none was recorded.
    """

    model: str
    cost_usd: float
    saved_usd: float
    assumption: str
    by: Literal["asked", "calls", "text"]
    calls: int
    low_usd: float | None
    high_usd: float | None
    saved_low_usd: float | None
    saved_high_usd: float | None


class Explanation(Record):
    """Why a run ended as it did.

    Attributes:
        run: its id.
        graph: `name@digest`.
        started: UTC in ISO 8601.
        status: how it ended.
        rule: the rule that ended it.
        request: the text of the request.
        local_only: the request had to stay on this machine.
        question: what a person is asked, of a run that waits for one.
        waits_at: the stage at which it waits; `asks` is the model that stands for the person.
        answered: the run gave an answer.
        answer: the answer, or the best draft.
        steps: one for each step of the trace.
        cost_usd: the sum over all calls.
        seconds: wall-clock time.
        calls: how many model calls were made.
        remote_calls: how many of them left this machine.
        baseline: the comparison with the strongest model alone.
        not_reached: the stages that were not needed, if the graph is known.
    """

    run: str
    graph: str
    started: str
    status: Status
    rule: Rule | None
    request: str
    local_only: bool
    question: str | None
    waits_at: str | None
    asks: str | None
    answered: bool
    answer: AnswerSummary | None
    steps: tuple[StepExplanation, ...]
    cost_usd: float
    seconds: float
    calls: int
    remote_calls: int
    baseline: BaselineComparison | None
    not_reached: tuple[str, ...]


def compare(step: Step) -> Comparison | None:
    """Return what was compared with the threshold of `step`; None if nothing was, or not both are known."""
    rule, estimate, threshold = step.decision.rule, step.estimate, step.decision.threshold
    if threshold is None:
        return None
    if rule in ("gate_unsure", "routed"):
        best = max((step.gate or {}).values(), default=None)
        return None if best is None else Comparison(measure="gate", value=best, threshold=threshold)
    if estimate is None:
        return None
    if estimate.by == "policy" or rule.startswith("policy_"):
        return Comparison(measure="score", value=estimate.score, threshold=threshold)
    return Comparison(measure="confidence", value=estimate.confidence, threshold=threshold)
