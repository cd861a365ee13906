"""The graph language: what a graph file may say, as strict pydantic models.

Field descriptions end up in the JSON Schema (`cascade schema`), so editors show them. What needs more
than one field or a file to judge (reachability, prices, calibrations) is in `checks`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Config(BaseModel):
    """A frozen part of a graph file that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Price(Config):
    """What a model costs, in US dollars per million tokens."""

    input: float = Field(ge=0.0)
    """USD per million prompt tokens."""
    output: float = Field(ge=0.0)
    """USD per million generated tokens."""


class ModelBase(Config):
    """What every kind of model has."""

    tier: Name = "local"
    """Cost level shown in traces: haiku, sonnet, opus, or any name of yours."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds that one call may take."""


class Prompted(ModelBase):
    """What models that read a prompt have in common."""

    prompt: str | None = None
    """Template of the user message: {text} is the request, {labels} the labels, one a line."""
    system: str | None = None
    """System message, for models with a chat template."""
    labels: list[str] | str | None = None
    """The closed set of answers: a list; `bundled:NAME#TASK`, alone or in it, is a task's labels."""
    max_tokens: int = Field(512, ge=1)
    """Most tokens that one answer may have; the worst case that limits are priced with."""
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    """Sampling temperature; 0 is greedy."""
    seed: int = Field(0, ge=0)
    """Seed of the first sample; sample k uses seed + k."""


class LlamaCppModel(Prompted):
    """A GGUF model, run by llama.cpp in this process on the CPU."""

    kind: Literal["llamacpp"]
    path: str
    """A file beside the graph, `bundled:NAME`, or `hf:OWNER/REPO/FILE.gguf`."""
    task: str | None = None
    """Task of a bundled expert; its labels and prompt are in the GGUF. Needed where it has several."""
    n_ctx: int = Field(4096, ge=16)
    """Context length in tokens, prompt and answer together."""
    n_threads: int | None = Field(None, ge=1)
    """Threads of one decode; default: one less than the machine's cores, at least one."""
    price: Price = Price(input=0.0, output=0.0)
    """What the tokens cost you; local tokens are free unless you say otherwise."""
    local: Literal[True] = True
    """A GGUF model never sends anything anywhere."""


class OpenAIModel(Prompted):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    model: str
    """The model's name at the endpoint."""
    url: str | None = None
    """Base URL; wins over `url_env`."""
    url_env: str = "OPENAI_BASE_URL"
    """Environment variable that holds the base URL."""
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; null for an endpoint that needs none."""
    price: Price | None = None
    """Price; default: looked up by name in genai-prices."""
    logprobs: bool = True
    """Ask the endpoint for token log-probabilities (some refuse)."""
    max_retries: int = Field(1, ge=0, le=5)
    """Retries of the openai client on 408, 409, 429, 5xx and connection errors."""
    local: bool = False
    """True only for an endpoint on your own machine: local-only requests may go there."""


class HumanModel(ModelBase):
    """A person: the run waits until someone answers (`Cascade.resume`)."""

    kind: Literal["human"]
    question: str = "{text}"
    """What the person is asked; {text} is the request."""
    price: Price = Price(input=0.0, output=0.0)
    """People cost something too, but not by the token."""
    local: bool = True
    """False if the question leaves this machine."""


class ScriptedModel(ModelBase):
    """A model that answers from a table: for tests and dry runs."""

    kind: Literal["scripted"]
    replies: dict[str, str | list[str]] = Field(default_factory=dict)
    """Text → answer; a list gives one answer per sample."""
    default: str | None = None
    """Answer for every other text; without it the call fails."""
    confidence: Probability | None = None
    """Reported as the probability of every answered token; without it there are no signals."""
    labels: list[str] | None = None
    """Report the answer as a label with `confidence`, the rest spread over the others."""
    fail: str | None = None
    """Fail each call with this message."""
    delay: float = Field(0.0, ge=0.0)
    """Seconds to wait before answering."""
    price: Price = Price(input=0.0, output=0.0)
    """Price per million tokens; a token is a whitespace-separated word here."""
    max_tokens: int = Field(64, ge=1)
    """Most words that one answer may have; the worst case that limits are priced with."""
    local: bool = True
    """False to play a remote model."""


ModelConfig = Annotated[LlamaCppModel | OpenAIModel | HumanModel | ScriptedModel, Field(discriminator="kind")]


class LabelsConfidence(Config):
    """Confidence from the exact distribution over a closed label set."""

    by: Literal["labels"]
    signal: Literal["top1", "margin", "entropy"] = "top1"
    """top1: probability of the best label; margin: best minus second; entropy: 1 − normalised entropy."""
    calibration: str | None = None
    """Calibration file beside the graph (`cascade calibrate`); without it confidence is uncalibrated."""


class LogprobConfidence(Config):
    """Confidence from the log-probabilities of the generated tokens."""

    by: Literal["logprob"]
    signal: Literal["mean", "min", "p10", "p25", "p50", "margin", "entropy"] = "p10"
    """Which statistic of the tokens is the score; quantiles are less biased by length than the mean."""
    calibration: str | None = None
    """Calibration file beside the graph (`cascade calibrate`); without it confidence is uncalibrated."""


class AgreementConfidence(Config):
    """Confidence from the share of drafts (samples, models) that give the same answer."""

    by: Literal["agreement"]
    calibration: str | None = None
    """Calibration file beside the graph (`cascade calibrate`); without it confidence is uncalibrated."""


ConfidenceConfig = Annotated[
    LabelsConfidence | LogprobConfidence | AgreementConfidence, Field(discriminator="by")
]


class GateBase(Config):
    """A gate scores candidates before anything is asked: models of `ask`, or branches of `to`."""

    top: int = Field(1, ge=1)
    """How many of the stage's models to ask, best first (without `to`)."""
    to: dict[str, Name] | None = None
    """Candidate → stage to continue with; a stage that branches asks no model itself."""
    accept: Probability | None = None
    """Least score of the best branch; below it the stage escalates by rule gate_unsure."""


