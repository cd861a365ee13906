"""A model behind an OpenAI-compatible chat-completions endpoint."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

from cascade.errors import ModelError
from cascade.formats.spelling import spelling
from cascade.formats.thinking import Split, Splitter, split
from cascade.models.base import OnText, Prompt, Reply, mark_unsent
from cascade.models.openai import OpenAISettings
from cascade.models.openai.answer import Answer, UnusableError
from cascade.models.openai.endpoint import Endpoint, RefusedError
from cascade.models.openai.fields import LEARNED, REFUSALS, Fields
from cascade.models.openai.hosts import host_of
from cascade.models.openai.usage import Counted
from cascade.models.openai.wire import wire_message, wire_tools
from cascade.models.prompts import chosen_label, conversation, most_prompt_tokens, prompt_bytes, render
from cascade.records import ToolCall
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
        self._learned: Fields | None = None
        self._opened = config.thinking == "opened"  # or once an answer has shown it
        others = [OpenAI(name, _deployed(config, other), facts) for other in config.deployments]
        self.deployments: tuple[OpenAI, ...] = (self, *others)
        for other in others:
            other.deployments = self.deployments

    @property
    def _fields(self) -> Fields:
        """What is different in its requests: what the settings say, and what the server has refused."""
        return self._learned or Fields(frozenset(self._config.omit), _cap_field(self._endpoint.url))

    @property
    def _may_omit(self) -> frozenset[str]:
        """What is left out if the server refuses it; a temperature that somebody chose is not."""
        chosen = "temperature" in self._config.model_fields_set
        return LEARNED if chosen else LEARNED | {"temperature"}

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
        shown = Splitter(opened=self._opened)
        answer = await self._answered(prompt, live, shown, worst)
        reply = self._reply(answer, worst)
        rest = shown.push(answer.rest()) + shown.close(cut=reply.meta["finish_reason"] == "length")
        self._opened = self._opened or shown.unopened
        rest = reply.text if live is None else rest
        if on_text is not None and rest:
            on_text(rest)
        return reply

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        for each in self.deployments:
            await each._endpoint.aclose()

    async def _answered(
        self, prompt: Prompt, live: OnText | None, shown: Splitter, worst: tuple[int, int]
    ) -> Answer:
        """Exchange; what the server refuses, and can be left out, is left out from then on.

        Each field is left out once, so this ends. Nothing is owed for a refused request.
        """
        seconds = self.timeout if prompt.timeout is None else min(self.timeout, prompt.timeout)
        end, tried = time.monotonic() + seconds, [self._fields]
        while True:
            body = self._body(prompt, live, tried[-1])
            try:
                answer = await self._exchange(body, seconds, end, live, shown, worst)
            except RefusedError as refusal:
                names_a_field = refusal.status in REFUSALS
                changed = tried[-1].after(refusal.said, body, self._may_omit) if names_a_field else None
                if changed is None or changed in tried:
                    raise
                tried.append(changed)
            else:
                if len(tried) > 1:
                    self._learned = tried[-1]
                return answer

    async def _exchange(
        self,
        body: dict[str, Any],
        seconds: float,
        end: float,
        live: OnText | None,
        shown: Splitter,
        worst: tuple[int, int],
    ) -> Answer:
        """Send the request and put its answer together; nothing is owed for a request that was not sent.

        `seconds` is the time that the whole call has, until `end`: earlier tries may have used some of it.
        """
        answer, sent, left = Answer(), asyncio.Event(), end - time.monotonic()
        try:
            async with (
                asyncio.timeout(left) as clock,
                aclosing(self._endpoint.documents(body, left, sent)) as documents,
            ):
                async for document in documents:
                    new = shown.push(answer.add(document))
                    if live is not None and new:
                        live(new)
        except TimeoutError:
            if not clock.expired():  # `live` raised it
                raise
            message = f"{self._endpoint.who}: no complete answer within {seconds:.3g} s; raise its timeout"
            raise ModelError(message, worst if sent.is_set() else (0, 0), reason="timeout") from None
        except UnusableError as error:
            raise self._endpoint.failure(error, worst if answer.began else (0, 0)) from None
        except ModelError as failure:
            refused = failure.status is not None or not sent.is_set()
            failure.billed = (0, 0) if refused else worst
            raise
        except asyncio.CancelledError as cancelled:
            if not sent.is_set():
                mark_unsent(cancelled)
            raise
        return answer

    def _body(self, prompt: Prompt, live: OnText | None, fields: Fields) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "stream": live is not None,  # some servers stream unless they are told not to
            "messages": self._messages(prompt),
            "temperature": config.temperature,
            "seed": config.seed + prompt.sample,
            fields.cap: config.max_tokens,
        }
        if config.top_p < 1.0:
            body["top_p"] = config.top_p
        if config.stop:
            body["stop"] = config.stop
        if config.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if live is not None:
            body["stream_options"] = {"include_usage": True}
        body = {name: value for name, value in body.items() if name not in fields.left_out}
        return body | ({} if self.closed else wire_tools(prompt))

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        config = self._config
        if not self.closed:
            return [wire_message(message) for message in conversation(config, prompt)]
        system = [{"role": "system", "content": config.system}] if config.system is not None else []
        return [*system, {"role": "user", "content": render(config, prompt.text, self._labels)}]

    def _reply(self, answer: Answer, worst: tuple[int, int]) -> Reply:
        """Return the reply; an answer that cannot be used is still billed."""
        counted = answer.usage.counted(worst[0])
        billed = (counted.prompt, counted.generated) if counted else worst
        try:
            finish, own, calls = self._content(answer)
        except UnusableError as error:
            raise self._endpoint.failure(error, billed) from None
        who, labels, reported = self._endpoint.who, self._labels, answer.evidence()
        tokens = spelling(reported, None if calls else own.text)
        misaligned = {"logprobs": "misaligned"} if reported and not tokens else {}
        return Reply(
            text=chosen_label(who, own.text, labels, billed) if labels else own.text,
            tokens_in=counted.prompt if counted else 0,
            tokens_out=counted.generated if counted else 0,
            tokens=tokens,
            tool_calls=calls,
            meta=self._meta(answer, finish, own, counted) | misaligned,
            billed=None if counted else worst,
            tokens_cached=counted.cached if counted else 0,
        )

    def _content(self, answer: Answer) -> tuple[str, Split, tuple[ToolCall, ...]]:
        """Return how the answer ended, its text and thinking, and its tool calls.

        Raises:
            UnusableError: it is a refusal, not finished, or empty.
        """
        if refusal := answer.refusal():
            raise UnusableError(f"refused to answer: {refusal[:200]!r}", "refusal", healthy=True)
        finish = answer.finish()
        own = split(answer.text(), opened=self._opened, cut=finish == "length")
        own = own._replace(thinking="\n".join(filter(None, (answer.thinking(), own.thinking))) or None)
        calls = answer.tool_calls()
        if not own.text.strip() and not calls:
            what = "an empty answer" if own.thinking is None else "no answer after its thinking"
            why = f"gave {what} (finish_reason {answer.server_finish!r:.60}); raise max_tokens"
            raise UnusableError(why, "empty_answer", healthy=True)
        return finish, own, calls

    def _meta(self, answer: Answer, finish: str, own: Split, counted: Counted | None) -> dict[str, Any]:
        meta: dict[str, Any] = {"finish_reason": finish, "model": answer.model}
        if answer.server_finish != finish:
            meta["server_finish_reason"] = answer.server_finish
        if own.thinking is not None:
            meta["thinking"] = own.thinking
        if counted is None:
            meta["usage"] = "malformed" if answer.usage.malformed else "missing"
        elif counted.generated > self._config.max_tokens:
            meta["over_max_tokens"] = True  # the server ignores the cap, so the worst case does not hold
        if counted is not None and counted.cached:
            meta["cached_tokens"] = counted.cached
        if learned := self._fields.left_out - set(self._config.omit):
            meta["left_out"] = sorted(learned)  # the server refused them
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
    host = host_of(url)
    openai_hosts = (".openai.com", ".openai.azure.com")
    return "max_completion_tokens" if f".{host}".endswith(openai_hosts) else "max_tokens"
