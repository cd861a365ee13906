"""A person as a model: the run pauses on LangGraph's interrupt until someone answers."""

from __future__ import annotations

from pathlib import Path

from cascade.errors import ModelError
from cascade.models.base import OnText, Prompt, Reply
from cascade.spec.schema import HumanModel, Price


class Human:
    """A person who is asked when the cascade gets there. Has the shape of `base.Model`."""

    def __init__(self, name: str, config: HumanModel, base: Path) -> None:
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
        except (RuntimeError, KeyError) as error:  # what LangGraph raises where there is no run
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
