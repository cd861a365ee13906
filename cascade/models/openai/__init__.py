"""Models of kind `openai`: endpoints that speak OpenAI's chat completions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cascade.models.openai.fields import Optional
from cascade.models.openai.hosts import local_problem
from cascade.models.openai.prices import lookup
from cascade.models.prompted import Prompted, checked_labels
from cascade.spec.kinds import Access, Evidence, ModelFacts, Problem, settings_sha256
from cascade.spec.parts import BreakerConfig, Deployment, Price

if TYPE_CHECKING:
    from cascade.models.base import Model


class OpenAISettings(Prompted):
    """A model behind an OpenAI-compatible endpoint."""

    is_endpoint: ClassVar[bool] = True

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
    omit: list[Optional] = Field(default=[], max_length=4)
    """Fields that are left out of every request, because the endpoint refuses them: seed, temperature,
    stream_options, top_logprobs. `cascade models probe` says which."""
    thinking: Literal["tagged", "opened"] = "tagged"
    """opened: the server's template opens the thinking, so an answer begins within it, up to `</think>`."""
    max_retries: int = Field(1, ge=0, le=5)
    """Retries of the openai client on 408, 409, 429, 5xx and connection errors."""
    breaker: BreakerConfig | None = BreakerConfig()
    """When to stop calling the model because it keeps failing; null: never."""
    deployments: list[Deployment] = Field(default_factory=list)
    """Equal endpoints to ask in turn if this one fails; each has its own breaker."""
    local: bool = False
    """True only for an endpoint on your own machine or network: local-only requests may go there."""

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Check the labels, the prompt and the URL; nothing is asked."""
        problems: list[Problem] = []
        labels = checked_labels(partial(self.resolve_labels, base), self.labels, problems)
        problems += self.check_prompt(ModelFacts(labels, unknown=bool(problems) and labels is None))
        if self.url is not None and not re.match(r"https?://[^/\s]+", self.url):
            problems.append(Problem(("url",), f"{self.url!r} is not a URL; expected http://… or https://…"))
        elif self.local and self.url is not None and (reason := local_problem(self.url)):
            problems.append(Problem(("local",), reason))
        if {"omit", "temperature"} <= self.model_fields_set and "temperature" in self.omit:
            problems.append(Problem(("omit",), "'temperature' is set, and left out here; drop one of them"))
        return ModelFacts(labels, unknown=bool(problems)), problems

    def repeats(self, facts: ModelFacts) -> str | None:
        """Return that greedy decoding gives the same answer, unless the server chooses the temperature."""
        return None if "temperature" in self.omit else super().repeats(facts)

    def accesses(self) -> Iterator[Access]:
        """The endpoints get the requests, and the keys where `cascade.models.openai.hosts` allows it."""
        from cascade.models.openai.hosts import endpoint_accesses

        yield from endpoint_accesses(self.url, self.url_env, self.key_env)
        for other in self.deployments:
            yield from endpoint_accesses(other.url, other.url_env, other.key_env)
        yield from super().accesses()

    def fingerprint(self, base: Path, facts: ModelFacts) -> str:
        """Hash the model's name, the prompt, the labels, and what is set of sampling."""
        return settings_sha256(self.answer_settings(facts, "omit") | {"model": self.model})

    def build(self, name: str, base: Path, facts: ModelFacts) -> Model:
        """Return the model; nothing connects before the first call."""
        from cascade.models.openai.model import OpenAI

        return OpenAI(name, self, facts)

    def token_price(self) -> Price | None:
        """Return `price`, nothing for an endpoint of one's own, or the price that genai-prices knows."""
        if self.price is not None:
            return self.price
        return Price(input=0.0, output=0.0) if self.local else lookup(self.model)

    def price_problem(self) -> Problem | None:
        """An unknown price would make limits meaningless."""
        if self.token_price() is not None:
            return None
        text = f"no price for {self.model!r} is known; give one in USD per million tokens"
        return Problem(("model",), f"{text}: price: {{input: …, output: …}}")

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """An endpoint reports a few tokens of each distribution, if it reports any."""
        if evidence in ("labels", "top_label"):
            return f"model {name!r} is an endpoint, which reports no distribution over all labels"
        if not self.logprobs:
            return f"model {name!r} has 'logprobs: false', so it reports no token log-probabilities"
        if evidence == "entropy":
            return f"model {name!r} is an endpoint, which reports a few tokens only: no entropy; use 'p10'"
        return None
