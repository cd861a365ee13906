"""The bundled tiny: one message after another, and 1,000 at once, alone and through a cascade.

The messages are made up here; their lengths are those of short support questions.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from statistics import median

from cascade import Cascade
from cascade.config.references import bundled_path
from engine_sections.asking import Settings, ask_all, close, log, model, seed, timed
from engine_sections.figures import Round, Row, at_most, judge, percentiles, verdict_row
from engine_sections.load import Watch
from engine_sections.reference import reference

SECTION = "messages"
P50 = at_most(3.0)
BEYOND = at_most(0.5)  # of the prompt's own time
_ASKS = ("how do i", "please help me", "can you", "i want to", "why can't i", "is it possible to")
_ACTS = ("reset", "freeze", "find", "change", "cancel", "check", "renew", "report", "order", "move")
_THINGS = ("my card", "a flight", "my pin", "the meeting", "my account", "a transfer", "the alarm", "my bill")
_ENDS = ("today", "before friday", "on my phone", "for next week", "that i lost", "again", "from abroad")
_GRAPH = """\
name: messages
models:
  tiny: {kind: llamacpp, path: "bundled:tiny", task: clinc150, tier: haiku, timeout: 600}
stages:
  - name: first
    ask: [tiny]
    confidence: {by: labels}
    accept: 0.01
"""


def made_up(rng: random.Random, count: int) -> list[str]:
    """Return `count` messages of five to nine words."""
    return [" ".join(rng.choice(part) for part in (_ASKS, _ACTS, _THINGS, _ENDS)) for _ in range(count)]


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    count = 200 if settings.quick else 1000
    rng = seed(SECTION)
    rows = [await _one_by_one(made_up(rng, count)), await _at_once(made_up(rng, count))]
    rows.append(await _through_a_cascade(settings.work, made_up(rng, count)))
    return rows + await _beyond_the_prompt(settings, rng)


async def _one_by_one(texts: list[str]) -> Row:
    log(f"{SECTION} one by one")
    tiny = model("bundled:tiny", 1, task="clinc150")
    await timed(tiny, texts[0])
    watch = Watch()
    found = percentiles([1e3 * (await timed(tiny, text))[0] for text in texts])
    await close(tiny)
    note = f"p95 {found['p95']:.2f}, p99 {found['p99']:.2f} ms; {len(texts)} messages"
    return Row(SECTION, "p50 a message", "tiny", found["p50"], "ms", P50, watch.others(), note=note)


async def _beyond_the_prompt(settings: Settings, rng: random.Random) -> list[Row]:
    """Return what 151 labels cost over 3, and a whole call over a forward pass of as many tokens."""
    log(f"{SECTION} beyond the prompt")
    tiny, gate = (model("bundled:tiny", 1, task=task) for task in ("clinc150", "desk"))
    texts = made_up(rng, 20)
    labels, calls = [], []
    async with reference() as other:
        await other.do("open_bare", path=str(bundled_path("tiny")), threads=1, n_ctx=512)
        for turn in range(settings.rounds(7) + 1):
            watch = Watch()
            many, few, passes = [], [], []
            for text in texts:
                seconds, reply = await timed(tiny, text)
                many.append(seconds)
                few.append((await timed(gate, text))[0])
                tokens = rng.sample(range(500, 1000), reply.tokens_in)
                passes.append((await other.do("prompt", prompt=tokens))["seconds"])
            if turn:  # the first wakes both up
                prompt, load = median(passes), watch.others()
                labels.append(Round(max(0.0, median(many) - median(few)), prompt, load))
                calls.append(Round(median(many), prompt, load))
    await close(tiny, gate)
    part, whole = judge(labels), judge(calls)
    note = f"{1e3 * part.ours:.2f} of {1e3 * part.theirs:.2f} ms; labels of one token, none to prune"
    what = "best of 151 labels beyond 3, over the prompt's own time"
    rows = [verdict_row(SECTION, what, "tiny", part, BEYOND, note)]
    note = f"{1e3 * whole.ours:.2f} against {1e3 * whole.theirs:.2f} ms"
    return [*rows, verdict_row(SECTION, "whole call over one bare forward pass", "tiny", whole, note=note)]


async def _at_once(texts: list[str]) -> Row:
    log(f"{SECTION} at once")
    tiny = model("bundled:tiny", 1, task="clinc150")
    await timed(tiny, texts[0])
    watch = Watch()
    seconds = await ask_all(tiny, texts)
    await close(tiny)
    what = f"{len(texts)} at once, the model alone"
    return Row(SECTION, what, "tiny", len(texts) / seconds, "messages/s", others=watch.others())


async def _through_a_cascade(work: Path, texts: list[str]) -> Row:
    log(f"{SECTION} through a cascade")
    path = work / "messages.yaml"
    await asyncio.to_thread(path.write_text, _GRAPH, encoding="utf-8")
    async with Cascade.load(path, record=False) as cascade:
        await cascade.ainvoke(texts[0])
        watch = Watch()
        started = time.perf_counter()
        await cascade.abatch(texts, concurrency=len(texts))
        seconds = time.perf_counter() - started
    what = f"{len(texts)} at once, through a cascade"
    return Row(SECTION, what, "tiny", len(texts) / seconds, "messages/s", others=watch.others())
