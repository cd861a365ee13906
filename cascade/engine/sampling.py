"""Choosing the next token: llama.cpp's own samplers, with a grammar in front of them where one is given.

The statistics of a token (`engine.stats`) are never read from here: they are those of the model's own
distribution, before temperature, top-p, min-p and grammar.
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
# Below this, dividing logits by the temperature overflows; the result is greedy long before.
_GREEDY = 1e-3
_SEEDS = 2**32 - 1  # the largest 32-bit seed means "draw one" to llama.cpp
_FIRST = 64  # candidates that the grammar looks at before it goes through the whole vocabulary


class Sampling(NamedTuple):
    """How tokens are chosen.

    `temperature` 0 is greedy; then `top_p`, `min_p` and `seed` have no effect. `grammar` is GBNF that
    `config.gbnf.check_grammar` accepts. `stop` are strings that end the text and are not part of it.
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

    With a grammar, the token is first chosen without it and only checked; where the grammar refuses it, it
    is chosen again among what the grammar allows (`common_sampler_sample` of llama.cpp does the same). For
    greedy decoding, and at top_p 1 and min_p 0, that gives the grammar's own distribution exactly. With
    top-p or min-p the cut is made once before the check and once after.
    """

    def __init__(self, weights: Weights, sampling: Sampling) -> None:
        """Make the samplers.

        Raises:
            ModelError: llama.cpp does not take the grammar.
        """
        # The grammar first: it may fail, and then nothing else needs to be freed.
        self._grammar = None if sampling.grammar is None else Grammar(weights, sampling.grammar)
        self._chain = None if sampling.temperature <= _GREEDY else _chain(sampling)
        self._candidates = np.zeros(weights.n_vocab if self._grammar else 0, CANDIDATE)

    def choose(self, handle: Any, index: int, row: FloatArray, best: int) -> int:
        """Return the next token and take note of it.

        Args:
            handle: llama.cpp's context.
            index: which output of its last decode to sample from.
            row: that output's logits, finite, shape (vocabulary,).
            best: the first of its largest.

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
        """Sample by the chain, from all tokens or from those that `grammar` allows."""
        all_tokens = self._candidates
        all_tokens["id"] = np.arange(len(row))  # the chain may have sorted them
        all_tokens["logit"] = row
        if grammar is None:
            return self._select(all_tokens)
        grammar.mask(all_tokens)
        while True:
            left = all_tokens[np.isfinite(all_tokens["logit"])]
            if not len(left):
                raise _stuck()
            token = self._select(left.copy())
            if grammar.readable(token):
                return token
            all_tokens["logit"][token] = -np.inf

    def _select(self, candidates: npt.NDArray[np.void]) -> int:
        """Run the chain over `candidates`, which it may reorder, and return the chosen token."""
        array = token_array(candidates)
        api.llama_sampler_apply(self._chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            raise ModelError("llama.cpp's sampler chose nothing; report this")
        return int(array.data[array.selected].id)

    def _best_allowed(self, row: FloatArray) -> int:
        """Return the allowed token with the highest logit; the first of equals, as `argmax` does."""
        assert self._grammar is not None
        few = self._candidates[: min(_FIRST, len(row))]
        best = np.argpartition(-row, len(few) - 1)[: len(few)]
        # A token outside that equals the worst one inside could come first: leave that to the full pass.
        above = best[row[best] > row[best].min()]
        for tokens in (np.sort(above), np.arange(len(row))):
            candidates = self._candidates[: len(tokens)]
            candidates["id"], candidates["logit"] = tokens, row[tokens]
            if len(tokens):
                self._grammar.mask(candidates)
            while len(tokens) and np.isfinite(candidates["logit"]).any():
                place = int(candidates["logit"].argmax())
                if self._grammar.readable(int(tokens[place])):
                    return int(tokens[place])
                candidates["logit"][place] = -np.inf
        raise _stuck()


def _chain(sampling: Sampling) -> Any:
    """Return llama.cpp's chain min-p → top-p → temperature → draw, without the steps that change nothing."""
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    if sampling.min_p > 0.0:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.top_p < 1.0:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_p(sampling.top_p, 1))
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(sampling.temperature))
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(sampling.seed % _SEEDS))
    return chain


def _stuck() -> ModelError:
    return ModelError(
        "the grammar allows no token of this model's vocabulary here; use a grammar of characters that it has"
    )
