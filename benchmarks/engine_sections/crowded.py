"""Texts written while one core is taken by another process, against llama-batched-bench beside the same.

With all cores as threads, the threads of a decode wait for the one that shares its core. The engine notices
and uses fewer; llama-batched-bench cannot. The busy process is a child of this one: `others` leaves it out.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from engine_sections.asking import Settings, ask_all, close, fresh, log, model, seed, words
from engine_sections.figures import Round, Row, judge, skipped, verdict_row
from engine_sections.load import Watch
from engine_sections.throughput import PROMPT, baseline, generated

SECTION = "crowded"
FLIGHT = 8


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    what = f"whole answers, tokens/s of batched-bench, {FLIGHT} in flight, one core taken"
    if settings.tools is None or settings.threads < 2:
        return [skipped(SECTION, what, "all", "it needs llama-batched-bench and two threads")]
    return [await _model(settings, name, what) for name in settings.models if name != "tiny"]


async def _model(settings: Settings, name: str, what: str) -> Row:
    source, rng = words(name), seed(SECTION, name)
    tokens = generated(settings, name, FLIGHT)
    asked = model(settings.file(name), settings.threads, n_ctx=512, max_tokens=tokens)
    await ask_all(asked, fresh(source, rng, FLIGHT, PROMPT), tokens)  # it learns how fast the machine is
    rounds = []
    for turn in range(settings.rounds(3)):
        log(f"{SECTION} {name}, round {turn + 1}")
        watch = Watch()
        with _busy_core():
            seconds = await ask_all(asked, fresh(source, rng, FLIGHT, PROMPT), tokens)
            theirs = await baseline(settings, name, FLIGHT)
        rounds.append(Round(FLIGHT * (PROMPT + tokens) / seconds, theirs.all, watch.others()))
    await close(asked)
    found = judge(rounds)
    note = f"{found.ours:.1f} against {found.theirs:.1f} tok/s, prompts included"
    return verdict_row(SECTION, what, name, found, note=note)


@contextmanager
def _busy_core() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
