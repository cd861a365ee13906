"""Resident memory over 4,000 requests: texts, labels, and some that are cancelled half-way.

The memory of shared beginnings is filled up to its bound first: while it fills, growth is no leak.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from pathlib import Path

from cascade.engine.prefix import MAX_PREFIX_BYTES
from cascade.models.base import Prompt
from cascade.models.llamacpp.model import LlamaCpp
from engine_sections.asking import Settings, ask_all, close, fresh, log, model, seed, words
from engine_sections.figures import Row, at_most, slope
from engine_sections.labels import draw_labels
from engine_sections.load import Watch, rss
from engine_sections.models import SPECS, Words

SECTION = "memory"
REQUESTS = 4000  # after the first 2,500 of them nothing grows any more
FLIGHT = 8
FILLING = 120  # tokens of a prompt that fills, no more than those of the requests, which replace it
STEP = 80  # requests between two readings
LEAK = at_most(1.0)  # KiB a request


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    name = settings.models[0]
    source, rng = words(name), seed(SECTION)
    labels = [source.text(label).strip() for label in draw_labels(rng, len(source.words), 20)]
    texts = model(settings.file(name), settings.threads, n_ctx=512, max_tokens=8)
    chosen = model(settings.file(name), settings.threads, n_ctx=512, labels=labels)
    log(f"{SECTION} {name}: filling the memory of shared beginnings")
    await _fill(texts, source, rng, settings.file(name))
    requests = 400 if settings.quick else REQUESTS
    log(f"{SECTION} {name}: {requests} requests")
    watch = Watch()
    readings: list[tuple[int, float]] = []
    for done in range(0, requests, STEP):
        for start in range(0, STEP, FLIGHT):
            prompts = [source.text(source.draw(rng, rng.randint(8, 120))) for _ in range(FLIGHT)]
            asked = [chosen if (start + place) % 4 == 0 else texts for place in range(FLIGHT)]
            await asyncio.gather(
                *(
                    _ask(one, text, place == 0)
                    for place, (one, text) in enumerate(zip(asked, prompts, strict=True))
                )
            )
        readings.append((done + STEP, rss()))
    load = watch.others()
    await close(texts, chosen)
    settled = readings[len(readings) * 5 // 8 :]  # before that it makes contexts and fills pools
    growth = 1024 * slope([count for count, _ in settled], [size for _, size in settled])
    note = (
        f"{settled[0][1]:.1f} MiB after {settled[0][0]}, {settled[-1][1]:.1f} after {settled[-1][0]} requests"
    )
    return [
        Row(SECTION, "growth a request", name, growth, "KiB", LEAK, load, len(settled), note),
        Row(SECTION, "resident memory", name, readings[-1][1], "MiB", others=load),
    ]


async def _fill(texts: LlamaCpp, source: Words, rng: random.Random, file: Path) -> None:
    """Ask so many prompts that the beginnings that are kept reach their bound."""
    spec = SPECS[file.stem]
    token_bytes = 2 * 2 * spec.layers * spec.width * spec.kv_heads // spec.heads  # keys, values; 16 bits
    await ask_all(texts, fresh(source, rng, FLIGHT, FILLING))  # makes all slots
    for _ in range(math.ceil(1.2 * MAX_PREFIX_BYTES / (token_bytes * FILLING) / FLIGHT)):
        await ask_all(texts, fresh(source, rng, FLIGHT, FILLING))


async def _ask(asked: LlamaCpp, text: str, cancel: bool) -> None:
    """Ask; every eighth caller gives up while the answer is on its way."""
    call = asyncio.create_task(asked.ask(Prompt(text)))
    if cancel:
        await asyncio.sleep(0.002)
        call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