class KeywordsGate(GateBase):
    """Scores a candidate by the share of the text's matches that are its own; no match gives all the same."""

    by: Literal["keywords"]
    rules: dict[str, list[str]]
    """Candidate → words or phrases, matched as whole words without regard to case."""


class ClassifierGate(GateBase):
    """Scores candidates by the label distribution of a model whose labels are the candidates' names."""

    by: Literal["classifier"]
    model: Name
    """A model of this graph with a closed label set."""


GateConfig = Annotated[KeywordsGate | ClassifierGate, Field(discriminator="by")]


class Stage(Config):
    """One node of the graph: whom to ask, and when the answer is good enough."""

    name: Name
    ask: list[Name] = Field(default_factory=list)
    """Models to ask; several are asked at the same time."""
    gate: GateConfig | None = None
    """Picks among `ask`, or branches to other stages."""
    samples: int = Field(1, ge=1, le=32)
    """Drafts per model; more than one needs a temperature above 0."""
    confidence: ConfidenceConfig | None = None
    """How the answer is checked; without it every answer is accepted by rule unchecked."""
    accept: Probability | None = None
    """Least confidence at which the answer is accepted."""
    audit_rate: Probability = 0.0
    """Share of the answers it would accept that go on all the same (rule audit), for the next to grade."""
    escalate: str | None = None
    """Stage to continue with when the answer is not good enough, or `end`; default: the next in the list."""


class Limits(Config):
    """Hard limits of one run; a stage whose worst case exceeds what is left is not started."""

    cost_usd: float | None = Field(None, ge=0.0)
    """Most money, in US dollars."""
    seconds: float | None = Field(None, gt=0.0)
    """Most time; calls are cut off when it is used up."""
    calls: int | None = Field(None, ge=1)
    """Most model calls, gates and failed calls included."""


class Trace(Config):
    """What is kept of a run."""

    store_text: bool = True
    """False stores SHA-256 hashes in place of prompts and answers."""


class Graph(Config):
    """A cascade: models, and the stages that ask them."""

    name: Name
    description: str | None = None
    """One sentence for people."""
    limits: Limits = Limits()
    on_exhausted: Literal["abstain", "best"] = "abstain"
    """When no stage accepts: give no answer, or the best evaluated draft (status best_effort)."""
    baseline: Name | None = None
    """Model that savings are measured against; default: the last stage's first model that has a price."""
    trace: Trace = Trace()
    models: dict[Name, ModelConfig] = Field(min_length=1)
    stages: list[Stage] = Field(min_length=1)

    def stage(self, name: str) -> Stage:
        """Return the stage called `name`; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def next_stage(self, name: str) -> str | None:
        """Return where stage `name` escalates to, or None at the end of the cascade."""
        names = [stage.name for stage in self.stages]
        index = names.index(name)
        target = self.stages[index].escalate
        if target is not None:
            return None if target == "end" else target
        return names[index + 1] if index + 1 < len(names) else None
