"""When two answers are the same: the one rule by which answers are compared."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from cascade.formats.markdown import unfenced

_SIGNS: Final = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "«": '"', "»": '"', "„": '"', "‚": ",", "⁄": "/"}
    | dict.fromkeys("−‐‑‒–—", "-")
)
_BEFORE: Final = "\"'`*_¿¡"  # punctuation in front of a word, and behind one
_AFTER: Final = "\"'`*_,;:?…"
_BRACKETS: Final = (("(", ")"), ("[", "]"))
_NUMBER: Final = re.compile(
    r"(?<![\w.,])(?:(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<part>\d+))?|\.(?P<only>\d+))(?![.,]?\d)"
)
_LONGEST_WORD = 1000  # that punctuation is taken off
_ROUNDS = 8  # of normalising, at most, until nothing changes


def normalise(text: str) -> str:
    """Return `text` in the form in which answers are compared.

    Ignored are: Unicode's variants of the same character (NFKC), case, white space, a Markdown fence around
    the whole, quotes, emphasis and punctuation around words, and an English article in front of the first
    word. Numbers are compared by value: `1,000` is `1000` is `1000.0`, where a comma groups thousands and a
    full stop begins the fraction. Signs, units and leading zeros count, so different numbers stay different.
    A text of punctuation alone stays as it is.
    """
    for _ in range(_ROUNDS):
        before, text = text, _once(text)
        if text == before:
            break
    return text


def _once(text: str) -> str:
    text = unfenced(text)
    spread = text if text.isascii() else "".join(map(_spread, text))
    folded = unicodedata.normalize("NFKC", spread).translate(_SIGNS).casefold()
    folded = " ".join(unicodedata.normalize("NFKC", folded).split())
    words = [number for word in folded.split() if (number := _NUMBER.sub(_value, _bare(word)))]
    articles = 0
    while articles + 1 < len(words) and _is_article(words[articles], words[articles + 1]):
        articles += 1
    return " ".join(words[articles:]) or folded


def _is_article(word: str, following: str) -> bool:
    """Return whether `word` is an English article; the `a` in `A, B` or `a 5` is an answer."""
    return word == "the" or (word in ("a", "an") and len(following) > 1 and following[:2].isalpha())


def _spread(character: str) -> str:
    """Return a character so that its plain form cannot run into a number beside it: `x²`, `1½`, `5①`."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    kind, _, rest = unicodedata.decomposition(character).partition(" ")
    if not kind.startswith("<") or not any(chr(int(code, 16)).isdecimal() for code in rest.split()):
        return character
    mark = {"<super>": "^", "<sub>": "_"}.get(kind)
    return f" {character} " if mark is None else mark + character


def _bare(word: str) -> str:
    """Return a word without the punctuation around it."""
    before = ""
    while word != before and len(word) <= _LONGEST_WORD:
        before = word
        word = word.lstrip(_BEFORE).rstrip(_AFTER)
        if word.endswith(".") or (word.endswith("!") and not word.rstrip("!")[-1:].isdecimal()):
            word = word[:-1]
        for opening, closing in _BRACKETS:
            if word.startswith(opening) and closing not in word[:-1]:
                word = word[1:]
            if word.endswith(closing) and opening not in word:
                word = word[:-1]
    return word


def _value(number: re.Match[str]) -> str:
    whole, part = (
        (number["whole"] or "0").replace(",", ""),
        (number["part"] or number["only"] or "").rstrip("0"),
    )
    if len(whole) > 1 and whole.startswith("0"):  # a code, such as 007
        return number[0]
    return f"{whole}.{part}" if part else whole
