"""The records that flow through a cascade: frozen, JSON-serialisable, one word per idea.

A run is a request and a trace (a tuple of steps). Spend, the best draft and the answer are folds of
the trace; nothing is stored twice. `Result` is what a caller gets and what the trace store keeps.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cascade.errors import CascadeError, RequestError

Action = Literal["accept", "escalate", "abstain", "route"]
Role = Literal["answer", "gate", "shadow"]
Speaker = Literal["system", "user", "assistant", "tool"]
Status = Literal["accepted", "best_effort", "abstained", "waiting", "cancelled"]
Rule = Literal[
    "confident",  # accept: confidence reached the stage's threshold
    "audit",  # escalate: confident, but passed on all the same, so that a later stage grades it
    "unchecked",  # accept: the stage has no confidence check
    "below_threshold",  # confidence was measured and is too low
    "no_estimate",  # there is a draft, but its confidence could not be measured
    "no_draft",  # every call of the stage failed
    "truncated",  # the answer was cut off at max_tokens, and a later stage is left
    "invalid",  # there are drafts, but none is the JSON, or the tool calls, that the request asks for
    "early_exit",  # the draft was stopped, because its confidence could no longer reach the threshold
    "hedged",  # the next stage ran at the same time, and the other of the two answered first
    "cancelled",  # the run was cancelled while the stage was at work
    "breaker_open",  # its models failed so often that they are left alone for a while; nothing was called
    "over_budget",  # the stage's worst case is more than is left of a day's budget; nothing was called
    "unavailable",  # no model of the stage can be called (no key, for instance); nothing was called
    "local_only",  # the request must stay here and the stage's models are remote; nothing was called
    "over_cost",  # the stage's worst case costs more than is left; nothing was called
    "over_seconds",  # no time is left; nothing was called
    "over_calls",  # the stage makes more calls than are left; nothing was called
    "routed",  # route: the gate chose a branch
    "gate_unsure",  # the gate's best branch is below the gate's own threshold
    "gate_failed",  # the gate could not score its branches
    "policy_accept",  # accept: the policy's score reached its threshold, or the policy asks for none
    "policy_below",  # the policy's score is too low, or the policy never accepts this model's answers
    "policy_abstain",  # abstain: so low a score that the policy gives up early
    "policy_skip",  # the policy passes this stage over; nothing was called
]

MAX_TEXT_BYTES = 1_000_000
UNCOUNTED = ("missing", "malformed", "bounded")  # a call's `meta["usage"]` where its cost is a bound
_BOUND = re.compile(
    r" asked once: \d+ prompt and \d+ answer tokens \(4 bytes a token\), no reasoning tokens$"
)
_ASKED = " was asked: its real cost"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Record(BaseModel):
    """A frozen value with no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolCall(Record):
    """A call of a tool that a model asks the embedding application to make.

    `arguments` is the JSON text as the model wrote it, valid or not.
    """

    id: str
    name: str
    arguments: str


class Message(Record):
    """One message of a conversation; `tool_call_id` says which call a `tool` message answers."""

    role: Speaker
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class Tool(Record):
    """A function that a model may ask for; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class Request(Record):
    """What the caller asks.

    `text` is what gates and label prompts read: of a conversation the last user message. `messages` is
    the whole conversation, that message included; empty where there is only `text`. `tool_choice` is
    auto, none, required, or a tool's name. `output_schema` is a JSON Schema that the answer must satisfy.
    `local_only` forbids every model that is not local. `account` is whose budget pays. `metadata` is
    stored with the trace and never shown to a model.
    """

    text: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    output_schema: dict[str, Any] | None = None
    local_only: bool = False
    account: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class Token(Record):
    """One generated token with the statistics of the model's own distribution, before any sampler.

    `logprob`, `margin` (top-1 minus top-2 log-probability) and `entropy` are in nats; None where the
    model does not report them.
    """

    text: str
    logprob: float
    margin: float | None = None
    entropy: float | None = None


class Call(Record):
    """One call of one model, failed ones too: `error` is set and `text` is empty then.

    `role` says what it was for: to answer, for the stage's gate, or as a shadow that is never used.
    `labels` holds the most probable labels with their probabilities where the model scored a closed set.
    `started` is in seconds after the beginning of the run. `meta` holds what the model reports, and of a
    request for JSON or tool calls either `invalid`, why this answer is none, or `fields` with the
    log-probabilities of the JSON's fields (see `cascade.confidence.validity`).
    """

    model: str
    tier: str
    role: Role = "answer"
    sample: int = 0
    text: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    started: float = 0.0
    seconds: float = 0.0
    local: bool = True
    error: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    labels: dict[str, float] | None = None
    tokens: tuple[Token, ...] = ()
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def invalid(self) -> str | None:
        """Why the answer is not the JSON, or the tool calls, that were asked for; None if it is valid."""
        reason = self.meta.get("invalid")
        return None if reason is None else str(reason)

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off at the model's `max_tokens` (finish reason `length`)."""
        return bool(self.meta.get("finish_reason") == "length")

    @property
    def thinking(self) -> str | None:
        """What the model wrote before its answer, as thinking; None if it did not, or that was not stored."""
        thinking = self.meta.get("thinking")
        return thinking if isinstance(thinking, str) else None

    @property
    def uncounted(self) -> bool:
        """Whether the server reported no usable token counts, so that `cost_usd` is the worst case."""
        return self.meta.get("usage") in UNCOUNTED


