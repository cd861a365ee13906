"""`cascade`: the command line. Commands import what they need when they run, so that help is instant."""

from __future__ import annotations

import gc
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cascade import __version__
from cascade.cli import (
    budget,
    calibrate,
    check,
    draw,
    evaluate,
    experts,
    grade,
    init,
    keys,
    learn,
    models,
    monitor,
    outcomes,
    plan,
    promote,
    replay,
    resume,
    run,
    schema,
    serve,
    trace,
    tune,
    ui,
)
from cascade.errors import CascadeError
from cascade.extras import TUNE_PACKAGES, missing_package

app = typer.Typer(
    name="cascade",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Small local experts first, larger models only when measured confidence is too low.",
)
app.command(name="init")(init.init)
app.command(name="run")(run.run)
app.command(name="resume")(resume.resume)
app.command(name="check")(check.check)
app.command(name="draw")(draw.draw)
app.command(name="schema")(schema.schema)
app.command(name="learn")(learn.learn)
app.command(name="calibrate")(calibrate.calibrate)
app.command(name="outcomes")(outcomes.outcomes)
app.command(name="evaluate")(evaluate.evaluate)
app.command(name="replay")(replay.replay)
app.command(name="monitor")(monitor.monitor)
app.command(name="promote")(promote.promote)
app.command(name="rollback")(promote.rollback)
app.command(name="grade")(grade.grade)
app.command(name="tune")(tune.tune)
app.command(name="plan")(plan.plan)
app.command(name="ui")(ui.ui)
app.command(name="serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(trace.app, name="trace")
app.add_typer(budget.app, name="budget")
app.add_typer(models.app, name="models")
app.add_typer(experts.app, name="experts")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"cascade {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Small local experts first, larger models only when measured confidence is too low."""


def main() -> None:
    """Run the command line. An error that cascade raises on purpose is a message and exit status 1."""
    # Importing LangGraph makes about a million objects that all stay. With Python's own threshold the
    # collector walks through them again and again: a fifth of the time of `cascade run`.
    gc.set_threshold(50_000, 20, 20)
    _ready_streams()
    status = _run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it, or it is full; not at the interpreter's exit again
            _drop(stream)
    gc.freeze()  # else the interpreter walks through them once more to end
    sys.exit(status)


def _run() -> int | str | None:
    """Run the command and return its exit status."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        return end.code
    except CascadeError as error:
        return _failed(str(error))
    except ModuleNotFoundError as error:
        if error.name not in TUNE_PACKAGES:
            raise
        return _failed(missing_package("this command", error, "tune"))
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of the output has gone (`cascade … | head`)
        return 1
    except OSError as error:
        location, reason = error.filename or "the output", error.strerror or error
        return _failed(
            f"{location}: {reason}; make room or write elsewhere; runs that ended are in the trace store"
        )
    return 0


def _failed(message: str) -> int:
    _say(f"error: {message}")
    return 1


def _say(message: str) -> None:
    with suppress(OSError):  # nobody reads it
        from cascade.explain.formatting import printable  # a message names what was given

        print(printable(message), file=sys.stderr)


def _ready_streams() -> None:
    """Open closed standard streams (`>&-`) on the null device, and escape what their encoding lacks."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the next file to be opened would get its descriptor
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - never closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop(stream: TextIO) -> None:
    """Discard what `stream` still holds, so that flushing it at the interpreter's exit cannot fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
