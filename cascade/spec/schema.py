"""The graph language: what a graph file may say, as strict pydantic models.

Field descriptions end up in the JSON Schema (`cascade schema`), so editors show them. What needs more
than one field or a file to judge (reachability, prices, calibrations) is checked by `cascade.config.checks`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cascade.spec.kinds import ConfidenceSettings, GateSettings, ModelSettings
from cascade.spec.parts import Canary, Config, DayBudgets, Limits, Name, Probability, Shadow, Trace
from cascade.spec.registry import CONFIDENCES, GATES, MODELS

# Built on first use: only then are the kinds loaded that packages register.
_DEFERRED = ConfigDict(defer_build=True)


class Stage(Config):
    """One node of the graph: whom to ask, and when the answer is good enough."""

    model_config = _DEFERRED

    name: Name
    ask: list[Name] = Field(default_factory=list)
    """Models to ask; several are asked at the same time."""
    gate: Annotated[GateSettings, GATES] | None = None
    """Picks among `ask`, or branches to other stages."""
    samples: int = Field(1, ge=1, le=32)
    """Drafts per model; more than one needs a temperature above 0."""
    confidence: Annotated[ConfidenceSettings, CONFIDENCES] | None = None
    """How the answer is checked; without it every answer is accepted by rule unchecked."""
    accept: Probability | None = None
    """Minimum confidence at which the answer is accepted."""
    audit_rate: Probability = 0.0
    """Share of the answers it would accept that go on anyway (rule audit), for the next stage to check."""
    on_drift: Literal["report", "tighten"] = "report"
    """What `cascade monitor` does after drift: tighten raises the threshold as audits require."""
    early_exit: bool = False
    """Stop a local draft as soon as its confidence can no longer reach `accept` (rule early_exit)."""
    on_truncated: Literal["escalate", "accept"] = "escalate"
    """What a check does with an answer cut at `max_tokens` while a later stage is left (rule truncated)."""
    hedge: float | None = Field(None, gt=0.0)
    """Seconds after which the next stage starts while this one still works; both are paid for."""
    shadow: Shadow | None = None
    """A second model asked beside, for `cascade promote` to compare; its answer is never used."""
    canary: Canary | None = None
    """A model that answers a share of the requests in place of the one in `ask`."""
    on_alarm: Literal["report", "rollback"] = "report"
    """What `cascade monitor` does on an alarm after a promotion: rollback undoes the promotion."""
    escalate: str | None = None
    """Stage to continue with when the answer is not good enough, or `end`; default: the next in the list."""

    @property
    def gate_models(self) -> list[str]:
        """The models that the stage's gate asks before it scores."""
        return [] if self.gate is None else list(self.gate.models.values())

    @property
    def tried_models(self) -> dict[Literal["shadow", "canary"], str]:
        """The models that are tried beside, or in place of, those in `ask`, by the key that names them."""
        tried: dict[Literal["shadow", "canary"], str] = {}
        if self.shadow is not None:
            tried["shadow"] = self.shadow.model
        if self.canary is not None:
            tried["canary"] = self.canary.model
        return tried


class Graph(Config):
    """A cascade: models, and the stages that ask them."""

    model_config = _DEFERRED

    name: Name
    description: str | None = None
    """One sentence for people."""
    limits: Limits = Limits()
    budgets: DayBudgets = DayBudgets()
    """Maximum spend per UTC day, for the graph and for accounts."""
    on_exhausted: Literal["abstain", "best"] = "abstain"
    """When no stage accepts: give no answer, or the best evaluated draft (status best_effort)."""
    baseline: Name | None = None
    """Model that savings are measured against; default: the last stage's first model that has a price."""
    trace: Trace = Trace()
    policy: str | None = None
    """Policy file beside the graph (`cascade tune`): it decides in place of the stages' `accept`."""
    models: dict[Name, Annotated[ModelSettings, MODELS]] = Field(min_length=1)
    stages: list[Stage] = Field(min_length=1)

    @property
    def has_person(self) -> bool:
        """Whether a run may wait for a person."""
        return any(model.is_person for model in self.models.values())

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
