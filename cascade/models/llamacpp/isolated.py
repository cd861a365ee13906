"""A GGUF model in a worker process: whatever kills llama.cpp is one failed call here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cascade.config.references import resolve_model_path
from cascade.errors import ConfigError, ModelError, RequestError
from cascade.formats.gguf_parts import part_names
from cascade.models.base import OnText, Prompt, Reply
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.children import ChildError, Refused, WorkerModel
from cascade.models.llamacpp.model import LlamaCpp
from cascade.models.llamacpp.supervisor import WorkerKey, supervisor
from cascade.records import check_text
from cascade.spec.kinds import ModelFacts

GRACE = 0.05  # seconds for the process to report a time-out itself: it knows whether the answer had begun
_numbers = itertools.count()


class Isolated(LlamaCpp):
    """A `LlamaCpp` whose file is loaded in a process of its own, shared by all models of the file.

    A crash, a hang, or a kill by the system fails the calls that were in the process; the next call starts
    it again. This process never imports llama.cpp for it.
    """

    def __init__(
        self, name: str, config: LlamaCppSettings, base: Path, facts: ModelFacts | None = None
    ) -> None:
        """Make the model; the process starts with the first call.

        Raises:
            ConfigError: as for `LlamaCpp`.
        """
        super().__init__(name, config, base, facts)
        self._number = next(_numbers)

    async def ask(self, prompt: Prompt, on_text: OnText | None = None) -> Reply:
        """Answer `prompt` as `LlamaCpp.ask` does; `meta` has `isolated` and the `restarts` of the process.

        Functions among the prompt's fields, but for the rule of early exit, cannot leave this process; `meta`
        lists them as `ignored`.

        Raises:
            ModelError: the call failed, or the process; the message names the model, the cause and the fix.
        """
        seconds = self.timeout if prompt.timeout is None else min(self.timeout, prompt.timeout)
        deadline = time.monotonic() + seconds
        try:
            check_text(prompt.text)
            async with asyncio.timeout(seconds + GRACE):
                if self._path is None:  # may download from the hub
                    self._path = await asyncio.to_thread(resolve_model_path, self._config.path, self._base)
                return await self._remote(self._path, replace(prompt, timeout=seconds), on_text, deadline)
        except TimeoutError as error:
            text = f"timed out after {seconds:.3g} s in its process; raise 'timeout' or send fewer requests"
            raise self._error(text, self._worst(prompt)) from error
        except Refused as error:  # names the model and the file already
            raise ModelError(str(error), error.billed) from error
        except ChildError as error:
            raise self._error(str(error), self._worst(prompt) if error.sent else (0, 0)) from error
        except (ModelError, ConfigError, RequestError, ValueError) as error:
            raise self._error(str(error), getattr(error, "billed", (0, 0))) from error

    async def aclose(self) -> None:
        """Give the weights back; the last model of a file ends its process. A later call starts it again."""
        if self._path is not None:
            await supervisor().release(self._key(self._path), self._number)

    async def _remote(self, path: Path, prompt: Prompt, on_text: OnText | None, deadline: float) -> Reply:
        on_piece, stop = _pieces(on_text)
        try:
            reply, restarts = await supervisor().ask(
                self._key(path), self._settings(path), prompt, on_piece, deadline
            )
        finally:
            stop()
        return replace(reply, meta=reply.meta | {"isolated": True, "restarts": restarts})

    def _worst(self, prompt: Prompt) -> tuple[int, int]:
        return self.worst_case(prompt)

    def _settings(self, path: Path) -> WorkerModel:
        changes = {"path": str(path.absolute()), "isolate": "none", "memory_mb": None}
        config = self._config.model_copy(update=changes).model_dump(mode="json")
        facts = {"labels": self._labels, "grammar": self._grammar}
        return WorkerModel(self._number, self.name, config, str(self._base.absolute()), facts)

    def _key(self, path: Path) -> WorkerKey:
        # The parts of a model are found by their names, which a link's target need not have.
        return WorkerKey(path if len(part_names(path.name)) > 1 else path.resolve(), self._config.memory_mb)


def _pieces(on_text: OnText | None) -> tuple[Callable[[str], object] | None, Callable[[], None]]:
    """Return what passes pieces from another thread to `on_text` on this loop, and what stops that."""
    if on_text is None:
        return None, lambda: None
    loop = asyncio.get_running_loop()
    open_ = True

    def show(piece: str) -> None:
        if open_:
            on_text(piece)

    def on_piece(piece: str) -> None:
        if open_:
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody listens
                loop.call_soon_threadsafe(show, piece)

    def stop() -> None:
        nonlocal open_
        open_ = False

    return on_piece, stop
