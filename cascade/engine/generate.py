"""Free text, token by token, with the statistics of the model's own distribution."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.context import Context
from cascade.engine.sampling import Sampler, Sampling
from cascade.engine.scheduler import Scheduler
from cascade.engine.sequence import Sequence, Watch
from cascade.engine.stats import Running, best_tokens
from cascade.engine.ticket import Ticket
from cascade.engine.weights import Weights
from cascade.engine.writer import Writer
from cascade.errors import ModelError
from cascade.records import Token

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
Steps = Generator[Ticket | None, None, Sequence]
StopEarly = Callable[[Running], bool]


class Wishes(NamedTuple):
    """What a caller wants while a text is written: pieces of whole characters, and a say in its end.

    `watch` gets the logits row after each prompt token but the last. `begin` is called when it is the
    text's turn. `top` is how many of the most probable tokens to keep of each row.
    """

    emit: Callable[[str], object] | None = None
    begin: Callable[[], object] = lambda: None
    stop_early: StopEarly | None = None
    watch: Watch | None = None
    top: int = 0


class Text(NamedTuple):
    """A generated text.

    `finish` is `stop` (by the model or a stop string), `length` (it was cut off) or `early_exit` (the
    caller's callback ended it). `sequence` says how it was decoded, `top` what else each token could have
    been, with log-probabilities. `seconds` is from the first token to the last.
    """

    text: str
    tokens: tuple[Token, ...]
    finish: str
    running: Running
    sequence: Sequence
    top: list[list[tuple[str, float]]]
    seconds: float

    def spared(self, most: int) -> dict[str, float]:
        """Return what an early exit spared of a text of up to `most` tokens, at most: tokens and seconds.

        The seconds are at the pace of the tokens that were written; one token has none.
        """
        tokens, steps = most - len(self.tokens), len(self.tokens) - 1
        seconds = {"spared_seconds_at_most": tokens * self.seconds / steps} if steps > 0 else {}
        return {"spared_tokens_at_most": tokens} | seconds


def prefill(context: Context, prompt: IntArray, held: int = 0) -> Generator[None, None, FloatArray]:
    """Have `prompt` alone in the context; yields between batches; returns the last token's logits row.

    Sequence 0 holds its first `held` tokens already, and no other sequence holds any; or `held` is 0.
    """
    if held:
        context.truncate(0, held)
    else:
        context.clear()
    for start in range(held, len(prompt), context.n_batch):
        if start > held:
            yield
        part = prompt[start : start + context.n_batch]
        context.feed(part, start, output=start + len(part) == len(prompt))
    row: FloatArray = context.rows()[0]
    return row


def decode(scheduler: Scheduler, sequence: Sequence) -> Steps:
    """Have `scheduler` decode `sequence` to its end; closing the generator drops it.

    Raises:
        CascadeError: what made the sequence fail.
    """
    scheduler.add(sequence)
    try:
        while not sequence.done:
            yield sequence
    finally:
        if not sequence.done:
            scheduler.drop(sequence)
    if sequence.error is not None:
        raise sequence.error
    return sequence


def generate(
    weights: Weights,
    scheduler: Scheduler,
    prompt: IntArray,
    sampling: Sampling,
    wishes: Wishes = Wishes(),  # noqa: B008 - a constant
) -> Generator[Ticket | None, None, Text]:
    """Continue `prompt` together with whatever else `scheduler` has.

    Raises:
        ModelError: the model ends at once, or computes NaN.
    """
    sampler = Sampler(weights, sampling)
    try:
        draft = _Draft(weights, scheduler, sampler, sampling, wishes)
        room = sampling.max_tokens - 1  # the last token needs no cell
        sequence = Sequence(scheduler, prompt, draft.take, watch=wishes.watch, begin=wishes.begin, room=room)
        yield from decode(scheduler, sequence)
    finally:
        sampler.close()
    text, tokens = draft.writer.close()
    seconds = draft.last - draft.first
    return Text(text, tokens, draft.finish, draft.running, sequence, draft.top, seconds)


class _Draft:
    """A text while it is written."""

    def __init__(
        self, weights: Weights, scheduler: Scheduler, sampler: Sampler, sampling: Sampling, wishes: Wishes
    ) -> None:
        self.finish = "length"
        self.running = Running()
        self.writer = Writer(sampling.stop, wishes.emit)
        self._weights, self._sampler = weights, sampler
        self._context, self._measure = scheduler.context, weights.measure
        self._room = sampling.max_tokens
        self._stop_early = wishes.stop_early
        self._most_probable = wishes.top
        self.top: list[list[tuple[str, float]]] = []
        self.first = self.last = 0.0  # when these tokens were chosen

    def take(self, row: FloatArray, index: int) -> int | None:
        """Choose the next token from a logits row; None ends the text."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        measure = self._measure
        measure.read(row)
        token = self._sampler.choose(self._context.handle, index, row, measure.best)
        if self._weights.ends(token):
            self.finish = "stop"
            return None
        stats = measure.of(token)
        self.running.add(stats)
        if self._most_probable:
            best = best_tokens(row, self._most_probable)
            self.top.append([(self._weights.piece(t).decode(errors="replace"), value) for t, value in best])
        self._room -= 1
        if self.writer.add(self._weights.piece(token), stats):
            self.finish = "stop"
            return None
        if self._room and self._enough():
            self.finish = "early_exit"
            return None
        return token if self._room else None

    def _enough(self) -> bool:
        if self._stop_early is None:
            return False
        try:
            return self._stop_early(self.running)
        except Exception as error:  # a caller's code; its failure is that call's
            raise ModelError(f"stop_early raised {type(error).__name__}: {error}") from error
