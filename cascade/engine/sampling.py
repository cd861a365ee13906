"""Choosing the next token: llama.cpp's own samplers, preceded by a grammar if there is one.

Statistics of a token (`engine.stats`) do not come from here: they describe the model's own distribution,
before temperature, top-p, min-p and grammar.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import api
from cascade.engine.grammar import CANDIDATE, Grammar, token_array
from cascade.engine.weights import Weights
from cascade.errors import ModelError

FloatArray = npt.NDArray[np.float32]

# Dividing logits by a lower temperature may overflow; sampling is greedy long before.
_MIN_TEMPERATURE = 1e-3
_MAX_SEED = 2**32 - 1  # excluded: it makes llama.cpp draw a seed itself
_FIRST_CANDIDATES = 64  # tried with the grammar before the whole vocabulary is


class Sampling(NamedTuple):
    """How the tokens of a text are chosen.

    Attributes:
        max_tokens: maximum length of the text.
        temperature: 0 is greedy; `top_p`, `min_p` and `seed` then have no effect.
        top_p, min_p: cuts of the distribution; 1 and 0 cut nothing.
        seed: of the random draws.
        grammar: GBNF that passes `check_grammar`.
        stop: strings that end the text and are not part of it.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    grammar: str | None = None
    stop: tuple[str, ...] = ()


class Sampler:
    """Chooses the tokens of one text, one after another. Used on the decode thread only.

    With a grammar, a token is first chosen without it and then checked. If the grammar refuses it, another
    is chosen among those that the grammar allows, as in llama.cpp's `common_sampler_sample`. For greedy
    decoding, and at top_p 1 and min_p 0, this yields exactly the grammar's distribution. Top-p and min-p
    cut once before the check and once after it.
    """

    def __init__(self, weights: Weights, sampling: Sampling) -> None:
        """Make the samplers.

        Raises:
            ModelError: llama.cpp refuses the grammar.
        """
        # The grammar comes first: if it fails, there is nothing else to free.
        self._grammar = None if sampling.grammar is None else Grammar(weights, sampling.grammar)
        self._chain = None if sampling.temperature <= _MIN_TEMPERATURE else _chain(sampling)
        self._candidates = np.zeros(weights.n_vocab if self._grammar else 0, CANDIDATE)

    def choose(self, handle: Any, index: int, row: FloatArray, best: int) -> int:
        """Return the next token and advance the samplers and the grammar by it.

        Args:
            handle: llama.cpp's context.
            index: the output of its last decode to sample from.
            row: the logits of that output, finite, shape (vocabulary,).
            best: the token with the largest logit, the first among equals.

        Raises:
            ModelError: the grammar allows no token here, or has become too ambiguous to follow.
        """
        if self._grammar is None:
            if self._chain is None:
                return best
            return int(api.llama_sampler_sample(self._chain, handle, index))
        token = best if self._chain is None else self._draw(row)
        if not self._grammar.allows(token):
            token = self._best_allowed(row) if self._chain is None else self._draw(row, self._grammar)
        self._grammar.accept(token)
        return token

    def close(self) -> None:
        """Free the samplers."""
        if self._chain:
            api.llama_sampler_free(self._chain)
            self._chain = None
        if self._grammar is not None:
            self._grammar.close()
            self._grammar = None

    def _draw(self, row: FloatArray, grammar: Grammar | None = None) -> int:
        """Sample with the chain from all tokens, or from those that `grammar` allows."""
        all_tokens = self._candidates
        all_tokens["id"] = np.arange(len(row))  # the chain may have sorted them
        all_tokens["logit"] = row
        if grammar is None:
            return self._select(all_tokens)
        grammar.mask(all_tokens)
        while True:
            allowed = all_tokens[np.isfinite(all_tokens["logit"])]
            if not len(allowed):
                raise _no_token_allowed()
            token = self._select(allowed.copy())
            if grammar.readable(token):
                return token
            all_tokens["logit"][token] = -np.inf

    def _select(self, candidates: npt.NDArray[np.void]) -> int:
        """Run the chain on `candidates`, which it may reorder, and return the chosen token."""
        array = token_array(candidates)
        api.llama_sampler_apply(self._chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            raise ModelError("llama.cpp's sampler chose nothing; report this")
        return int(array.data[array.selected].id)

    def _best_allowed(self, row: FloatArray) -> int:
        """Return the allowed token with the highest logit, the first among equals, as `argmax` does."""
        assert self._grammar is not None
        first = self._candidates[: min(_FIRST_CANDIDATES, len(row))]
        best = np.argpartition(-row, len(first) - 1)[: len(first)]
        # A token outside may equal the worst one inside and precede it; the full pass decides that.
        above = best[row[best] > row[best].min()]
        for tokens in (np.sort(above), np.arange(len(row))):
            candidates = self._candidates[: len(tokens)]
            candidates["id"], candidates["logit"] = tokens, row[tokens]
            if len(tokens):
                self._grammar.mask(candidates)
            while len(tokens) and np.isfinite(candidates["logit"]).any():
                index = int(candidates["logit"].argmax())
                if self._grammar.readable(int(tokens[index])):
                    return int(tokens[index])
                candidates["logit"][index] = -np.inf
        raise _no_token_allowed()


def _chain(sampling: Sampling) -> Any:
    """Return llama.cpp's chain min-p → top-p → temperature → draw, without steps that have no effect."""
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    if sampling.min_p > 0.0:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.top_p < 1.0:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_p(sampling.top_p, 1))
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(sampling.temperature))
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(sampling.seed % _MAX_SEED))
    return chain


def _no_token_allowed() -> ModelError:
    return ModelError(
        "the grammar allows no token of this model's vocabulary here; use a grammar of characters that it has"
    )
