"""Text from outside → tokens, none of which is a control token or another token with a meaning of its own.

llama.cpp keeps control tokens out of a text if it is asked to, but always takes user-defined tokens
(`<tool_call>`, `<think>`), and a SentencePiece vocabulary can spell `</s>` out of pieces. Here such a text is
cut within each of these tokens, so that they stay characters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cascade.errors import ModelError

if TYPE_CHECKING:
    from cascade.engine.weights import Weights

IntArray = npt.NDArray[np.int32]


def tokenize_outside(
    weights: Weights, text: str, limit: int, *, begin: bool = False, goes_on: bool = False
) -> IntArray:
    """Return the tokens of a text from outside, shape (tokens,); no token in it has a meaning of its own.

    Args:
        weights: the model.
        text: any valid Unicode.
        limit: as for `Weights.tokenize`.
        begin: add the begin-of-text token if the model expects one.
        goes_on: the text follows another one, so a tokenizer that puts a space before texts puts none.

    Raises:
        ModelError: as for `Weights.tokenize`; or the vocabulary leaves no other way to write the text.
    """
    tokens = weights.tokenize(text, limit, begin=begin, goes_on=goes_on)
    ends = weights.tokenize("", limit, begin=True).tolist() if begin else []
    if [token for token in tokens.tolist() if weights.is_special(token)] == ends:
        return tokens
    first = [token for token in ends[:1] if token == weights.special_token("bos")[0]]
    body = _without_special(weights, text, limit, goes_on)
    return np.concatenate([np.array(first, np.int32), body, np.array(ends[len(first) :], np.int32)])


def _without_special(weights: Weights, text: str, limit: int, goes_on: bool) -> IntArray:
    tokens = weights.tokenize(text, limit, goes_on=goes_on)
    special: set[str] = set()
    while found := {weights.text_of(token) for token in tokens.tolist() if weights.is_special(token)}:
        if found <= special:
            raise ModelError(f"the text holds {min(found)!r}, which it cannot read as characters; remove it")
        special |= found
        first, *others = cut_within(text, special)
        cut = [weights.tokenize(piece, limit, goes_on=True) for piece in others]
        tokens = np.concatenate([weights.tokenize(first, limit, goes_on=goes_on), *cut])
    return tokens


def cut_within(text: str, special: set[str]) -> list[str]:
    """Return `text` in pieces, none of which holds one of the texts in `special`.

    Each occurrence is cut after its first character, those that overlap too.
    """
    longest_first = sorted(special, key=len, reverse=True)
    places = [
        match.start() + 1 for match in re.finditer(f"(?={'|'.join(map(re.escape, longest_first))})", text)
    ]
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
