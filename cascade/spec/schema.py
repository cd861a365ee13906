"""The graph language: what a graph file may say, as strict pydantic models.

Field descriptions end up in the JSON Schema (`cascade schema`), so editors show them. What needs more
than one field or a file to judge (reachability, prices, calibrations) is in `checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cascade.spec.gates import ClassifierGate, GateConfig
from cascade.spec.parts import (
    NAME,
    AgreementConfidence,
    BreakerConfig,
    Config,
    DayBudgets,
    Deployment,
    Limits,
    Name,
    Price,
    Probability,
    Trace,
)  # fmt: skip
from cascade.spec.scripted import ScriptedReply

__all__ = [
    "NAME", "AgreementConfidence", "Config", "Deployment", "Limits", "Name", "Price", "Probability", "Trace",
]  # fmt: skip


class ModelBase(Config):
    """What every kind of model has."""

    tier: Name = "local"
    """Cost level shown in traces: haiku, sonnet, opus, or any name of yours."""
    timeout: float = Field(60.0, gt=0.0)
    """Seconds that one call may take."""
    breaker: BreakerConfig | None = None
    """When the model is left alone because it keeps failing; null: never."""
    concurrency: int | None = Field(None, ge=1)
    """Most calls at work at once; the others wait."""
    queue: int = Field(256, ge=0)
    """Most calls that may wait where `concurrency` is set; one more fails at once, as busy."""


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
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample only from the most probable tokens that together have this probability; 1 for all."""
    seed: int = Field(0, ge=0)
    """Seed of the first sample; sample k uses seed + k."""
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default=[], max_length=16)
    """Strings that end an answer and are not part of it (OpenAI takes at most 4)."""


class LlamaCppModel(Prompted):
    """A GGUF model, run by llama.cpp in this process on the CPU."""

    kind: Literal["llamacpp"]
    path: str
    """A file beside the graph, `bundled:NAME`, or `hf:OWNER/REPO/FILE.gguf`."""
    task: str | None = None
    """Task of a bundled expert; its labels and prompt are in the GGUF. Needed where it has several."""
    lora: str | None = None
    """A LoRA adapter for this model: a GGUF file beside the graph."""
    min_p: float = Field(0.0, ge=0.0, lt=1.0)
    """Leave out tokens whose probability is less than this share of the best one's."""
    grammar: str | None = None
    """GBNF grammar that an answer must follow: a file beside the graph, or the text itself."""
    output_schema: dict[str, Any] | str | None = None
    """JSON Schema that an answer must satisfy: a file beside the graph, or the schema itself."""
    examples: dict[str, Annotated[list[str], Field(min_length=1)]] | None = None
    """Label → example texts, for an embedding model: the label whose examples are most similar wins."""
    example_temperature: float = Field(0.05, gt=0.0, le=2.0)
    """Softmax temperature that turns cosine similarities to the examples into probabilities."""
    label_scoring: Literal["exact", "top1"] = "exact"
    """exact: the distribution over all labels; top1: the best label with a lower bound of its probability."""
    n_ctx: int = Field(4096, ge=16)
    """Context length in tokens, prompt and answer together."""
    n_threads: int | None = Field(None, ge=1)
    """Most threads of one decode; default: one less than the machine's cores, at least one."""
    isolate: Literal["none", "process"] = "none"
    """process: run it in a process of its own, so that a crash of llama.cpp is one failed call."""
    memory_mb: int | None = Field(None, ge=1024)
    """Most address space of that process in MiB; it reserves about 1200 before it loads the model."""
    top_logprobs: int = Field(0, ge=0, le=20)
    """Keep so many of the most probable tokens of each generated token's distribution in the trace."""
    prefix_dir: str | None = None
    """Folder beside the graph that keeps the evaluated prompt before the request's text on disk."""
    prompt_statistics: bool = False
    """Measure the prompt's tokens too; its beginning is then never taken over from another prompt."""
    reproducible: bool = False
    """Decode each request by itself and without flash attention: slower, and the same in any company."""
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
    breaker: BreakerConfig | None = BreakerConfig()
    """When the model is left alone because it keeps failing; null: never."""
    deployments: list[Deployment] = Field(default_factory=list)
    """Equal endpoints to ask in turn where this one fails; each has a breaker of its own."""
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


class CascadeModel(ModelBase):
    """Another graph as a model: its run is kept as a run of its own, and counts here as one call."""

    kind: Literal["cascade"]
    path: str
    """The other graph's file, relative to this one's folder."""
    local: bool = False
    """True only if all its models are local: local-only requests may go there."""


class ScriptedModel(ModelBase):
    """A model that answers from a table: for tests and dry runs."""

    kind: Literal["scripted"]
    replies: dict[str, str | ScriptedReply | list[str | ScriptedReply]] = Field(default_factory=dict)
    """Last message (the user's, or a tool's result) → answer; a list gives one answer per sample."""
    default: str | ScriptedReply | None = None
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


ModelConfig = Annotated[
    LlamaCppModel | OpenAIModel | HumanModel | CascadeModel | ScriptedModel, Field(discriminator="kind")
]


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


ConfidenceConfig = Annotated[
    LabelsConfidence | LogprobConfidence | AgreementConfidence, Field(discriminator="by")
]


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
    on_drift: Literal["report", "tighten"] = "report"
    """What `cascade monitor` does when the stage drifted: tighten raises its threshold as audits demand."""
    early_exit: bool = False
    """Stop a local draft as soon as its confidence can no longer reach `accept` (rule early_exit)."""
    hedge: float | None = Field(None, gt=0.0)
    """Seconds after which the next stage starts while this one still works; both are paid for."""
    escalate: str | None = None
    """Stage to continue with when the answer is not good enough, or `end`; default: the next in the list."""

    @property
    def gate_models(self) -> list[str]:
        """The models that the stage's gate asks itself."""
        return [self.gate.model] if isinstance(self.gate, ClassifierGate) else []


class Graph(Config):
    """A cascade: models, and the stages that ask them."""

    name: Name
    description: str | None = None
    """One sentence for people."""
    limits: Limits = Limits()
    budgets: DayBudgets = DayBudgets()
    """Most money per UTC day, for the graph and for accounts."""
    on_exhausted: Literal["abstain", "best"] = "abstain"
    """When no stage accepts: give no answer, or the best evaluated draft (status best_effort)."""
    baseline: Name | None = None
    """Model that savings are measured against; default: the last stage's first model that has a price."""
    trace: Trace = Trace()
    policy: str | None = None
    """Policy file beside the graph (`cascade tune`): it decides in place of the stages' `accept`."""
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
