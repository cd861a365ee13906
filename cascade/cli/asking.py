"""`cascade learn --ask`: a person labels texts at a terminal, or in the inbox of a graph that has one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.errors import RequestError
from cascade.explain.formatting import clean, clean_lines

if TYPE_CHECKING:
    from cascade.lab.learning.ask import Picked
    from cascade.lab.reading.from_traces import TraceOptions
    from cascade.lab.reading.questions import Question

_MAX_TEXT = 2000  # characters shown
_MAX_LABEL = 60
_SHOWN = 9  # labels at once: one digit each
_HELP = (
    "a number takes that label, other letters look for one (=q looks for q itself), Enter skips the text, "
    "q stops; what was answered is kept"
)


def check_person(source: Path, traces: TraceOptions | None) -> None:
    """See, before anything is read, that somebody can answer: at the terminal, or in the graph's inbox.

    Raises:
        RequestError: nobody can.
    """
    from cascade.config.load import load_graph
    from cascade.lab.reading.inbox import has_inbox

    if traces is None or not has_inbox(load_graph(source)):
        check_terminal()


def ask_about(source: Path, picked: Picked, traces: TraceOptions | None) -> None:
    """Put the texts that were picked before a person, and say what comes next.

    Raises:
        RequestError: an answer, or the graph that asks, cannot be stored.
    """
    if picked.inbox and traces is not None:
        from cascade.lab.reading.inbox import put_into_inbox

        texts = [question.text for question in picked.questions]
        path, runs = put_into_inbox(
            source, texts, picked.labels, traces.trace_db, private=traces.allow_private
        )
        where = "" if traces.trace_db is None else f" --trace-db {shlex.quote(traces.trace_db)}"
        print(f"asked:   {len(runs)} texts; runs of {path} wait for a person")
        print(f"answer:  cascade trace list --status waiting{where}; cascade resume RUN LABEL{where}")
    else:
        count = ask_person(picked.questions, picked.labels, picked.keep)
        print(f"labelled: {count} of {len(picked.questions)} texts; kept in {picked.answers}")
    option = "" if traces is None else "--from-traces "
    print(f"then:    cascade learn {option}{shlex.quote(str(source))}")


def check_terminal() -> None:
    """Refuse to ask where nobody can answer.

    Raises:
        RequestError: standard input or error is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RequestError(
            "--ask needs a person at a terminal, and standard input is none; run it in a terminal, or give "
            "the graph a model of kind human and take --from-traces GRAPH: then its inbox asks"
        )


def ask_person(
    questions: Sequence[Question], labels: Sequence[str], keep: Callable[[str, str | None], None]
) -> int:
    """Put questions to a person, and return how many texts they labelled.

    Args:
        questions: the questions, in order.
        labels: all labels that there are.
        keep: called with each text and its label, None if it was skipped, before the next question.
    """
    count = 0
    _say(_HELP)
    for number, question in enumerate(questions, start=1):
        _say(f"\n{number}/{len(questions)}  {clean(question.reason, 300)}\n")
        _say(clean_lines(question.text[:_MAX_TEXT]) + ("…" if len(question.text) > _MAX_TEXT else ""))
        try:
            label = _choose(question.suggested, labels)
        except (EOFError, KeyboardInterrupt):
            _say("")
            break
        if label is _QUIT:
            break
        keep(question.text, label if isinstance(label, str) else None)
        count += label is not None
    return count


_QUIT = object()


def _choose(suggested: Sequence[str], labels: Sequence[str]) -> object:
    """Return the label that the person takes, None if they skip the text, `_QUIT` if they stop."""
    shown = list(suggested[:_SHOWN])
    while True:
        _list(shown)
        typed = input("label: ").strip()
        if not typed:
            return None
        if typed == "q":
            return _QUIT
        if typed.isascii() and typed.isdigit() and 1 <= int(typed) <= len(shown):
            return shown[int(typed) - 1]
        if typed == "?":
            _say(_HELP)
            continue
        found = find_labels(typed.removeprefix("="), labels)
        if len(found) == 1 and found[0].casefold() == typed.removeprefix("=").casefold():
            return found[0]
        if not found:
            _say(f"no label holds {clean(typed, _MAX_LABEL)!r}")
        shown = found[:_SHOWN] or shown
        if len(found) > _SHOWN:
            _say(f"{len(found)} labels hold that; type more of it")


def find_labels(piece: str, labels: Sequence[str]) -> list[str]:
    """Return the label that is `piece`, or else those that hold all its words, whatever the case.

    Those that begin with it come first.
    """
    wanted = piece.casefold()
    if exact := [label for label in labels if label.casefold() == wanted]:
        return exact[:1] if len(exact) == 1 or piece not in exact else [piece]
    words = wanted.replace("_", " ").split()
    found = [label for label in labels if all(word in label.casefold().replace("_", " ") for word in words)]
    return sorted(found, key=lambda label: (not label.casefold().startswith(wanted), label))


def _list(labels: Sequence[str]) -> None:
    _say("   ".join(f"{number} {clean(label, _MAX_LABEL)}" for number, label in enumerate(labels, start=1)))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
