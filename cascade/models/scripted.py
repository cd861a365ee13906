"""Models of kind `scripted`: they answer from a table, for tests and dry runs."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from cascade.errors import ConfigError, ModelError
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.prompted import checked_labels, label_accesses, resolve_labels
from cascade.models.prompts import call_id, last_message
from cascade.records import Token, ToolCall
from cascade.spec.kinds import Access, Evidence, ModelFacts, ModelSettings, Problem
from cascade.spec.parts import Config, Price, Probability


class ScriptedCall(Config):
    """A tool call of a scripted reply."""

    name: str | None = None
    """The tool's name; default: the one that `tool_choice` names, otherwise the first one offered."""
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    """The arguments, or the text that a broken model writes instead of their JSON."""


class ScriptedReply(Config):
    """An answer that calls tools where the request allows it."""

    text: str = ""
    """The answer's text; used alone if the request offers no tools."""
    calls: list[ScriptedCall] = Field(default_factory=list)
    """Tools to call, if the request offers any."""


class ScriptedSettings(ModelSettings):
    """A model that answers from a table: for tests and dry runs."""

    answers_best_label: ClassVar[bool] = False

    kind: Literal["scripted"]
    replies: dict[str, str | ScriptedReply | list[str | ScriptedReply]] = Field(default_factory=dict)
    """Last message (the user's, or a tool's result) → answer; a list gives one answer per sample."""
    default: str | ScriptedReply | None = None
    """Answer for every other text; without it the call fails."""
    confidence: Probability | None = None
    """Reported as the probability of every answered token; without it there are no signals."""
    labels: list[str] | None = None
    """Report the answer as a label with `confidence`, the rest spread over the others."""
    fail: str | None = None
    """Fail each call with this message."""
    delay: float = Field(0.0, ge=0.0)
    """Seconds to wait before answering."""
    price: Price = Price(input=0.0, output=0.0)
    """Price per million tokens; a token is a whitespace-separated word here."""
    max_tokens: int = Field(64, ge=1)
    """Maximum number of words in one answer; limits price this worst case."""
    local: bool = True
    """False to play a remote model."""

    def resolve(self, base: Path) -> ModelFacts:
        """Return the labels.

        Raises:
            ConfigError: one is of an unknown expert or task.
        """
        return ModelFacts(resolve_labels(self.labels, base))

    def inspect(self, base: Path) -> tuple[ModelFacts, list[Problem]]:
        """Check the labels."""
        problems: list[Problem] = []
        labels = checked_labels(lambda: resolve_labels(self.labels, base), self.labels, problems)
        return ModelFacts(labels, unknown=bool(problems)), problems

    def accesses(self) -> Iterator[Access]:
        """The files whose labels are taken."""
        yield from label_accesses(self.labels)

    def build(self, name: str, base: Path, facts: ModelFacts) -> Scripted:
        """Return the model.

        Raises:
            ConfigError: `confidence` is to be spread over fewer than two labels.
        """
        return Scripted(name, self)

    def token_price(self) -> Price | None:
        """Return `price`."""
        return self.price

    def answer_tokens(self, facts: ModelFacts) -> int:
        """Return `max_tokens`."""
        return self.max_tokens

    def lacks(self, evidence: Evidence, name: str, facts: ModelFacts) -> str | None:
        """Without `confidence` there is no number to report."""
        distribution = evidence in ("labels", "top_label")
        if distribution and facts.labels is None and not facts.unknown:
            return f"model {name!r} has no labels, so there is no distribution over them"
        if self.confidence is None:
            what = "distribution" if distribution else "token log-probabilities"
            return f"scripted model {name!r} has no 'confidence', so it reports no {what}"
        return None


class Scripted:
    """Plays a model by its script; a token is a whitespace-separated word. Has the shape of `base.Model`.

    Raises:
        ConfigError: `confidence` is to be spread over fewer than two labels.
    """

    def __init__(self, name: str, config: ScriptedSettings) -> None:
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
        """Return the words that are written, and the finish reason."""
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
                id=call_id(turn, prompt.sample, index),
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
        # The smallest positive float stands in for zero, whose logarithm is not a JSON number.
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
    texts = [message.content for message in prompt.messages] or [prompt.text]
    return sum(len(text.split()) for text in texts)


@dataclass
class _Same:
    """Statistics of tokens that all have the same log-probability."""

    count: int
    logprob: float

    def mean(self, name: str = "logprob") -> float:
        return self.logprob if name == "logprob" else 0.0

    def quantile(self, share: float, name: str = "logprob") -> float:
        return self.mean(name)
