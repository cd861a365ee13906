"""A model that answers from a table: for tests and dry runs, with no numbers but those it is given."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cascade.errors import ConfigError, ModelError
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.prompts import last_message
from cascade.records import Token, ToolCall
from cascade.spec.schema import Price, ScriptedModel
from cascade.spec.scripted import ScriptedReply


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
        self.closed = config.labels is not None
        self._config = config

    def unavailable(self) -> str | None:
        """Return None: a script can always be played."""
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return the words of the conversation, and the most words of an answer."""
        return _words(prompt), self._config.max_tokens

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
        script = self._answer(prompt)
        words = re.findall(r"\s*\S+", script.text)
        calls = self._calls(script, prompt)
        kept, finish = self._written(words, prompt)
        finish = "tool_calls" if calls and finish == "stop" else finish
        reply = Reply(
            text="".join(kept),
            tokens_in=_words(prompt),
            tokens_out=max(len(kept), 1 if calls else 0),
            tool_calls=calls,
            labels=self._labels("".join(kept)),
            tokens=self._tokens(kept),
            meta={"finish_reason": finish},
        )
        if on_text is not None:
            for word in kept:
                on_text(word)
                await asyncio.sleep(0)
        return reply

    def _written(self, words: list[str], prompt: Prompt) -> tuple[list[str], str]:
        """Return the words that come to be written, and why no more do."""
        kept = words[: self._config.max_tokens]
        logprob = self._logprob()
        if prompt.stop_early is not None and logprob is not None:
            for count in range(1, len(kept)):
                if prompt.stop_early(_Same(count, logprob)):
                    return kept[:count], "early_exit"
        return kept, "stop" if len(kept) == len(words) else "length"

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    def _answer(self, prompt: Prompt) -> ScriptedReply:
        asked = prompt.text if self.closed else last_message(prompt)
        reply = self._config.replies.get(asked, self._config.default)
        if isinstance(reply, list):
            reply = reply[prompt.sample % len(reply)] if reply else None
        if reply is None:
            raise ModelError(
                f"model {self.name!r} has no reply for {asked[:60]!r}; add it to replies, or a default"
            )
        return ScriptedReply(text=reply) if isinstance(reply, str) else reply

    def _calls(self, script: ScriptedReply, prompt: Prompt) -> tuple[ToolCall, ...]:
        if not prompt.tools or prompt.tool_choice == "none":
            return ()
        names = [tool.name for tool in prompt.tools]
        chosen = prompt.tool_choice if prompt.tool_choice in names else names[0]
        turn = len(prompt.messages)  # ids differ over the turns of a conversation
        return tuple(
            ToolCall(
                id=f"call_{turn}_{prompt.sample}_{index}",
                name=call.name if call.name is not None else chosen,
                arguments=call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
            )
            for index, call in enumerate(script.calls)
        )

    def _tokens(self, words: list[str]) -> tuple[Token, ...]:
        logprob = self._logprob()
        return () if logprob is None else tuple(Token(text=word, logprob=logprob) for word in words)

    def _logprob(self) -> float | None:
        if self._config.confidence is None:
            return None
        # The smallest positive float stands for zero, whose logarithm is no JSON number.
        return math.log(max(self._config.confidence, sys.float_info.min))

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


def _words(prompt: Prompt) -> int:
    said = [message.content for message in prompt.messages] or [prompt.text]
    return sum(len(text.split()) for text in said)


@dataclass
class _Same:
    """The statistics of tokens that all have the same log-probability."""

    count: int
    logprob: float

    def mean(self, name: str = "logprob") -> float:
        return self.logprob if name == "logprob" else 0.0

    def quantile(self, share: float, name: str = "logprob") -> float:
        return self.mean(name)
