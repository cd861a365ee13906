"""Free text, token by token, with the statistics of the model's own distribution."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.binding import api
from cascade.engine.context import Context
from cascade.engine.stats import RowStats
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.records import Token

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

# Below this, dividing logits by the temperature overflows; the result is greedy long before.
_GREEDY = 1e-3
_SEEDS = 2**32 - 1  # the largest 32-bit seed means "draw one" to llama.cpp


class Sampling(NamedTuple):
    """How tokens are chosen: at most `max_tokens`, at `temperature` (0: greedy), by `seed`."""

    max_tokens: int
    temperature: float
    seed: int


class Text(NamedTuple):
    """A generated text; `finish` is `stop` (the model ended it) or `length` (it was cut off)."""

    text: str
    tokens: tuple[Token, ...]
    finish: str


def prefill(context: Context, prompt: IntArray) -> Generator[None, None, FloatArray]:
    """Evaluate `prompt` in an empty context; yields between batches; returns the last token's logits row."""
    context.clear()
    for start in range(0, len(prompt), context.n_batch):
        if start:
            yield
        part = prompt[start : start + context.n_batch]
        context.feed(part, start, output=start + len(part) == len(prompt))
    row: FloatArray = context.rows()[0]
    return row


def generate(
    weights: Weights,
    context: Context,
    prompt: IntArray,
    sampling: Sampling,
    emit: Callable[[str], object] | None,
) -> Generator[None, None, Text]:
    """Continue `prompt`; yields between tokens; calls `emit` with pieces that are whole characters.

    Raises:
        ModelError: the model ends at once, or computes NaN.
    """
    row = yield from prefill(context, prompt)
    measure = RowStats(weights.n_vocab)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    tokens: list[Token] = []
    finish = "length"
    with _Sampler(context, sampling) as choose:
        for position in range(len(prompt), len(prompt) + sampling.max_tokens):
            chosen = choose(row)
            if weights.ends(chosen):
                finish = "stop"
                break
            stats = measure(row, chosen)
            piece = decoder.decode(weights.piece(chosen))
            tokens.append(
                Token(text=piece, logprob=stats.logprob, margin=stats.margin, entropy=stats.entropy)
            )
            if piece and emit:
                emit(piece)
            if len(tokens) == sampling.max_tokens:
                break
            yield
            context.feed(np.array([chosen], np.int32), position, output=True)
            row = context.rows()[0]
    return _finish(tokens, decoder.decode(b"", final=True), finish, emit)


def _finish(tokens: list[Token], rest: str, finish: str, emit: Callable[[str], object] | None) -> Text:
    """Close the text; `rest` stands for a character that was cut off in the middle."""
    if not tokens:
        raise ModelError(
            "it answered nothing: its first token ends the text; change 'prompt' or use another model"
        )
    if rest:
        tokens[-1] = tokens[-1].model_copy(update={"text": tokens[-1].text + rest})
        if emit:
            emit(rest)
    return Text("".join(token.text for token in tokens), tuple(tokens), finish)


class _Sampler:
    """Chooses a token from the last logits row: the best one, or by llama.cpp's temperature sampler."""

    def __init__(self, context: Context, sampling: Sampling) -> None:
        self._context, self._sampling = context, sampling
        self._chain = None

    def __enter__(self) -> Callable[[FloatArray], int]:
        if self._sampling.temperature <= _GREEDY:
            return lambda row: int(row.argmax())
        self._chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        api.llama_sampler_chain_add(self._chain, api.llama_sampler_init_temp(self._sampling.temperature))
        api.llama_sampler_chain_add(self._chain, api.llama_sampler_init_dist(self._sampling.seed % _SEEDS))
        return lambda _row: int(api.llama_sampler_sample(self._chain, self._context.handle, -1))

    def __exit__(self, *_exception: object) -> None:
        if self._chain:
            api.llama_sampler_free(self._chain)
