"""A GGUF model that llama.cpp runs in this process. llama.cpp is imported by the first call, not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.config.references import resolve_labels, resolve_model_path
from cascade.config.schema import LlamaCppModel, Price
from cascade.engine.worker import worker
from cascade.errors import ConfigError, ModelError, RequestError
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.prompts import most_tokens, render
from cascade.records import check_text

if TYPE_CHECKING:
    from cascade.engine.session import Answer, Session
    from cascade.engine.weights import Library

# What a chat template or an expert's contract may add to a prompt, in tokens; `engine.render` enforces it.
PROMPT_OVERHEAD = 4096


class LlamaCpp:
    """Asks a GGUF model for an expert's task, a label, or free text. Has the shape of `base.Model`.

    All local models of the process share one decode thread (`cascade.engine.worker`), and models of the
    same file share its weights.
    """

    def __init__(self, name: str, config: LlamaCppModel, base: Path) -> None:
        """Make the model; the file is loaded by the first call.

        Raises:
            ConfigError: the file or the label set does not exist or is broken, or `task` and `labels` are
                both given.
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
        self._labels = resolve_labels(config, base)
        self._path: Path | None = None
        self._session: Session | None = None  # made and used on the decode thread only

    def unavailable(self) -> str | None:
        """Return None: a local model needs no key."""
        return None

    def worst_case(self, text: str) -> tuple[int, int]:
        """Return upper bounds of (prompt tokens, generated tokens) of one call with `text`.

        A prompt never has more tokens than `n_ctx`: longer ones are refused.
        """
        user = most_tokens(render(self._config, text, self._labels))
        prompt = user + most_tokens(self._config.system or "") + PROMPT_OVERHEAD
        return min(self._config.n_ctx, prompt), 1 if self._labels else self._config.max_tokens

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
                if self._path is None:  # may download from the hub
                    self._path = await asyncio.to_thread(resolve_model_path, self._config.path, self._base)
                answer = await self._decode(self._path, prompt, on_text, started)
        except TimeoutError as error:
            where = "while answering" if started else "before its turn came"
            text = (
                f"timed out after {seconds:.3g} s {where}; raise 'timeout' or send fewer requests at a time"
            )
            raise self._error(text, self.worst_case(prompt.text) if started else (0, 0)) from error
        except (ModelError, ConfigError, RequestError) as error:
            raise self._error(str(error), getattr(error, "billed", (0, 0))) from error
        meta = answer.meta | {"queued": round(started[0], 6)}
        if on_text is not None and answer.labels is not None:
            on_text(answer.text)
        return Reply(answer.text, answer.tokens_in, answer.tokens_out, answer.labels, answer.tokens, meta)

    async def aclose(self) -> None:
        """Give the weights back; the last model of a file frees them. A later call loads them again."""
        if self._path is None:
            return

        def release(library: Library, _queued: float) -> Generator[None, None, None]:
            yield
            session, self._session = self._session, None
            if session is not None:
                library.release(session.weights)

        await asyncio.wrap_future(worker().submit(self._path, release))

    async def _decode(
        self, path: Path, prompt: Prompt, on_text: OnText | None, started: list[float]
    ) -> Answer:
        message = render(self._config, prompt.text, self._labels)
        # Nothing more is handed over after a cancel.
        emit = None if on_text is None else _on_loop(lambda piece: future.done() or on_text(piece))

        def steps(library: Library, queued: float) -> Generator[None, None, Answer]:
            from cascade.engine.session import Question

            started.append(queued)
            session = self._load(library, path)
            yield  # loading takes long: a chance to cancel
            question = Question(prompt.text, message, prompt.sample, emit)
            return (yield from session.answer(question))

        future = asyncio.wrap_future(worker().submit(path, steps))
        return await future

    def _load(self, library: Library, path: Path) -> Session:
        if self._session is None:
            from cascade.engine.session import Session

            weights = library.acquire(path)
            try:
                self._session = Session(weights, self._config, self._labels if self._config.labels else None)
            except BaseException:
                library.release(weights)
                raise
        return self._session

    def _error(self, text: str, billed: tuple[int, int]) -> ModelError:
        place = self._config.path if self._path is None else str(self._path)
        return ModelError(f"model {self.name!r} ({place}): {text}", billed)


def _on_loop(call: Callable[[str], object]) -> Callable[[str], object]:
    """Return a function for the decode thread that has `call` run on this event loop."""
    loop = asyncio.get_running_loop()
    return lambda piece: loop.call_soon_threadsafe(call, piece)
