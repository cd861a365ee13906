"""Which of a model's tokens spell its answer: confidence is measured on those alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from cascade.formats.thinking import split
from cascade.records import Token

_SPACE: Final = re.compile(r"\s+")
_NOT_WORDS: Final = re.compile(r"[\W_]+")
# Tokens that end a text without being part of it.
_ENDINGS: Final = re.compile(r"(?:\s|<[|｜][^<>]{1,40}[|｜]>|</?s>|<(?:eos|end_of_turn)>)*\Z")
_BYTES: Final = re.compile(r"(?:bytes:)?(?:\\x[0-9a-fA-F]{2})+")  # how OpenAI writes a part of a character
_ENDING_LENGTH = 200  # characters of them that are looked for
_AFTER = 3  # tokens after the answer that may be those of a stop string


def spelling(tokens: Sequence[Token], answer: str | None) -> tuple[Token, ...]:
    """Return the tokens that spell `answer`; none if they cannot be told from others.

    A server may report the tokens of a reasoning that it keeps back, in front of those of the answer. Servers
    differ in white space and in how they write bytes that are no whole character, so that these are ignored
    where nothing else differs.

    Args:
        tokens: all tokens that were reported, in order.
        answer: the text without its thinking; None for calls of tools, which tokens spell in their own way:
            only what is marked as thinking is left out then.
    """
    text = "".join(_BYTES.sub(_unreadable, token.text) for token in tokens)
    if text == answer:
        return tuple(tokens)
    own = split(text)
    if answer is None:
        return within(tokens, own.spans)
    if own.text != text and _SPACE.sub("", own.text) == _SPACE.sub("", answer):
        return within(tokens, own.spans)
    end = _ENDINGS.search(text, max(0, len(text) - _ENDING_LENGTH))
    body = text[: end.start()] if end else text
    for ignored in (_SPACE, _NOT_WORDS):
        span = _span(body, answer, ignored)
        if span is not None:
            kept = within(tokens, [span])
            if span[1] == len(body) or len(tokens) - len(kept) <= _AFTER:
                return kept
    return ()


def _unreadable(found: re.Match[str]) -> str:
    return "\ufffd" * len(found[0])


def within(tokens: Sequence[Token], spans: Iterable[tuple[int, int]]) -> tuple[Token, ...]:
    """Return the tokens that have characters within `spans` of the text they spell, with those characters.

    Tokens without a text stay where they stand within a span, or right after it.

    Args:
        tokens: tokens of the whole text.
        spans: (start, end) of pieces of it, in order and apart.
    """
    kept: list[Token] = []
    position, rest = 0, list(spans)
    for token in tokens:
        end = position + len(token.text)
        while rest and rest[0][1] < position:
            rest.pop(0)
        pieces = [token.text[max(0, a - position) : max(0, b - position)] for a, b in rest if a < end]
        inside = any(a < position <= b or a == position == 0 for a, b in rest[:1])
        if any(pieces):
            kept.append(token.model_copy(update={"text": "".join(pieces)}))
        elif not token.text and inside:
            kept.append(token)
        position = end
    return tuple(kept)


def _span(text: str, answer: str, ignored: re.Pattern[str]) -> tuple[int, int] | None:
    """Return where `text` ends, or else begins, with `answer`; characters that are `ignored` do not count."""
    wanted = ignored.sub("", answer)
    places = [index for index, character in enumerate(text) if not ignored.match(character)]
    found = "".join(text[index] for index in places)
    if not wanted:
        return None
    if found.endswith(wanted):
        return places[-len(wanted)], len(text)
    if found.startswith(wanted):
        return 0, places[len(wanted) - 1] + 1
    return None
