"""Takes a person's answer for a run that waits, and finishes the run with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from starlette.exceptions import HTTPException

from cascade.errors import RequestError
from cascade.records import Result, check_text
from cascade.run import Cascade


class Answers:
    """Finishes waiting runs.

    Args:
        versions: the graphs whose runs can go on here, as `name@digest`.
        cascade_of: returns the cascade of one of `versions`; called in a thread, because it may load one.
    """

    def __init__(self, versions: Collection[str], cascade_of: Callable[[str], Cascade]) -> None:
        self._versions, self._cascade_of = frozenset(versions), cascade_of
        self._at_work: set[str] = set()  # runs that are being answered

    def takes(self, run: Result) -> bool:
        """Return whether `run` waits and its graph is here."""
        return run.status == "waiting" and run.graph in self._versions

    async def give(self, run: Result, answer: object) -> Result:
        """Finish `run`, as it is stored, with a person's answer, and return it as it ended.

        Raises:
            HTTPException: 400 the answer is not a text that a model could give, 409 the run does not wait for
                a person, another version of its graph is here, or somebody else is answering it.
        """
        try:
            text = check_text(answer)
        except RequestError as error:
            raise HTTPException(400, f"answer: {error}") from None
        self._check(run)
        self._at_work.add(run.run)
        try:
            cascade = await asyncio.to_thread(self._cascade_of, run.graph)
            return await cascade.aresume(run.run, text)
        except RequestError as error:
            raise HTTPException(409, str(error)) from None
        finally:
            self._at_work.discard(run.run)

    def _check(self, run: Result) -> None:
        if run.status != "waiting":
            raise HTTPException(409, f"run {run.run} is not waiting; it ended as {run.status}")
        if run.run in self._at_work:
            raise HTTPException(409, f"run {run.run} is being answered already")
        if run.graph not in self._versions:
            known = ", ".join(sorted(self._versions)) or "none"
            raise HTTPException(
                409,
                f"run {run.run} was begun by {run.graph}, which is not here; known: {known}; "
                f"start with that file, or answer with `cascade resume {run.run} ANSWER`",
            )


def no_answers() -> Answers:
    """Return what takes no answers, for a viewer that only reads."""
    return Answers((), _no_cascade)


def _no_cascade(version: str) -> Cascade:
    raise AssertionError(version)
