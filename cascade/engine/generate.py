"""Free text, token by token, with the statistics of the model's own distribution."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.context import Context
from cascade.engine.sampling import Sampler, Sampling
from cascade.engine.scheduler import Scheduler
from cascade.engine.sequence import DecodeSequence, OnPromptLogits
from cascade.engine.stats import RunningStats, TokenStats, best_tokens
from cascade.engine.weights import Weights
from cascade.engine.worker import Ticket
from cascade.errors import ModelError
from cascade.records import Token

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
Steps = Generator[Ticket | None, None, DecodeSequence]
StopEarly = Callable[[RunningStats], bool]


class GenerateOptions(NamedTuple):
    """What a caller wants while a text is written: pieces of whole characters, and a say in its end.

    `watch` gets the logits row after each prompt token but the last. `begin` is called when it is the
    text's turn. `top` is how many of the most probable tokens to keep of each row.
    """

    emit: Callable[[str], object] | None = None
    begin: Callable[[], object] = lambda: None
    stop_early: StopEarly | None = None
    watch: OnPromptLogits | None = None
    top: int = 0


class GeneratedText(NamedTuple):
    """A generated text.

    `finish` is `stop` (by the model or a stop string), `length` (it was cut off) or `early_exit` (the
    caller's callback ended it). `sequence` says how it was decoded, `top` what else each token could have
    been, with log-probabilities. `seconds` is from the first token to the last.
    """

    text: str
    tokens: tuple[Token, ...]
    finish: str
    running: RunningStats
    sequence: DecodeSequence
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

    DecodeSequence 0 holds its first `held` tokens already, and no other sequence holds any; or `held` is 0.
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


def decode(scheduler: Scheduler, sequence: DecodeSequence) -> Steps:
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
    wishes: GenerateOptions = GenerateOptions(),  # noqa: B008 - a constant
) -> Generator[Ticket | None, None, GeneratedText]:
    """Continue `prompt` together with whatever else `scheduler` has.

    Raises:
        ModelError: the model ends at once, or computes NaN.
    """
    sampler = Sampler(weights, sampling)
    try:
        draft = _TextInProgress(weights, scheduler, sampler, sampling, wishes)
        room = sampling.max_tokens - 1  # the last token needs no cell
        sequence = DecodeSequence(
            scheduler, prompt, draft.take, watch=wishes.watch, begin=wishes.begin, room=room
        )
        yield from decode(scheduler, sequence)
    finally:
        sampler.close()
    text, tokens = draft.writer.close()
    seconds = draft.last - draft.first
    return GeneratedText(text, tokens, draft.finish, draft.running, sequence, draft.top, seconds)


class _TextInProgress:
    """A text while it is written."""

    def __init__(
        self,
        weights: Weights,
        scheduler: Scheduler,
        sampler: Sampler,
        sampling: Sampling,
        wishes: GenerateOptions,
    ) -> None:
        self.finish = "length"
        self.running = RunningStats()
        self.writer = TextWriter(sampling.stop, wishes.emit)
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


class StopStrings:
    """Watches a text that arrives in pieces; what could begin a stop string is held back.

    Where the text ends does not depend on how it is cut into pieces: it ends before the stop string that
    is complete first, the longest of those.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Return (text that may be shown now, whether a stop string is complete) after `piece`."""
        text = self._held + piece
        ends = [(place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut], False

    def rest(self) -> str:
        """Return what is held back: the text is over, so it begins no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class TextWriter:
    """A text that grows by tokens; `emit` gets what may be shown of it."""

    def __init__(self, stops: Sequence[str], emit: Callable[[str], object] | None) -> None:
        self._tokens: list[tuple[str, TokenStats]] = []
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopStrings(stops) if stops else None
        self._shown: list[str] = []
        self._stopped = False

    def add(self, piece: bytes, stats: TokenStats) -> bool:
        """Append a token; return whether it completes a stop string."""
        text = self._decoder.decode(piece)
        self._tokens.append((text, stats))
        if self._stops is None:
            self._show(text)
            return False
        shown, self._stopped = self._stops.push(text)
        self._show(shown)
        return self._stopped

    def close(self) -> tuple[str, tuple[Token, ...]]:
        """Return the text and its tokens. A character that was cut off becomes a replacement character.

        Raises:
            ModelError: there is no text.
        """
        if self._tokens and not self._stopped:
            rest = self._decoder.decode(b"", final=True)
            last, stats = self._tokens[-1]
            self._tokens[-1] = last + rest, stats
            if self._stops is not None:
                # A stop string can only complete here if it holds a replacement character.
                rest = self._stops.push(rest)[0] + self._stops.rest()
            self._show(rest)
        text = "".join(self._shown)
        if not text:
            raise ModelError(
                "it answered nothing: its first token ends the text, or a stop string begins it; change "
                "'prompt' or 'stop', or use another model"
            )
        return text, self._records(len(text))

    def _show(self, text: str) -> None:
        if text:
            self._shown.append(text)
            if self._emit:
                self._emit(text)

    def _records(self, length: int) -> tuple[Token, ...]:
        """The tokens, cut off where the text ends; what a stop string is made of stays as evidence."""
        found = []
        for text, (logprob, margin, entropy) in self._tokens:
            kept = text[: max(0, length)]
            found.append(Token(text=kept, logprob=logprob, margin=margin, entropy=entropy))
            length -= len(text)
        return tuple(found)
