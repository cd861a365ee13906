"""From a request to a prompt, and from a free-text answer back to a label."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from cascade.config.schema import Prompted
from cascade.errors import ModelError

_FORMS: Final = ("NFC", "NFD", "NFKC", "NFKD")
# What chat models put around a label: quotes, Markdown, a full stop, white space.
_WRAPPING = " \t\r\n\"'`*_#.“”‘’«»"


def render(config: Prompted, text: str, labels: Sequence[str] | None) -> str:
    """Return the user message: the template with {labels} (one a line) and {text} filled in.

    {text} is filled in last, so braces in the request stay as they are.
    """
    template = config.prompt if config.prompt is not None else "{text}"
    return template.replace("{labels}", "\n".join(labels or ())).replace("{text}", text)


def match_label(answer: str, labels: Sequence[str]) -> str | None:
    """Return the label that `answer` is, without regard to case, quotes and Markdown; None if it is none.

    An answer that could be several labels that way is none of them, unless it is exactly one of them.
    """
    if answer.strip() in labels:
        return answer.strip()
    bare = _bare(answer)
    found = [label for label in labels if _bare(label) == bare]
    return found[0] if len(found) == 1 else None


def chosen_label(who: str, answer: str, labels: Sequence[str], billed: tuple[int, int] = (0, 0)) -> str:
    """Return the label that `answer` is.

    Raises:
        ModelError: it is none of `labels`; `who` names the model, `billed` is what the answer used.
    """
    label = match_label(answer, labels)
    if label is None:
        shown = answer.strip()[:60]
        raise ModelError(
            f"{who} answered {shown!r}, which is not one of its {len(labels)} labels; "
            "say in its prompt to answer with one of {labels} only",
            billed,
        )
    return label


def most_tokens(text: str) -> int:
    """Return an upper bound of the tokens that `text` is cut into by any tokenizer in use.

    A byte-level BPE token covers at least one byte, and so does a SentencePiece token (unknown characters
    fall back to one token a byte), plus one for the space that it may put in front. Some tokenizers first
    bring the text into a Unicode normal form, which can be longer: the longest form counts.
    """
    if text.isascii():
        return 1 + len(text)
    forms = [text, *(unicodedata.normalize(form, text) for form in _FORMS)]
    return 1 + max(len(form.encode()) for form in forms)


def _bare(text: str) -> str:
    return text.strip(_WRAPPING).casefold()
