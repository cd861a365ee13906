"""What a kind of model, of confidence, or of gate declares: its settings, and what the rest asks about them.

A kind is one class of settings. A graph file's `kind` (of a model) or `by` (of a confidence or a gate) picks
it among those that packages register as entry points (`cascade.spec.registry`). Nobody else asks which kind
it is: every difference between kinds is an attribute or a method here.

A module that declares a kind imports its runtime (llama.cpp, an HTTP client) where it is used, not at its
head: `cascade check` loads every kind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from pydantic import Field

from cascade.records import Estimate, Token, ToolCall
from cascade.spec.parts import BreakerConfig, Config, Name, Price, Probability

Loc = tuple[str | int, ...]
"""The keys and indices that lead to a value of a graph file."""

Evidence = Literal["labels", "top_label", "tokens", "entropy", "learned"]
"""What a reply can report beside its text: the distribution over all labels; at least a lower bound of the
best label's probability; the log-probabilities of its tokens; these and their entropies; what a learned
expert itself says of its answer."""


class Problem(NamedTuple):
    """What is wrong with a graph file, and where."""

    loc: Loc
    text: str


class ModelFacts(NamedTuple):
    """What the files behind a model's settings say; resolved once, when the graph is loaded.

    Attributes:
        labels: the closed set of its answers; None if it answers freely.
        unknown: its labels cannot be known: a file is not downloaded yet, or something is wrong with it.
        grammar: the GBNF grammar that its answers follow.
        learned: it is an expert that was learned, which says itself how sure it is: its replies have
            `meta["expert"]` with a calibrated `confidence` and with `known`.
    """

    labels: tuple[str, ...] | None = None
    unknown: bool = False
    grammar: str | None = None
    learned: bool = False


class Weights(NamedTuple):
    """A file of weights; `task` is the part of it that the settings name, if they name one."""

    file: Path
    task: str | None


class Access(NamedTuple):
    """What a graph file makes the process do beyond computing: `action` says what, `target` to what.

    `note` says what is special about it, such as that it is refused.
    """

    action: Literal["runs code", "reads variable", "reads file", "writes folder", "contacts", "downloads"]
    target: str
    note: str = ""


class Draft(Protocol):
    """What confidence methods and gates see of a reply (`cascade.models.base.Reply`)."""

    @property
    def text(self) -> str:
        """The answer."""
        ...

    @property
    def labels(self) -> Mapping[str, float] | None:
        """Label → probability over the closed set of answers, best first."""
        ...

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The generated tokens with their statistics."""
        ...

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls that it makes."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """What else the model reports, as plain JSON."""
        ...


Measured = list[tuple[int, Mapping[str, float]]]
"""Index and signals of each draft that can be judged."""


def settings_sha256(value: object) -> str:
    """Return the SHA-256 (hex) of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class ModelSettings(Config):
    """What every kind of model has. A kind adds `kind: Literal[NAME]`, and must say how it is built."""

    is_endpoint: ClassVar[bool] = False
    """It asks a server, which `cascade models probe` tries out."""
    is_person: ClassVar[bool] = False
    """A person answers: the run waits for them, and resumes with what they say (`Cascade.resume`)."""
    answers_best_label: ClassVar[bool] = True
    """Of a label distribution, the answer is the most probable label."""

    tier: Name = "local"
    """Cost level shown in traces: haiku, sonnet, opus, or any name of yours."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds that one call may take."""
    breaker: BreakerConfig | None = None
    """When to stop calling the model because it keeps failing; null: never."""
    concurrency: int | None = Field(None, ge=1)
    """Maximum number of calls at once; the others wait."""
    queue: int = Field(256, ge=0)
    """How many calls may wait if `concurrency` is set; the next one fails at once, as busy."""
    kind: str
    local: bool = False
    """True only if requests stay on this machine: local-only requests may go there."""

    def resolve(self, base: Path) -> ModelFacts:
        """Read the files that the settings name.

        Args:
            base: the graph file's folder; relative paths start there.

        Raises:
            ConfigError: one is missing or broken.
        """
        return ModelFacts()

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Resolve the settings and check them; return what is known and everything that is wrong.

        The problems' places start at the model. Nothing is called or downloaded.
        """
        return self.resolve(base), []

    def fingerprint(self, base: Path, facts: ModelFacts) -> str:
        """Return a SHA-256 (hex) over what decides the model's answers; by default, all its settings.

        Raises:
            ConfigError: a file is missing, broken, or not downloaded yet.
        """
        return settings_sha256(self.model_dump(mode="json"))

    def build(self, name: str, base: Path, facts: ModelFacts) -> Any:
        """Return the `cascade.models.base.Model` that a graph calls `name`; imports its runtime.

        Raises:
            ConfigError: the settings cannot be used, or the kind's extra is not installed.
        """
        raise NotImplementedError(f"models of kind {self.kind!r} cannot be built")

    def token_price(self) -> Price | None:
        """Return what a million tokens cost; None if that is unknown, or not by the token."""
        return None

    def price_problem(self) -> Problem | None:
        """Return the problem that no price is known, for a kind that costs by the token."""
        return None

    def answer_tokens(self, facts: ModelFacts) -> int:
        """Return how many tokens one answer may have at most, for its worst price."""
        return 0

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """Return why the model, called `name`, never reports `evidence`; None if it does, or may."""
        return f"model {name!r} is of kind {self.kind}, which reports no such evidence"

    def repeats(self, facts: ModelFacts) -> str | None:
        """Return why every sample of the model gives the same answer; None if they differ."""
        return None

    def inner_graph(self) -> str | None:
        """Return the file, relative to the graph's folder, of the graph that the model is, if it is one."""
        return None

    def accesses(self) -> Iterator[Access]:
        """Yield what the settings make the process read, run and contact; nothing is opened for it."""
        yield from ()

    def local_file(self, base: Path) -> str | None:
        """Describe the file whose weights the model loads on this machine; None if it loads none."""
        return None

    def weights(self, base: Path) -> Weights | None:
        """Return what the model loads on this machine; None if it loads no weights, or they are not here yet.

        Raises:
            ConfigError: the file is missing.
        """
        return None

    def file_is_here(self, base: Path) -> bool:
        """Return whether the model loads a file that is on this machine already, and downloads nothing."""
        return False


