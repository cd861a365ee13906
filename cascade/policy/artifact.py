"""The tuned policy: which models are asked in which order, and when an answer is good enough.

A small readable JSON file, made by `cascade tune`; `cascade.policy.apply` decides by it.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cascade.files import read_record, write_whole
from cascade.policy.calibrate import Curve, Sha256
from cascade.policy.thresholds import Thresholds
from cascade.records import Record

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
_REDO = "write it anew with 'cascade tune'"
_ACCEPT = {"always": -math.inf, "never": math.inf}
VOTE_NAMES = ("for", "against", "answers")
SHAPE_NAMES = ("chars", "words", "lines", "numbers", "longest_number", "symbols")  # of a text


class Feature(Record):
    """One number about a row.

    prompt: `name` is one of SHAPE_NAMES, of the request. text: the same of `model`'s answer. signal:
    `model`'s signal `name`. confidence: the logit of what `model`'s check reported. agreement: 1 if `model`
    and `other` answered the same but for case and white space, else 0; a blank answer agrees with nobody.
    votes: of the models `among`, how many answered as `model` did (`for`), how many at most agree on another
    answer (`against`), or how many different answers there are with `model`'s (`answers`).
    """

    kind: Literal["prompt", "text", "signal", "confidence", "agreement", "votes"]
    model: str | None = None
    other: str | None = None
    name: str | None = None
    among: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """A short name for people."""
        return " ".join(part for part in (self.kind, self.model, self.other, self.name, *self.among) if part)

    @property
    def models(self) -> set[str]:
        """The models whose answers it looks at."""
        return {name for name in (self.model, self.other, *self.among) if name is not None}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        needs = {"prompt": ("name",), "confidence": ("model",), "agreement": ("model", "other")}
        for key in needs.get(self.kind, ("model", "name")):
            if getattr(self, key) is None:
                raise ValueError(f"a feature of kind {self.kind!r} needs {key!r}")
        if self.kind in ("prompt", "text") and self.name not in SHAPE_NAMES:
            raise ValueError(f"name is {self.name!r}; a text has {', '.join(SHAPE_NAMES)}")
        if self.kind == "votes" and self.name not in VOTE_NAMES:
            raise ValueError(f"name is {self.name!r}; votes are {', '.join(VOTE_NAMES)}")
        if (self.kind == "votes") != bool(self.among):
            raise ValueError(f"among is {list(self.among)}; only votes are counted among models")
        return self


class Term(Record):
    """One feature of a score: it adds weight · (value − mean) / scale.

    The value is the feature; with `above`, by how much the feature exceeds it, or 0.
    """

    feature: Feature
    above: Finite | None = None
    weight: Finite
    mean: Finite = 0.0
    scale: float = Field(1.0, gt=0.0, allow_inf_nan=False)


class Words(Record):
    """Each distinct word or pair in the prompt (or in `model`'s answer) adds its hash bucket's weight."""

    model: str | None = None
    weights: tuple[Finite, ...] = Field(min_length=1)


class Score(Record):
    """A number in [0, 1] made of features: 1 / (1 + exp(−(bias + terms + words)))."""

    bias: Finite
    terms: tuple[Term, ...] = ()
    words: tuple[Words, ...] = ()

    @property
    def models(self) -> set[str]:
        """The models whose answers it needs."""
        used = {each.model for each in self.words if each.model is not None}
        return used.union(*(term.feature.models for term in self.terms))


class PolicyStage(Record):
    """Ask `model`; accept its answer where the score is at least `accept`.

    `accept` is "always" for a stage without a check and "never" for a model that is asked only for what its
    answer tells the later scores. Below `abstain_below` the run ends without an answer. `confidence` maps
    the score to P(correct).
    """

    model: str
    accept: Finite | Literal["always", "never"]
    abstain_below: Finite | None = None
    score: Score | None = None
    confidence: Curve | None = None

    def refuses_truncated(self, policy: Policy) -> bool:
        """Return whether an answer cut off at `max_tokens` is not judged, because a later stage is left."""
        return self.accept != "always" and self.model != policy.chain[-1]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.score is None and (isinstance(self.accept, float) or self.abstain_below is not None):
            raise ValueError("a threshold needs a 'score' to be compared with")
        return self


class PromptGate(Record):
    """Where the score of the prompt is at least `skip_at`, the first model asked is `to`."""

    score: Score
    skip_at: Finite
    to: str


class Certificate(Record):
    """A promise, and the held-out rows that support it.

    max_risk: with probability 1 − delta, at most `alpha` of what `stage` accepts is wrong; `accepted` of
    `rows` rows were, `errors` of these wrong. max_loss: with probability 1 − delta, the policy's accuracy
    is at most `alpha` under the top model's; `errors` rows it alone got wrong, `gains` it alone got right.
    `bound` is the upper confidence bound of that risk or loss.
    """

    stage: str
    kind: Literal["max_risk", "max_loss"]
    alpha: Share
    delta: Share
    bound: Finite
    rows: int = Field(ge=0)
    accepted: int = Field(ge=0)
    errors: int = Field(ge=0)
    gains: int = Field(0, ge=0)


class Goal(Record):
    """What a policy was tuned for: error among the accepted, loss, mean USD, or quality per USD."""

    kind: Literal["max_risk", "max_loss", "budget", "lambda"]
    value: Finite
    delta: Share | None = None
    abstention_price: Finite | None = None


class Policy(Record):
    """A tuned cascade.

    `fitted_rows` of `rows` fitted scores and chose thresholds; certificates count the other
    `certified_rows`. `data_sha256` is of the outcome file. `changes` says what differs from an older policy.
    `setups` says what each model was when it was tuned (model → hash), so that a graph that asks it
    otherwise is refused; empty if tuning was not told the graph.
    """

    version: Literal[1] = 1
    goal: Goal
    gate: PromptGate | None = None
    stages: tuple[PolicyStage, ...] = Field(min_length=1)
    certificates: tuple[Certificate, ...] = ()
    rows: int = Field(ge=0)
    fitted_rows: int = Field(ge=0)
    certified_rows: int = Field(ge=0)
    data_sha256: str
    seed: int
    fitted: str
    changes: tuple[str, ...] = ()
    setups: dict[str, Sha256] = Field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of the policy, by which traces call it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    @property
    def chain(self) -> tuple[str, ...]:
        """The models in the order they are asked."""
        return tuple(stage.model for stage in self.stages)

    @property
    def skip_to(self) -> int:
        """Index of the stage at which the prompt gate lets a row start; 0 without a gate."""
        return 0 if self.gate is None else self.chain.index(self.gate.to)

    @cached_property
    def thresholds(self) -> Thresholds:
        """All thresholds in numbers."""
        accept = [stage.accept for stage in self.stages]
        lows = [stage.abstain_below for stage in self.stages]
        return Thresholds(
            accept=tuple(_ACCEPT[at] if isinstance(at, str) else at for at in accept),
            abstain=tuple(-math.inf if low is None else low for low in lows),
            skip_at=math.inf if self.gate is None else self.gate.skip_at,
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        if len(set(self.chain)) < len(self.chain):
            raise ValueError(f"stages ask {', '.join(self.chain)}; each model may be asked once")
        if self.gate is not None:
            if self.gate.to not in self.chain[1:]:
                raise ValueError(f"gate.to is {self.gate.to!r}; known: {', '.join(self.chain[1:])}")
            _known(self.gate.score, seen, "gate")
        for stage in self.stages:
            seen.add(stage.model)
            if stage.score is not None:
                _known(stage.score, seen, f"stage {stage.model!r}")
        return self


def _known(score: Score, models: set[str], where: str) -> None:
    """Refuse a score that needs what has not been asked yet."""
    if ahead := sorted(score.models - models):
        raise ValueError(f"{where} needs answers of {', '.join(ahead)}, which has not been asked by then")


def read_policy(path: str | Path) -> Policy:
    """Read a policy file.

    Raises:
        ConfigError: the file is missing, is not JSON, or is not a valid policy.
    """
    return read_record(Policy, path, "policy", _REDO)


def write_policy(policy: Policy, path: str | Path) -> None:
    """Write a policy file; a reader sees the old file or the new one, never a part.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = json.dumps(policy.model_dump(mode="json", exclude_none=True), indent=1) + "\n"
    write_whole(text, path, "policy")
