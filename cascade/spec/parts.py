"""The small parts of the graph language that need no others, as strict pydantic models."""

from __future__ import annotations

from typing import Annotated

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
    cached: float | None = Field(None, ge=0.0)
    """USD per million prompt tokens that the server says it had cached; default: `input`."""


class BreakerConfig(Config):
    """When a model that keeps failing is left alone (rule breaker_open), and for how long."""

    failures: int = Field(5, ge=1)
    """Failures in a row that open it. A request that the model rightly rejects does not count."""
    share: float | None = Field(None, gt=0.0, le=1.0)
    """Share of failures among the last `window` calls that also opens it."""
    window: int = Field(20, ge=2)
    """How many calls `share` looks at."""
    seconds: float = Field(30.0, gt=0.0)
    """How long it stays open; then one call, the probe, is let through."""


class Deployment(Config):
    """Another endpoint that serves an equal model at the same price."""

    url: str | None = None
    """Base URL; wins over `url_env`."""
    url_env: str = "OPENAI_BASE_URL"
    """Environment variable that holds the base URL."""
    key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; null for an endpoint that needs none."""
    model: str | None = None
    """The model's name there; default: the model's own."""


class Shadow(Config):
    """A second model asked beside the stage's own. Its answer goes into the trace and nowhere else."""

    model: Name
    """The model; the stage must not ask it already."""
    share: float = Field(gt=0.0, le=1.0)
    """Share of the stage's requests; those drawn for an audit come first."""
    seconds: float | None = Field(None, gt=0.0)
    """Maximum time of its call; default: the model's own timeout. A run ends when its shadows have."""


class Canary(Config):
    """A model that answers a share of the stage's requests in place of the stage's own."""

    model: Name
    """The model; the stage must not ask it already."""
    share: float = Field(gt=0.0, le=1.0)
    """Share of the stage's requests."""
    calibration: str | None = None
    """Its own calibration file; required where the stage has one, which belongs to the stage's model."""
    accept: Probability | None = None
    """Its own threshold; default: the stage's."""


class Limits(Config):
    """Hard limits of one run; a stage whose worst case exceeds what is left is not started."""

    cost_usd: float | None = Field(None, ge=0.0)
    """Maximum cost in US dollars."""
    seconds: float | None = Field(None, gt=0.0)
    """Maximum time; calls are cut off when it is used up."""
    calls: int | None = Field(None, ge=1)
    """Maximum number of model calls, including gates and failed calls."""


class AccountBudget(Config):
    """What one account may spend."""

    day_usd: float = Field(ge=0.0, le=1e6)
    """Maximum spend per UTC day, in US dollars."""


class DayBudgets(Config):
    """Most money per UTC day, over all processes that share the trace database (rule over_budget)."""

    day_usd: float | None = Field(None, ge=0.0, le=1e6)
    """What this graph may spend on one UTC day, in US dollars."""
    account_day_usd: float | None = Field(None, ge=0.0, le=1e6)
    """What each account (a request's `account`) may spend on one UTC day, over all graphs."""
    accounts: dict[str, AccountBudget] = Field(default_factory=dict)
    """Account → its own budget, in place of `account_day_usd`."""


class Trace(Config):
    """What is kept of a run."""

    store_text: bool = True
    """False stores SHA-256 hashes in place of prompts and answers."""
    otel_content: bool = False
    """Put prompts, answers and error messages into OpenTelemetry spans; otherwise they contain none."""
    langsmith: bool = False
    """Let LangSmith's environment variables trace runs; otherwise they have no effect."""