class Estimate(Record):
    """How good the chosen draft is believed to be, and from which raw signals.

    `chosen` is the index of the draft among the step's calls. `confidence` is P(correct) in [0, 1];
    `calibrated` says whether a fitted map stands behind it.
    """

    by: str
    chosen: int
    signals: dict[str, float]
    score: float
    confidence: float
    calibrated: bool = False


class LimitShortfall(Record):
    """A limit of the run that the worst case of a stage would exceed, or time that is used up.

    Amounts are in USD, calls or seconds, as `limit` says. The worst case of `seconds` is 0: a stage needs
    only some time left, since its calls are cut off when the time is used up.
    """

    kind: Literal["limit"] = "limit"
    limit: Literal["cost_usd", "calls", "seconds"]
    allowed: float
    used: float
    worst_case: float

    @property
    def left(self) -> float:
        """What is left of the limit; never less than 0."""
        return max(0.0, self.allowed - self.used)


class BudgetShortfall(Record):
    """A budget of a UTC day (ISO 8601) that has less left than the worst case of a stage, in USD.

    `scope` is `graph:NAME` or `account:NAME`; `reserved_usd` is held for calls at work.
    """

    kind: Literal["budget"] = "budget"
    scope: str
    day: str
    allowed_usd: float
    spent_usd: float
    reserved_usd: float
    worst_case_usd: float

    @property
    def left_usd(self) -> float:
        """What is left of the budget; never less than 0."""
        return max(0.0, self.allowed_usd - self.spent_usd - self.reserved_usd)


class RemoteModels(Record):
    """Models of a stage that a request would leave this machine for."""

    kind: Literal["remote"] = "remote"
    models: tuple[str, ...]


class UnavailableModel(Record):
    """A model that cannot be called now, and why; `breaker` marks an open circuit breaker."""

    kind: Literal["unavailable"] = "unavailable"
    model: str
    reason: str
    breaker: bool = False


class GateCandidate(Record):
    """The candidate that a gate scored highest."""

    kind: Literal["candidate"] = "candidate"
    name: str
    score: float


class CertifiedBound(Record):
    """The promise behind a policy's threshold: with probability 1 − `delta`, at most `alpha`.

    `promise` says of what: the error among the accepted (`max_risk`), or the loss of accuracy against the
    strongest model (`max_loss`). `bound` is what the held-out rows support.
    """

    promise: Literal["max_risk", "max_loss"]
    alpha: float
    delta: float
    bound: float


class PolicyBasis(Record):
    """The policy, by its digest, that decided, and the certificate of its threshold if it has one."""

    kind: Literal["policy"] = "policy"
    digest: str
    certificate: CertifiedBound | None = None


class PolicySkip(Record):
    """Why a policy passes a stage over: it asks other models, or the prompt's score reaches `skip_at`."""

    kind: Literal["policy_skip"] = "policy_skip"
    digest: str
    asks: tuple[str, ...]
    score: float | None = None
    skip_at: float | None = None


class MissingSignals(Record):
    """What a policy's score reads and nobody measured; empty where a text is missing."""

    kind: Literal["missing_signals"] = "missing_signals"
    signals: tuple[str, ...]


class RaisedThreshold(Record):
    """A threshold that drift has raised since the alarm in run `alarm`, and the audits behind it.

    `accept` is None where no threshold is supported; then the next look needs at least `rows_needed`
    answers above one, if none of them is wrong. `errors` of the `rows` answers that reach it were wrong.
    """

    kind: Literal["raised_threshold"] = "raised_threshold"
    alarm: str
    was: float
    accept: float | None
    rows: int
    errors: int
    audited: int
    rows_needed: int | None = None


class Trial(Record):
    """A model that this request was drawn for: as a `shadow` beside the stage's own, or as its `canary`.

    `share` is the share of requests that are drawn. `refused` is the rule by which it was left out, and
    `detail` the words of it; both are None if it was asked.
    """

    kind: Literal["trial"] = "trial"
    part: Literal["shadow", "canary"]
    model: str
    share: float
    refused: Rule | None = None
    detail: str | None = None


