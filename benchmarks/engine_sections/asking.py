"""The engine by the public way in (`LlamaCpp.ask`), many requests at once."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import ModelError
from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp
from engine_sections.figures import Row
from engine_sections.models import SPECS, Words, model_file
from engine_sections.tools import Tools


@dataclass(frozen=True)
class Settings:
    """How to measure: where files are kept, threads of a decode (both sides), which models, how long."""

    work: Path
    threads: int
    models: tuple[str, ...]
    quick: bool
    tools: Tools | None

    def file(self, name: str) -> Path:
        """Return the file of the model of that name; it is made if it is missing."""
        return model_file(self.work, SPECS[name])

    def rounds(self, full: int) -> int:
        """Return how often to repeat a comparison: `full` times, or twice for a quick look."""
        return 2 if self.quick else full


Section = Callable[[Settings], Coroutine[Any, Any, list[Row]]]


def words(name: str) -> Words:
    """Return the words of a benchmark model."""
    return Words(SPECS[name].vocab)


def model(path: Path | str, threads: int, **config: Any) -> LlamaCpp:
    """Return a model of `path`; `config` are keys of the graph language."""
    settings: dict[str, Any] = {"kind": "llamacpp", "path": str(path), "n_threads": threads, "timeout": 600.0}
    return LlamaCpp("benchmark", LlamaCppSettings(**settings | config), Path())


def fresh(source: Words, rng: random.Random, count: int, length: int) -> list[str]:
    """Return `count` prompts of `length` tokens that have never been asked before."""
    return [source.text(source.draw(rng, length)) for _ in range(count)]


async def ask_all(asked: LlamaCpp, texts: Sequence[str], tokens_out: int | None = None) -> float:
    """Ask all at once and return the seconds until the last answer.

    Raises:
        ModelError: an answer does not have `tokens_out` tokens, so its speed would mean something else.
    """
    started = time.perf_counter()
    replies = await asyncio.gather(*(asked.ask(Prompt(text)) for text in texts))
    seconds = time.perf_counter() - started
    for reply in replies:
        if tokens_out is not None and reply.tokens_out != tokens_out:
            raise ModelError(f"an answer has {reply.tokens_out} tokens; the benchmark needs {tokens_out}")
    return seconds


async def timed(asked: LlamaCpp, text: str) -> tuple[float, Reply]:
    """Return the seconds of one call, and its reply."""
    started = time.perf_counter()
    reply = await asked.ask(Prompt(text))
    return time.perf_counter() - started, reply


def seed(*parts: object) -> random.Random:
    """Return a random generator that depends on `parts` only."""
    return random.Random(repr(parts))


async def close(*models: LlamaCpp) -> None:
    """Give back the weights of all."""
    for one in models:
        await one.aclose()


def log(text: str) -> None:
    """Say on standard error what is measured now."""
    os.write(2, f"  {text}\n".encode())
