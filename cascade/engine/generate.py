"""Free text, token by token, with the statistics of the model's own distribution, up to a stop string."""

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
from cascade.engine.ticket import Ticket
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.records import Token

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
StopEarly = Callable[[RunningStats], bool]


class GenerateOptions(NamedTuple):
    """How a caller follows a text while it is generated.

    Attributes:
        on_text: called with each piece of whole characters.
        on_start: called when the text's turn has come.
        stop_early: called after each token; ends the text by returning True.
        on_prompt_logits: called with each prompt position but the last, and the logits row after it.
        top_logprobs: how many of the most probable tokens to keep for each token.
    """

    on_text: Callable[[str], object] | None = None
    on_start: Callable[[], object] = lambda: None
    stop_early: StopEarly | None = None
    on_prompt_logits: OnPromptLogits | None = None
    top_logprobs: int = 0


class GeneratedText(NamedTuple):
    """A generated text.

    Attributes:
        text: the text, without the stop string that ended it.
        tokens: its tokens with their statistics.
        finish: `stop` (the model or a stop string ended it), `length` (it was cut off) or `early_exit` (the
            caller's callback ended it).
        stats: statistics of all tokens.
        sequence: how it was decoded.
        top_logprobs: for each token, the most probable tokens in its place with their log-probabilities.
        seconds: from the first token to the last.
    """

    text: str
    tokens: tuple[Token, ...]
    finish: str
    stats: RunningStats
    sequence: DecodeSequence
    top_logprobs: list[list[tuple[str, float]]]
    seconds: float

    def early_exit_savings(self, max_tokens: int) -> dict[str, float]:
        """Return upper bounds of the tokens and seconds that an early exit saved.

        The seconds assume the pace of the tokens so far; they are missing after a single token.

        Args:
            max_tokens: the number of tokens at which the text would have been cut off.
        """
        tokens, steps = max_tokens - len(self.tokens), len(self.tokens) - 1
        seconds = {"spared_seconds_at_most": tokens * self.seconds / steps} if steps > 0 else {}
        return {"spared_tokens_at_most": tokens} | seconds


def prefill(context: Context, prompt: IntArray, held: int = 0) -> Generator[None, None, FloatArray]:
    """Evaluate `prompt` in sequence 0, alone in the context; yields between batches.

    Args:
        context: a context that no other job uses.
        prompt: the tokens, shape (tokens,).
        held: how many of them sequence 0 holds already, with no other sequence in the context; or 0.

    Returns:
        The logits row after the last token, shape (vocabulary,).
    """
    if held:
        context.truncate(0, held)
    else:
        context.clear()
    for start in range(held, len(prompt), context.n_batch):
        if start > held:
            yield
        chunk = prompt[start : start + context.n_batch]
        context.feed(chunk, start, output=start + len(chunk) == len(prompt))
    row: FloatArray = context.rows()[0]
    return row


