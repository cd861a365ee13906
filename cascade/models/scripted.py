"""A model that answers from a table: for tests and dry runs, with no numbers but those it is given."""

from __future__ import annotations

import asyncio
import math
import re
import sys
from pathlib import Path

from cascade.config.schema import Price, ScriptedModel
from cascade.errors import ConfigError, ModelError
from cascade.models.base import OnText, Prompt, Reply
from cascade.records import Token


class Scripted:
    """Plays a model by its script; a token is a whitespace-separated word. Has the shape of `base.Model`.

    Raises:
        ConfigError: `confidence` is to be spread over fewer than two labels.
    """

    def __init__(self, name: str, config: ScriptedModel, base: Path) -> None:
        if config.labels is not None and config.confidence is not None and len(set(config.labels)) < 2:
            raise ConfigError(
                f"models.{name}.labels: {config.labels!r} is too short; give at least two labels"
            )
        self.name = name
        self.tier = config.tier
        self.local = config.local
        self.price: Price | None = config.price
        self.timeout = config.timeout
        self._config = config

    def unavailable(self) -> str | None:
        """Return None: a script can always be played."""
        return None

    def worst_case(self, text: str) -> tuple[int, int]:
        """Return the words of `text`, and the most words of an answer."""
        return len(text.split()), self._config.max_tokens

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Wait `delay` seconds, then fail or answer as the script says, streaming word by word.

        Raises:
            ModelError: the script says so, has no answer for this text, or takes longer than the time-out.
        """
        limit = self.timeout if prompt.timeout is None else min(self.timeout, prompt.timeout)
        await asyncio.sleep(min(self._config.delay, limit))
        if self._config.delay > limit:
            raise ModelError(f"model {self.name!r}: no answer within {limit:g} s; raise its timeout")
        if self._config.fail is not None:
            raise ModelError(f"model {self.name!r}: {self._config.fail}")
        words = re.findall(r"\s*\S+", self._answer(prompt))
        kept = words[: self._config.max_tokens]
        reply = Reply(
            text="".join(kept),
            tokens_in=len(prompt.text.split()),
            tokens_out=len(kept),
            labels=self._labels("".join(kept)),
            tokens=self._tokens(kept),
            meta={"finish_reason": "stop" if len(kept) == len(words) else "length"},
        )
        if on_text is not None:
            for word in kept:
                on_text(word)
                await asyncio.sleep(0)
        return reply

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    def _answer(self, prompt: Prompt) -> str:
        replies = self._config.replies.get(prompt.text, self._config.default)
        if isinstance(replies, list) and replies:
            return replies[prompt.sample % len(replies)]
        if not isinstance(replies, str):
            raise ModelError(
                f"model {self.name!r} has no reply for {prompt.text[:60]!r}; add it to replies, or a default"
            )
        return replies

    def _tokens(self, words: list[str]) -> tuple[Token, ...]:
        if self._config.confidence is None:
            return ()
        # The smallest positive float stands for zero, whose logarithm is no JSON number.
        logprob = math.log(max(self._config.confidence, sys.float_info.min))
        return tuple(Token(text=word, logprob=logprob) for word in words)

    def _labels(self, answer: str) -> dict[str, float] | None:
        labels, confidence = self._config.labels, self._config.confidence
        if labels is None:
            return None
        if answer not in labels:
            raise ModelError(
                f"model {self.name!r} has the reply {answer!r:.60}, which is not one of its labels"
            )
        if confidence is None:
            return None
        others = [label for label in dict.fromkeys(labels) if label != answer]
        spread = {answer: confidence} | dict.fromkeys(others, (1.0 - confidence) / len(others))
        return dict(sorted(spread.items(), key=lambda item: -item[1]))
