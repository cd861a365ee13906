"""Which answers in free text mean the same: by their vectors, and never against a number or a negation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MOST_CHARACTERS: Final = 400  # of an answer that is compared by its vector: an encoder must read all of it
_WORD: Final = re.compile(r"[^\W_]+(?:['’.,:/-][^\W_]+)*%?", re.UNICODE)


def _words(text: str) -> list[str]:
    return text.split()


_NUMBERS: Final[dict[str, str]] = {
    word: str(value)
    for value, word in enumerate(
        _words(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
            "sixteen seventeen eighteen nineteen twenty"
        )
    )
}
_AMOUNTS: Final = frozenset(
    _words(
        "thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion dozen half "
        "quarter double triple once twice first second third fourth fifth sixth seventh eighth ninth tenth "
        "last both"
    )
)
_NEGATIONS: Final = frozenset(
    _words(
        "no not never none nothing nobody nowhere neither nor without cannot hardly barely unless except "
        "false nicht kein keine keinen nie ne pas jamais aucun nunca nada não non niet geen"
    )
)
_SHORT: Final = ("n't", "n’t")  # isn't, won't
_PREFIXES: Final = ("un", "in", "im", "il", "ir", "non", "dis", "mis", "a")
_OPPOSITES: Final = tuple(
    frozenset(pair.split("/"))
    for pair in _words(
        "yes/no true/false up/down left/right before/after more/less more/fewer higher/lower all/none "
        "increase/decrease increases/decreases increased/decreased always/never open/closed on/off "
        "with/without can/cannot allowed/forbidden legal/illegal north/south east/west minimum/maximum "
        "buy/sell"
    )
)


def differ_in_sign(one: str, other: str) -> bool:
    """Return whether two texts in normal form differ in a number, a negation or a pair of opposites.

    Vectors hardly tell such texts apart. The check is by words, for English and the commonest negations of
    some other languages; it rather says that texts differ than that they do not.
    """
    first, second = _WORD.findall(one.casefold()), _WORD.findall(other.casefold())
    if _numbers(one) != _numbers(other) or _negations(first) != _negations(second):
        return True
    left, right = set(first) - set(second), set(second) - set(first)
    if any(len(pair & left) == 1 and len(pair & right) == 1 for pair in _OPPOSITES):
        return True
    return any(
        f"{prefix}{word}" in here
        for here, there in ((left, right), (right, left))
        for word in there
        for prefix in _PREFIXES
    )


def merged(
    keys: Sequence[str | None], vectors: Mapping[str, npt.NDArray[np.float32]], similarity: float
) -> list[str | None]:
    """Return `keys`, each replaced by the first one that means the same.

    Args:
        keys: what the answers are compared by; None for a failed draft.
        vectors: unit vector of each key that may be compared by meaning; the others stay as they are.
        similarity: least cosine of two texts that mean the same.
    """
    firsts: list[str] = []
    found: dict[str, str] = {}
    for key in keys:
        if key is None or key in found:
            continue
        same = (
            first
            for first in firsts
            if key in vectors
            and float(vectors[first] @ vectors[key]) >= similarity
            and not differ_in_sign(first, key)
        )
        found[key] = next(same, key)
        if found[key] == key and key in vectors:
            firsts.append(key)
    return [None if key is None else found[key] for key in keys]


def _numbers(text: str) -> Counter[str]:
    """Return how often each number stands in a text, with its sign and unit, in digits or in words."""
    digits = (word for word in text.casefold().split() if any(map(str.isnumeric, word)))
    words = _WORD.findall(text.casefold())
    named = (_NUMBERS[word] for word in words if word in _NUMBERS)
    return Counter(digits) + Counter(named) + Counter(word for word in words if word in _AMOUNTS)


def _negations(words: Sequence[str]) -> int:
    return sum(word in _NEGATIONS or word.endswith(_SHORT) for word in words)
