"""A GGUF model that llama.cpp runs in this process. llama.cpp is imported by the first call, not before."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Generator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from cascade._fork import abandon, forget_after_fork
from cascade.config.references import existing_file, resolve_model_path
from cascade.engine import decode_worker, default_threads
from cascade.engine.features import TemplateFeatures
from cascade.errors import ConfigError, ModelError, RequestError
from cascade.formats.spelling import within
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.bridge import LoopBridge
from cascade.models.llamacpp.live import LiveAnswer
from cascade.models.llamacpp.structured import (
    INSTRUCTION_BYTES,
    StructuredPrompt,
    read_calls,
    structured_prompt,
)
from cascade.models.llamacpp.templates import chat_template
from cascade.models.prompts import most_prompt_tokens, prompt_bytes, render, single_message
from cascade.records import Message, check_text
from cascade.spec.kinds import ModelFacts
from cascade.spec.parts import Price

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cascade.engine import EngineAnswer, ModelCache, Session, Ticket, Weights
    from cascade.engine.template import ChatTemplate
    from cascade.formats.thinking import Split

# What a chat template or an expert's contract may add to a prompt, in tokens; `engine.render` enforces it.
PROMPT_OVERHEAD = 16384
# Calls of one file that have their prompt ready; the others wait in the queue.
MAX_AT_WORK = 64
TOOL_FACTOR = 4
_WHOLE = ("label", "fields")  # finish reasons of answers that are not written token by token


class LlamaCpp:
    """Asks a GGUF model for an expert's task, a label, or free text. Has the shape of `base.Model`.

    All local models of the process share one decode thread (`cascade.engine.worker`), and models of the
    same file share its weights.
    """

    def __init__(
        self, name: str, config: LlamaCppSettings, base: Path, facts: ModelFacts | None = None
    ) -> None:
        """Make the model; the file is loaded by the first call.

        Args:
            name: its name in the graph.
            config: its settings.
            base: the graph's folder.
            facts: its labels and grammar; None resolves them here.

        Raises:
            ConfigError: a file or the label set does not exist or is broken, the grammar or the schema cannot
                be used, or `task` and `labels` are both given.
        """
        if config.task is not None and config.labels is not None:
            raise ConfigError(
                f"model {name!r} has both 'task' and 'labels'; the task brings its own labels, drop one"
            )
        self.name = name
        self.tier = config.tier
        self.local = True
        self.price: Price | None = config.price
        self.timeout = config.timeout
        self._config = config
        self._base = base
        facts = config.resolve(base) if facts is None else facts
        self._labels = facts.labels
        self.closed = self._labels is not None
        self._grammar = facts.grammar
        self._adapter = None if config.lora is None else existing_file(config.lora, base, "adapter")
        self._templates: dict[Path, ChatTemplate | None] = {}  # of the file, once it was read
        self._path: Path | None = None
        self._session: Session | None = None  # made and used on the decode thread only, as is:
        self._embedding: Weights | None = None
        forget_after_fork(self)

    def after_fork(self) -> None:
        """See `cascade._fork`."""
        if self._session is not None:
            abandon(self._session)  # its contexts are the parent's
        self._session = self._embedding = None

    def unavailable(self) -> str | None:
        """Return None: a local model needs no key."""
        return None

    def worst_case(self, prompt: Prompt) -> tuple[int, int]:
        """Return upper bounds of (prompt tokens, generated tokens) of one call with `prompt`.

        A prompt never has more tokens than `n_ctx`: longer ones are refused.
        """
        max_prompt = most_prompt_tokens(self._config, prompt, self._labels, TOOL_FACTOR)
        max_prompt += PROMPT_OVERHEAD + INSTRUCTION_BYTES
        return min(self._config.n_ctx, max_prompt), 1 if self._labels else self._config.max_tokens

    def prompt_bytes(self, prompt: Prompt) -> int:
        """Return about how many UTF-8 bytes it reads of `prompt`; an estimate, unlike `worst_case`."""
        return prompt_bytes(self._config, prompt, self._labels)

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Answer `prompt`; with `on_text`, free text is handed over as it comes and a label whole.

        `labels` of the reply is the exact distribution, best first. `tokens` carry the statistics of the
        model's own distribution. A call that is cancelled or timed out stops before its next token.

        Raises:
            ModelError: the call failed; the message names the model, the file, the cause and the fix.
        """
        seconds = self.timeout if prompt.timeout is None else min(self.timeout, prompt.timeout)
        started: list[float] = []
        try:
            check_text(prompt.text)
            async with asyncio.timeout(seconds):
                answer, own = await self._decode(await self._found(), prompt, on_text, started)
        except TimeoutError as error:
            where = "while answering" if started else "before its turn came"
            text = (
                f"timed out after {seconds:.3g} s {where}; raise 'timeout' or send fewer requests at a time"
            )
            raise self._error(text, self.worst_case(prompt) if started else (0, 0)) from error
        except (ModelError, ConfigError, RequestError) as error:
            raise self._error(str(error), getattr(error, "billed", (0, 0))) from error
        meta = answer.meta | {"queued": round(started[0], 6)}
        if meta["finish_reason"] in _WHOLE:
            if on_text is not None:
                on_text(answer.text)
            return Reply(answer.text, answer.tokens_in, answer.tokens_out, answer.labels, answer.tokens, meta)
        if own.thinking is not None:
            meta["thinking"] = own.thinking
        if self._config.output_schema is not None and meta["finish_reason"] == "length":
            meta["invalid"] = "it was cut off at max_tokens, before its JSON was whole"
        text, calls = read_calls(own.text, prompt)
        if not own.text.strip() and own.thinking is not None:
            why = f"it gave no answer after its thinking (finish_reason {meta['finish_reason']!r})"
            raise self._error(f"{why}; raise 'max_tokens'", (answer.tokens_in, answer.tokens_out))
        tokens = within(answer.tokens, own.spans)
        return Reply(text, answer.tokens_in, answer.tokens_out, None, tokens, meta, tool_calls=calls)

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the embeddings of `texts`: unit vectors, shape (texts, size of the model's embedding).

        Each text goes through the model's `prompt`, if it has one ("query: {text}").

        Raises:
            ModelError: a text is empty or too long, the file gives no embeddings, or the time is up.
        """

        def steps(
            library: ModelCache, _queued: float
        ) -> Generator[Ticket | None, None, npt.NDArray[np.float32]]:
            if self._embedding is not None and self._embedding.closed:  # unloaded to make room
                library.release(self._embedding)
                self._embedding = None
            if self._embedding is None:
                self._embedding = library.acquire(path)
            weights = self._embedding
            library.touch(weights)
            weights.active_requests += 1
            try:
                yield None  # loading takes long: a chance to cancel
                threads = self._config.n_threads or default_threads(weights.size)
                queue = weights.embedding_queue(min(self._config.n_ctx, weights.n_ctx_train), threads)
                rendered = [render(self._config, text, None) for text in texts]
                tokens = [weights.tokenize(text, queue.embedder.limit, begin=True) for text in rendered]
                return (yield from queue.embed(tokens))
            finally:
                weights.active_requests -= 1

        try:
            for text in texts:
                check_text(text)
            async with asyncio.timeout(self.timeout):
                path = await self._found()
                return await asyncio.wrap_future(decode_worker().submit(path, steps, max_active=MAX_AT_WORK))
        except TimeoutError as error:
            raise self._error(f"timed out after {self.timeout:.3g} s; raise 'timeout'", (0, 0)) from error
        except (ModelError, ConfigError, RequestError) as error:
            raise self._error(str(error), (0, 0)) from error

    async def _found(self) -> Path:
        """Return the file; the first call may download it from the hub."""
        if self._path is None:
            self._path = await asyncio.to_thread(resolve_model_path, self._config.path, self._base)
        return self._path

    async def aclose(self) -> None:
        """Give the weights back; the last model of a file frees them. A later call loads them again."""
        if self._path is None:
            return

        def release(library: ModelCache, _queued: float) -> Generator[None, None, None]:
            session, self._session = self._session, None
            while session is not None and session.active_requests:
                yield  # calls in flight end first
            if session is not None:
                library.release(session.weights)
            weights, self._embedding = self._embedding, None
            if weights is not None:
                library.release(weights)
            yield

        await asyncio.wrap_future(decode_worker().submit(self._path, release, max_active=MAX_AT_WORK))

    async def _decode(
        self, path: Path, prompt: Prompt, on_text: OnText | None, started: list[float]
    ) -> tuple[EngineAnswer, Split]:
        template = await self._template(path)
        structured = self._structured(template, prompt)
        single = self._single_message(template, prompt.text)
        system = single[0].content if len(single) > 1 else None
        # Nothing more is handed over after a cancel.
        bridge = LoopBridge()
        future: asyncio.Future[tuple[EngineAnswer, Split]]

        context = contextvars.copy_context()  # LangGraph's stream writer is found in it

        def show(piece: str) -> None:
            if on_text is not None and not future.done():
                context.run(on_text, piece)

        emit = None if on_text is None else bridge.to(show)
        bound = structured.grammar is not None or self._grammar is not None
        live = LiveAnswer(emit, prompt.stop_early, bound=bound)
        submitted = time.monotonic()

        def steps(
            library: ModelCache, _queued: float
        ) -> Generator[Ticket | None, None, tuple[EngineAnswer, Split]]:
            from cascade.engine import EngineRequest

            session = self._load(library, path, system)
            yield None  # loading takes long: a chance to cancel
            question = EngineRequest(
                prompt.text,
                single[-1].content,
                prompt.sample,
                live.add,
                structured.messages,
                structured.tools,
                structured.grammar,
                stop_early=None if prompt.stop_early is None else live.stops,
                on_start=lambda: started.append(time.monotonic() - submitted),
                on_prompt_end=live.begin,
            )
            answer = yield from session.answer(question)
            return answer, live.end(answer.text, cut=answer.meta["finish_reason"] == "length")

        future = bridge.future(decode_worker().submit(path, steps, max_active=MAX_AT_WORK))
        return await future

    def _structured(self, template: ChatTemplate | None, prompt: Prompt) -> StructuredPrompt:
        """Return messages, tools and grammar of a request that is more than a text; nothing for a text."""
        if self.closed or not (prompt.messages or prompt.tools or prompt.output_schema is not None):
            return StructuredPrompt()
        return structured_prompt(self._config, prompt, template)

    def _single_message(self, template: ChatTemplate | None, text: str) -> tuple[Message, ...]:
        features = TemplateFeatures() if template is None else template.features
        return single_message(self._config, text, self._labels, features)

    async def _template(self, path: Path) -> ChatTemplate | None:
        """Return the file's chat template; None where it has none, or its settings need none."""
        if path not in self._templates:
            needed = self._config.examples is None
            self._templates[path] = await asyncio.to_thread(chat_template, path) if needed else None
        return self._templates[path]

    def _load(self, library: ModelCache, path: Path, system: str | None) -> Session:
        if self._session is not None and self._session.weights.closed:  # unloaded to make room
            library.release(self._session.weights)
            self._session = None
        if self._session is None:
            from cascade.engine import Session, SessionOptions
            from cascade.engine.experts import read_learned_task

            weights = library.acquire(path)
            try:
                learned = None if self._config.examples else read_learned_task(path, self._config.task)
                options = {field.name: getattr(self._config, field.name) for field in fields(SessionOptions)}
                options["system"] = system  # the template may have no place for it
                labels = self._labels if self._config.labels else None
                folder = self._config.prefix_dir
                self._session = Session(
                    weights,
                    SessionOptions(**options),
                    labels,
                    self._grammar,
                    self._adapter,
                    None if folder is None else self._base / folder,
                    learned,
                )
            except BaseException:
                library.release(weights)
                raise
        library.touch(self._session.weights)
        return self._session

    def _error(self, text: str, billed: tuple[int, int]) -> ModelError:
        file = self._config.path if self._path is None else str(self._path)
        return ModelError(f"model {self.name!r} ({file}): {text}", billed)


def encoder(name: str, path: str, base: Path) -> LlamaCpp:
    """Return the embedding model at `path`, of which `embed` alone is used; the first call loads the file.

    Args:
        name: what errors call it.
        path: as the `path` of a model.
        base: the folder where relative paths start.
    """
    return LlamaCpp(name, LlamaCppSettings(kind="llamacpp", path=path), base, ModelFacts())
