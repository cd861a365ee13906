"""Models of kind `human`: a person, for whom the run pauses on LangGraph's interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from cascade.errors import ModelError
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.prompted import template_problems
from cascade.spec.kinds import Evidence, ModelFacts, ModelSettings, Problem
from cascade.spec.parts import Price


class HumanSettings(ModelSettings):
    """A person: the run waits until someone answers (`Cascade.resume`)."""

    is_person: ClassVar[bool] = True

    kind: Literal["human"]
    question: str = "{text}"
    """What the person is asked; {text} is the request."""
    price: Price = Price(input=0.0, output=0.0)
    """People cost something too, but not per token."""
    local: bool = True
    """False if the question leaves this machine."""

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Check the template of the question."""
        problems = list(template_problems("question", self.question, ("text",)))
        return ModelFacts(unknown=bool(problems)), problems

    def build(self, name: str, base: Path, facts: ModelFacts) -> Human:
        """Return the model."""
        return Human(name, self)

    def token_price(self) -> Price | None:
        """Return `price`."""
        return self.price

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """A person gives an answer and nothing else."""
        if evidence in ("tokens", "entropy"):
            return f"model {name!r} is a person and reports no token log-probabilities"
        return f"model {name!r} has no labels, so there is no distribution over them"


class Human:
    """Asks a person. Has the shape of `base.Model`."""

    def __init__(self, name: str, config: HumanSettings) -> None:
        self.name = name
        self.tier = config.tier
        self.local = config.local
        self.price: Price | None = config.price
        self.timeout = config.timeout
        self.closed = False
        self._question = config.question

    def unavailable(self) -> str | None:
        """Return None: a question can always be put."""
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return zeros: a person is not paid by the token."""
        return 0, 0

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Pause the run with `{"model", "question"}` and return the answer that it is resumed with.

        The pause itself takes no part in time limits: the run ends as `waiting` and starts anew with the
        answer. LangGraph's `GraphInterrupt` passes through here on purpose.

        Raises:
            ModelError: there is no run to pause, or the answer is not a text.
        """
        from langgraph.types import interrupt

        question = {"model": self.name, "question": self._question.replace("{text}", prompt.text)}
        try:
            answer = interrupt(question)
        except (RuntimeError, KeyError) as error:  # LangGraph raises these outside of a run
            raise ModelError(
                f"model {self.name!r} is a person and can only be asked inside a run of a graph; use Cascade"
            ) from error
        if not isinstance(answer, str) or not answer.strip():
            raise ModelError(
                f"model {self.name!r} was answered with {answer!r:.60}; resume with a text that is not empty"
            )
        if on_text is not None:
            on_text(answer)
        return Reply(text=answer)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""