def decode(scheduler: Scheduler, sequence: DecodeSequence) -> Generator[Ticket | None, None, DecodeSequence]:
    """Let `scheduler` decode `sequence` to its end; closing the generator drops the sequence.

    Raises:
        CascadeError: the error that ended the sequence.
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
    options: GenerateOptions = GenerateOptions(),  # noqa: B008 - a constant
) -> Generator[Ticket | None, None, GeneratedText]:
    """Continue `prompt` in `scheduler`, together with its other sequences.

    Raises:
        ModelError: the model ends the text at once, or computes NaN.
    """
    sampler = Sampler(weights, sampling)
    try:
        generation = _Generation(weights, scheduler, sampler, sampling, options)
        sequence = DecodeSequence(
            scheduler,
            prompt,
            generation.choose,
            on_prompt_logits=options.on_prompt_logits,
            on_start=options.on_start,
            new_cells=sampling.max_tokens - 1,  # the last token needs no cell
        )
        yield from decode(scheduler, sequence)
    finally:
        sampler.close()
    text, tokens = generation.writer.close()
    seconds = generation.last_at - generation.first_at
    return GeneratedText(
        text, tokens, generation.finish, generation.stats, sequence, generation.top_logprobs, seconds
    )


class _Generation:
    """The state of a text while it is generated."""

    def __init__(
        self,
        weights: Weights,
        scheduler: Scheduler,
        sampler: Sampler,
        sampling: Sampling,
        options: GenerateOptions,
    ) -> None:
        self.finish = "length"
        self.stats = RunningStats()
        self.writer = TextWriter(sampling.stop, options.on_text)
        self._weights, self._sampler = weights, sampler
        self._context, self._row_stats = scheduler.context, weights.row_stats
        self._remaining = sampling.max_tokens
        self._stop_early = options.stop_early
        self._n_top = options.top_logprobs
        self.top_logprobs: list[list[tuple[str, float]]] = []
        self.first_at = self.last_at = 0.0  # when the first and the last token were chosen

    def choose(self, row: FloatArray, index: int) -> int | None:
        """Choose the next token from a logits row; None ends the text."""
        self.last_at = time.monotonic()
        self.first_at = self.first_at or self.last_at
        row_stats = self._row_stats
        row_stats.read(row)
        token = self._sampler.choose(self._context.handle, index, row, row_stats.best)
        if self._weights.is_end(token):
            self.finish = "stop"
            return None
        stats = row_stats.of(token)
        self.stats.add(stats)
        if self._n_top:
            best = best_tokens(row, self._n_top)
            self.top_logprobs.append(
                [(self._weights.piece(t).decode(errors="replace"), logprob) for t, logprob in best]
            )
        self._remaining -= 1
        if self.writer.add(self._weights.piece(token), stats):
            self.finish = "stop"
            return None
        if self._remaining and self._should_stop_early():
            self.finish = "early_exit"
            return None
        return token if self._remaining else None

    def _should_stop_early(self) -> bool:
        if self._stop_early is None:
            return False
        try:
            return self._stop_early(self.stats)
        except Exception as error:  # the caller's code: its failure is that of its call
            raise ModelError(f"stop_early raised {type(error).__name__}: {error}") from error


class StopStrings:
    """Finds stop strings in a text that arrives in pieces; holds back what may be the start of one.

    The text ends before the stop string that is complete first, and before the longest one if several are
    complete at once. This does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Return (text that may be shown now, whether a stop string is complete) after `piece`."""
        text = self._held + piece
        ends = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if ends:
            self._held = ""
            return text[: min(ends)[1]], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut], False

    def rest(self) -> str:
        """Return what is held back: the text is over, so no stop string follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    max_size = min(len(text), len(stop) - 1)
    return next((size for size in range(max_size, 0, -1) if text.endswith(stop[:size])), 0)


class TextWriter:
    """Assembles a text from tokens; `on_text` gets whole characters that are not part of a stop string."""

    def __init__(self, stops: Sequence[str], on_text: Callable[[str], object] | None) -> None:
        self._tokens: list[tuple[str, TokenStats]] = []
        self._on_text = on_text
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
        """Return the text and its tokens; an incomplete last character becomes a replacement character.

        Raises:
            ModelError: there is no text.
        """
        if self._tokens and not self._stopped:
            rest = self._decoder.decode(b"", final=True)
            last, stats = self._tokens[-1]
            self._tokens[-1] = last + rest, stats
            if self._stops is not None:
                # Only a stop string with a replacement character can become complete here.
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
            if self._on_text:
                self._on_text(text)

    def _records(self, length: int) -> tuple[Token, ...]:
        """Return the tokens, cut off where the text ends; those of a stop string remain, without text."""
        records = []
        for text, (logprob, margin, entropy) in self._tokens:
            kept = text[: max(0, length)]
            records.append(Token(text=kept, logprob=logprob, margin=margin, entropy=entropy))
            length -= len(text)
        return tuple(records)
