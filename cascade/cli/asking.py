"""A person labels texts at a terminal: a number, a piece of a label, nothing to skip, or `q` to stop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cascade.errors import RequestError
from cascade.explain.formatting import clean, clean_lines

if TYPE_CHECKING:
    from cascade.lab.learning.questions import Question

_MAX_TEXT = 2000  # characters shown
_MAX_LABEL = 60
_SHOWN = 9  # labels at once: one digit each
_HELP = (
    "a number takes that label, other letters look for one (=q looks for q itself), Enter skips the text, "
    "q stops; what was answered is kept"
)


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
