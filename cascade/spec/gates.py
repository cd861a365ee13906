"""What a graph file may say about gates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cascade.spec.parts import Config, Name, Probability


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
