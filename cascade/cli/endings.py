"""How a command for one request ends: its exit status, and on standard error why there is no answer."""

from __future__ import annotations

import sys

import typer

from cascade.cli.hints import hints
from cascade.records import Result

ABSTAINED, WAITING, FAILED = 3, 4, 5  # 0 is an answer; 1 an error, 2 a wrong call, 130 an interrupt
_OUT_OF_ORDER = ("no_draft", "unavailable", "breaker_open")


def exit_status(result: Result) -> int:
    """Return the exit status for one run."""
    if result.text is not None or result.tool_calls:
        return 0
    if result.status == "waiting":
        return WAITING
    broken = any(step.decision.rule in _OUT_OF_ORDER for step in result.trace)
    return FAILED if broken and result.draft is None else ABSTAINED


def end(result: Result) -> None:
    """Say on standard error why there is no answer, and what to set; leave with the run's exit status.

    Raises:
        typer.Exit: unless the run has an answer.
    """
    for hint in hints([result]):
        print(f"not asked or failed: {hint['model']}: {hint['reason']}", file=sys.stderr)
    status = exit_status(result)
    if status:
        raise typer.Exit(status)