class ConfidenceSettings(Config):
    """What every confidence method has. A kind adds `by: Literal[NAME]`, and says what it measures."""

    by: str
    calibration: str | None = None
    """Calibration file beside the graph (`cascade calibrate`); without it confidence is uncalibrated."""

    @property
    def min_drafts(self) -> int:
        """Fewest drafts that the method can judge."""
        return 1

    @property
    def signal_name(self) -> str:
        """The name of the signal that is the score."""
        return self.by

    @property
    def score_is_calibrated(self) -> bool:
        """Whether the score is itself a calibrated probability to be right, without a calibration file."""
        return False

    @property
    def summary(self) -> str:
        """The method in a few words, for drawings."""
        return self.by

    @property
    def evidence(self) -> Evidence | None:
        """What the models of the stage must report; None where their texts are enough."""
        return None

    def accesses(self) -> Iterator[Access]:
        """Yield what the settings make the process read and run; nothing is opened for it."""
        if self.calibration is not None:
            yield Access("reads file", self.calibration)

    @property
    def early_exit_signal(self) -> str | None:
        """The running statistic of a draft's tokens that bounds its score from above, for early exit.

        One of `cascade.policy.early_exit.BOUNDED`; None where there is no bound.
        """
        return None

    def inspect(self, base: Path) -> Iterator[Problem]:
        """Yield what is wrong with the settings and the files they name; nothing is run.

        Args:
            base: the graph file's folder; relative paths start there.
        """
        yield from ()

    def prepare(self, base: Path) -> None:
        """Get ready to judge; called once, before a graph runs.

        Raises:
            ConfigError: something that the settings name is missing or broken.
        """

    async def judge(self, prompt: str, drafts: Sequence[Draft | None]) -> Measured:
        """Return what `measure` does; a method that takes time, or reads the request, overrides this one.

        Args:
            prompt: the request's text; of a conversation, the last user message.
            drafts: as of `measure`.

        Raises:
            Exception: whatever went wrong; then there is no estimate.
        """
        return self.measure(drafts)

    def signals(self, draft: Draft) -> Mapping[str, float]:
        """Return what is measured on one draft, each signal in [0, 1]; empty if nothing is."""
        raise NotImplementedError(f"confidence by {self.by!r} measures nothing")

    def measure(self, drafts: Sequence[Draft | None]) -> Measured:
        """Return index and signals of each draft that can be judged.

        Args:
            drafts: what the answer calls of a stage got; None where a call failed or its answer is invalid.
        """
        return [
            (index, self.signals(draft))
            for index, draft in enumerate(drafts)
            if draft is not None and (draft.text.strip() or draft.tool_calls)
        ]

    def lowest_score(self, label_counts: Sequence[int], drafts: int) -> float:
        """Return the lowest score that is possible.

        Args:
            label_counts: of each model asked, the number of labels of which it answers the most probable;
                0 where it has none, or may answer another.
            drafts: how many drafts the stage asks for at most.
        """
        return 0.0

    def noise_range(self, estimate: Estimate, nats: float) -> tuple[float, float] | None:
        """Return the range of the score if each log-probability moves by `nats`; None if that is unknown."""
        return None


class SignalConfidence(ConfidenceSettings):
    """A confidence method that measures several signals, of which `signal` names the score."""

    signal: str

    @property
    def signal_name(self) -> str:
        """The chosen signal."""
        return self.signal

    @property
    def summary(self) -> str:
        """The method and its signal."""
        return f"{self.by} {self.signal}"


class GateSettings(Config):
    """What every gate has: it scores candidates, models of `ask` or branches of `to`, before any is asked.

    A kind adds `by: Literal[NAME]`, and says how it scores.
    """

    top: int = Field(1, ge=1)
    """How many of the stage's models to ask, best first (without `to`)."""
    to: dict[str, Name] | None = None
    """Candidate → stage to continue with; a stage that branches asks no model itself."""
    accept: Probability | None = None
    """Minimum score of the best branch; below it the stage escalates (rule gate_unsure)."""
    by: str

    @property
    def summary(self) -> str:
        """The gate in a few words, for drawings."""
        return self.by

    @property
    def models(self) -> Mapping[str, str]:
        """The models of the graph that the gate itself asks: key of these settings → name."""
        return {}

    def accesses(self) -> Iterator[Access]:
        """Yield what the settings make the process read and run; nothing is opened for it."""
        yield from ()

    def check(
        self,
        candidates: Sequence[str],
        models: Mapping[str, ModelSettings],
        facts: Mapping[str, ModelFacts],
    ) -> Iterator[Problem]:
        """Yield what is wrong with the gate; the problems' places start at the gate.

        Args:
            candidates: the names that it scores.
            models: the graph's models.
            facts: what is known about them.
        """
        yield from ()

    async def score(
        self, candidates: Sequence[str], text: str, ask: Callable[[str], Awaitable[Draft | None]]
    ) -> dict[str, float] | None:
        """Return each candidate's score, summing to 1, or None if the gate could not tell.

        Args:
            candidates: names of models or branches, in the graph's order.
            text: the request.
            ask: performs and records a call of one of `models`; None if it failed.
        """
        raise NotImplementedError(f"gate by {self.by!r} cannot score")
