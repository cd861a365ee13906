"""A model behind an OpenAI-compatible chat-completions endpoint."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from cascade.errors import ModelError
from cascade.formats.spelling import spelling
from cascade.formats.thinking import Split, Splitter, split
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.openai import OpenAISettings
from cascade.models.openai.endpoint import Endpoint
from cascade.models.openai.wire import WireAnswer, wire_message, wire_tools
from cascade.models.prompts import chosen_label, conversation, most_prompt_tokens, prompt_bytes, render
from cascade.spec.kinds import ModelFacts
from cascade.spec.parts import Deployment, Price

# Role markers and the default system message that a server's chat template may add to a request: OpenAI
# documents 3 tokens a message, the templates of open models stay below 100.
CHAT_OVERHEAD = 256
TOP_LOGPROBS = 5


class OpenAI:
    """Asks a chat-completions endpoint. Has the shape of `base.Model`.

    A price that is not in the settings is looked up by the model's name; a local endpoint is free.

    Attributes:
        deployments: this endpoint and the equal ones that stand in for it, in the order of asking.
    """

    def __init__(self, name: str, config: OpenAISettings, facts: ModelFacts) -> None:
        self.name = name
        self.tier = config.tier
        self.local = config.local
        self.timeout = config.timeout
        self.price: Price | None = config.token_price()
        self._labels = facts.labels
        self.closed = self._labels is not None
        self._config = config
        self._endpoint = Endpoint(name, config)
        self._opened = config.thinking == "opened"  # or once an answer has shown it
        others = [OpenAI(name, _deployed(config, other), facts) for other in config.deployments]
        self.deployments: tuple[OpenAI, ...] = (self, *others)
        for other in others:
            other.deployments = self.deployments

    @property
    def place(self) -> str:
        """The endpoint's URL, without credentials."""
        return self._endpoint.place

    def unavailable(self) -> str | None:
        """Return which key or URL is missing or wrong, or None."""
        return self._endpoint.problem()

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return upper bounds of (prompt tokens, generated tokens) of one call with `prompt`.

        The prompt is bounded by its bytes (`prompts.most_tokens`), the answer by `max_tokens`, which the
        server enforces. What a server adds to a prompt beyond its chat template is not in the bound, and
        neither is an attempt that the client repeats because the connection broke while it was answered.
        """
        max_prompt = most_prompt_tokens(self._config, prompt, self._labels)
        return max_prompt + CHAT_OVERHEAD, self._config.max_tokens

    def prompt_bytes(self, prompt: Prompt) -> int:
        """Return about how many UTF-8 bytes it reads of `prompt`; an estimate, unlike `worst_case`."""
        return prompt_bytes(self._config, prompt, self._labels)

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Ask the endpoint; with `on_text` the answer is streamed (a label is handed over whole).

        Where the server reports no token counts, they stay zero, `meta["usage"]` is "missing", and the
        worst case is billed, so that limits hold.

        Raises:
            ModelError: no answer, or one that cannot be used; the message names model, URL, cause and fix.
        """
        if problem := self.unavailable():
            raise ModelError(problem)
        live = on_text if self._labels is None else None
        worst = self.worst_case(prompt)
        reply = self._reply(await self._exchange(prompt, live, worst), worst)
        if on_text is not None and live is None:
            on_text(reply.text)
        return reply

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        for each in self.deployments:
            await each._endpoint.aclose()

    async def _exchange(self, prompt: Prompt, live: OnText | None, worst: tuple[int, int]) -> WireAnswer:
        seconds = self.timeout if prompt.timeout is None else min(self.timeout, prompt.timeout)
        answer, shown = WireAnswer(), Splitter(opened=self._opened)
        try:
            async with (
                asyncio.timeout(seconds) as clock,
                aclosing(self._endpoint.pieces(self._body(prompt, live), seconds, worst)) as pieces,
            ):
                async for piece in pieces:
                    new = shown.push(answer.add(piece))
                    if live is not None and new:
                        live(new)
                rest = shown.close(cut=answer.finish_reason == "length")
                if live is not None and rest:
                    live(rest)
        except TimeoutError:
            if not clock.expired():  # `live` raised it
                raise
            message = f"{self._endpoint.who}: no complete answer within {seconds:g} s; raise its timeout"
            raise ModelError(message, worst) from None
        self._opened = self._opened or shown.unopened
        return answer

    def _body(self, prompt: Prompt, live: OnText | None) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": self._messages(prompt),
            "temperature": config.temperature,
            "seed": config.seed + prompt.sample,
            _cap_field(self._endpoint.url): config.max_tokens,
        }
        if config.top_p < 1.0:
            body["top_p"] = config.top_p
        if config.stop:
            body["stop"] = config.stop
        if config.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if live is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body | ({} if self.closed else wire_tools(prompt))

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        config = self._config
        if not self.closed:
            return [wire_message(message) for message in conversation(config, prompt)]
        system = [{"role": "system", "content": config.system}] if config.system is not None else []
        return [*system, {"role": "user", "content": render(config, prompt.text, self._labels)}]

    def _reply(self, answer: WireAnswer, worst: tuple[int, int]) -> Reply:
        """Return the reply; an answer that cannot be used is still billed."""
        who, billed = self._endpoint.who, answer.usage or worst
        if answer.refusal:
            raise ModelError(f"{who} refused to answer: {answer.refusal[:200]!r}", billed, healthy=True)
        if answer.finish_reason is None:
            raise ModelError(
                f"{who} broke its answer off (no finish_reason); look at the server's log", billed
            )
        if answer.finish_reason == "content_filter":
            text = f"{who} withheld its answer (content_filter); ask something else"
            raise ModelError(text, billed, healthy=True)
        own = split(answer.text, opened=self._opened, cut=answer.finish_reason == "length")
        calls = answer.tool_calls()
        if not own.text.strip() and not calls:
            what = "an empty answer" if own.thinking is None else "no answer after its thinking"
            raise ModelError(
                f"{who} gave {what} (finish_reason {answer.finish_reason!r:.60}); raise max_tokens",
                billed,
                healthy=True,
            )
        tokens_in, tokens_out = answer.usage or (0, 0)
        return Reply(
            text=chosen_label(who, own.text, self._labels, billed) if self._labels else own.text,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            tokens=spelling(answer.evidence(), None if calls else own.text),
            tool_calls=calls,
            meta=self._meta(answer, own),
            billed=None if answer.usage else worst,
        )

    def _meta(self, answer: WireAnswer, own: Split) -> dict[str, Any]:
        meta: dict[str, Any] = {"finish_reason": answer.finish_reason, "model": answer.model}
        if own.thinking is not None:
            meta["thinking"] = own.thinking
        if answer.usage is None:
            meta["usage"] = "missing"
        elif answer.usage[1] > self._config.max_tokens:
            meta["over_max_tokens"] = True  # the server ignores the cap, so the worst case does not hold
        if answer.evidence_broken:
            meta["logprobs"] = "malformed"
        return meta


def _deployed(config: OpenAISettings, other: Deployment) -> OpenAISettings:
    """Return the settings of the same model at another endpoint, whose price is the same."""
    endpoint = {"url": other.url, "url_env": other.url_env, "key_env": other.key_env}
    same: dict[str, Any] = {"model": other.model or config.model, "price": config.token_price()}
    return config.model_copy(update={**endpoint, **same, "deployments": []})


def _cap_field(url: str) -> str:
    """Return the name of the request field that caps generated tokens.

    OpenAI's current models refuse `max_tokens`; many compatible servers know no other name and silently
    ignore `max_completion_tokens` (llamafile, llama-cpp-python, llama.cpp before 2026), which would leave
    answers without a cap.
    """
    host = urlsplit(url).hostname or ""
    openai_hosts = (".openai.com", ".openai.azure.com")
    return "max_completion_tokens" if f".{host}".endswith(openai_hosts) else "max_tokens"