Fact = Annotated[
    LimitShortfall
    | BudgetShortfall
    | RemoteModels
    | UnavailableModel
    | GateCandidate
    | PolicyBasis
    | PolicySkip
    | MissingSignals
    | RaisedThreshold
    | Trial,
    Field(discriminator="kind"),
]


class Decision(Record):
    """What was decided after a stage, and by which rule. `to` is the next stage, if any.

    `facts` are what was compared or known, beside the step's own scores; `detail` is what no record holds:
    the words of an error. `marginal` marks a confidence so close to the threshold that the model's numerical
    noise could have turned the decision.
    """

    action: Action
    rule: Rule
    threshold: float | None = None
    to: str | None = None
    facts: tuple[Fact, ...] = ()
    detail: str | None = None
    marginal: bool = False


class Step(Record):
    """One stage that a request went through; `started` is in seconds after the beginning of the run."""

    stage: str
    decision: Decision
    gate: dict[str, float] | None = None
    calls: tuple[Call, ...] = ()
    estimate: Estimate | None = None
    started: float = 0.0
    seconds: float = 0.0


class Baseline(Record):
    """What the same request would have cost at the strongest model alone.

    `by` says where the figure comes from: the model was `asked`, and this is what it cost; an estimate from
    `calls` recorded calls of it (at least three); or from the `text` of the request and the answer. `low_usd`
    and `high_usd` are the interval of an estimate: 95 % from calls, the stated error from text. `assumption`
    says it in words. `prompt_bytes` is the UTF-8 length of what the model reads, for later estimates.
    `bounded` says that a model that was asked reported no usage, so that its charge is the worst case. `by`
    is `bound` for what earlier versions stored in place of an estimate: nothing shows it as one.
    """

    model: str
    cost_usd: float
    assumption: str
    by: Literal["asked", "calls", "text", "bound"] = "text"
    low_usd: float | None = None
    high_usd: float | None = None
    calls: int = 0
    prompt_bytes: int | None = None
    bounded: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_old_versions(cls, values: Any) -> Any:
        """Say what a baseline without `by` is, which earlier versions stored: their words tell."""
        if not isinstance(values, dict) or "by" in values:
            return values
        words = str(values.get("assumption", ""))
        by = "bound" if _BOUND.search(words) else "asked" if words.endswith(_ASKED) else "text"
        known = (
            {"low_usd": values.get("cost_usd"), "high_usd": values.get("cost_usd")} if by == "asked" else {}
        )
        return {**values, "by": by, **known}


class Result(Record):
    """The outcome of a run: what the caller gets and what the trace store keeps.

    `text` is the accepted answer (empty where it only calls tools, see `tool_calls`), or with status
    `best_effort` the best evaluated draft. An abstained
    run has no `text`; its best draft, if any, is in `draft`. `stage`, `model`, `tier` and `confidence`
    belong to the answer or that draft; `rule` is the last decision's, or `audit` where an audited
    answer stands because no later stage accepted one. A run that waits for a person has the `question` that
    they are asked, and `stage`, `model` and `tier` say where; one that was stopped between two stages waits
    without a question. `cost_usd` is the sum over all calls, `seconds` is wall-clock time without the wait
    for a person, `started` is when the run first began: UTC in ISO 8601.
    """

    run: str
    graph: str
    status: Status
    rule: Rule | None = None
    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    draft: str | None = None
    question: str | None = None
    confidence: float | None = None
    calibrated: bool | None = None
    stage: str | None = None
    model: str | None = None
    tier: str | None = None
    cost_usd: float = 0.0
    baseline: Baseline | None = None
    seconds: float = 0.0
    started: str = ""
    request: Request
    trace: tuple[Step, ...] = ()


class TextPiece(NamedTuple):
    """A piece of an answer that streams live, because its stage accepts without a check."""

    text: str


Event = Step | TextPiece | Result


async def final_result(events: AsyncIterator[Event]) -> Result:
    """Return the result that ends a stream of events."""
    async for event in events:
        if isinstance(event, Result):
            return event
    raise CascadeError("a run ended without a result; please report this")


def new_run_id() -> str:
    """Return a new ULID: 26 characters, sorted by creation time (milliseconds)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def check_text(text: object) -> str:
    """Return `text` if a model can be asked with it.

    Raises:
        RequestError: it is not a string, is blank, holds a NUL or a lone surrogate, or is too long.
    """
    if not isinstance(text, str):
        raise RequestError(f"text is {type(text).__name__}; expected a string")
    if not text.strip():
        raise RequestError("text is empty; give at least one visible character")
    if "\0" in text:
        raise RequestError(f"text holds a NUL byte at position {text.index(chr(0))}; remove it")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(
            f"text is not valid Unicode at position {error.start}; decode it as UTF-8 first"
        ) from error
    if size > MAX_TEXT_BYTES:
        raise RequestError(f"text has {size} bytes; a request takes at most {MAX_TEXT_BYTES}; split it")
    return text
