"""Everything cascade raises on purpose.

    CascadeError
    ├── ConfigError     a graph file, calibration or setting is wrong; the message starts with file:line
    ├── RequestError    the request itself cannot be answered by any model (empty text, NUL bytes, too long)
    ├── ModelError      one model call failed; inside a run it becomes a recorded call, never an exception
    ├── PrivacyError    a local-only request was about to leave this machine
    └── TraceError      the trace store cannot be read or written
        ├── UnknownRunError   no run has that name, or several begin with it
        └── GradeError        there is no answer to grade, or the grade cannot be stored

Messages name the thing, its value, what was expected, and the fix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "CascadeError",
    "ConfigError",
    "GradeError",
    "ModelError",
    "PrivacyError",
    "RequestError",
    "TraceError",
    "UnknownRunError",
]


UNCLASSED = "failed"


class CascadeError(Exception):
    """Base class of all errors that cascade raises on purpose."""


class ConfigError(CascadeError):
    """A graph, calibration or setting is wrong.

    Attributes:
        problems: one line each, `file:line: path: what is wrong with VALUE; known: …; do X`.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class RequestError(CascadeError):
    """The request cannot be answered by any model: empty, too long, or not text."""


class ModelError(CascadeError):
    """One model call failed. Inside a run it is recorded in the trace and the request escalates.

    Attributes:
        billed: (prompt, generated) tokens that have to be paid for all the same: what was reported for an
            answer that cannot be used, an upper bound for one that broke off, zero if nothing was generated.
        healthy: True if the model works and the request, or what it answered, is at fault; such a failure
            does not open the model's circuit breaker.
        refused: why the model was not asked at all (`busy`, `breaker_open`, `over_budget`), or None.
        run: the id of the run that a cascade, as the model, made of the request, or None.
        reason: the class of the failure in one word, which holds nothing that anybody wrote: `timeout`,
            `connection`, `http_429`, `finish_reason` …; what `trace.store_text: false` keeps of it.
        status: the HTTP status that the endpoint answered with, or named in an answer of status 200; or None.
    """

    def __init__(
        self,
        message: str,
        billed: tuple[int, int] = (0, 0),
        *,
        healthy: bool = False,
        refused: str | None = None,
        run: str | None = None,
        reason: str | None = None,
        status: int | None = None,
    ) -> None:
        self.billed = billed
        self.healthy = healthy
        self.refused = refused
        self.run = run
        self.reason = reason or refused or UNCLASSED
        self.status = status
        super().__init__(message)


class PrivacyError(CascadeError):
    """A local-only request was about to be sent to a model that is not local."""


class TraceError(CascadeError):
    """The trace store cannot be opened, read or written."""


class UnknownRunError(TraceError):
    """No stored run has that name, or several begin with it."""


class GradeError(TraceError):
    """There is no answer to grade, or the grade is not one that can be stored."""


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return where the first problem of a pydantic error is, its keys joined by dots, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(map(str, first["loc"])), str(first["msg"])
