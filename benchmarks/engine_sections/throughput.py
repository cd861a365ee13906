"""Tokens per second with 1 to 16 requests in flight, against llama-batched-bench in the same run.

llama-batched-bench times two phases: all prompts, then all tokens. So does this: T(1) is the time of the
requests with one token each, which is the prompts' phase; T(1 + n) − T(1) is the time of n more tokens each.
Every prompt is new, so nothing can be reused.
"""

from __future__ import annotations

import asyncio
import json
import random
from typing import NamedTuple

from cascade.errors import ConfigError
from cascade.models.llamacpp.model import LlamaCpp
from engine_sections.asking import Settings, ask_all, close, fresh, log, model, seed, words
from engine_sections.figures import Round, Row, Target, at_least, judge, skipped, verdict_row
from engine_sections.load import Watch
from engine_sections.models import Words

SECTION = "throughput"
PROMPT = 64
PHASES = ("tg", "pp", "all")
_TRIES = 6  # its log is written by a thread that the program's end may cut off, so its figures can be lost
GAIN = at_least(1.8)  # at 8 in flight, over one alone


class Rates(NamedTuple):
    """Tokens per second: generating, reading prompts, and both end to end."""

    tg: float
    pp: float
    all: float


def target(name: str, flight: int) -> Target | None:
    """Return the share of llama-batched-bench's rate that is asked for."""
    if flight not in (1, 8):
        return None
    return at_least(0.85 if name == "tiny" else 0.90 if flight == 1 else 0.95)


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    rows = []
    for name in settings.models:
        rows += await _model(settings, name)
    return rows


async def _model(settings: Settings, name: str) -> list[Row]:
    flights = (1, 8) if settings.quick else (1, 4, 8, 16)
    source, rng = words(name), seed(SECTION, name)
    ours: dict[int, list[tuple[Rates, float]]] = {flight: [] for flight in flights}
    pairs: dict[int, list[tuple[Rates, Rates, float]]] = {flight: [] for flight in flights}
    for turn in range(settings.rounds(9)):
        for flight in flights:
            if turn >= 3 and target(name, flight) is None:
                continue
            log(f"{SECTION} {name} {flight} in flight, round {turn + 1}")
            watch = Watch()
            mine = await _ours(settings, name, flight, source, rng)
            theirs = await baseline(settings, name, flight) if settings.tools else None
            ours[flight].append((mine, watch.others()))
            if theirs is not None:
                pairs[flight].append((mine, theirs, ours[flight][-1][1]))
    rows = [row for flight in flights for row in _against(name, flight, pairs[flight], ours[flight])]
    return [*rows, _gain(name, ours)]


async def _ours(settings: Settings, name: str, flight: int, source: Words, rng: random.Random) -> Rates:
    tokens = generated(settings, name, flight)
    one, many = (
        model(settings.file(name), settings.threads, n_ctx=512, max_tokens=n) for n in (1, 1 + tokens)
    )
    await _warm(one, source, rng, flight)
    before = await ask_all(one, fresh(source, rng, flight, PROMPT), 1)
    whole = await ask_all(many, fresh(source, rng, flight, PROMPT), 1 + tokens)
    first = (before + await ask_all(one, fresh(source, rng, flight, PROMPT), 1)) / 2
    await close(one, many)
    return Rates(
        flight * tokens / max(whole - first, 1e-9),
        flight * PROMPT / first,
        flight * (PROMPT + tokens) / whole,
    )


async def _warm(asked: LlamaCpp, source: Words, rng: random.Random, flight: int) -> None:
    """Have the file loaded and the contexts made, and wake the threads."""
    await ask_all(asked, fresh(source, rng, flight, 16), 1)


def generated(settings: Settings, name: str, flight: int) -> int:
    """Return the tokens that each request generates: many beside the prompt's, for a difference of times."""
    tokens = 32 if settings.quick else {1: 128, 16: 32}.get(flight, 64)
    return 2 * tokens if name == "tiny" else tokens


async def baseline(settings: Settings, name: str, flight: int) -> Rates:
    """Return the rates of llama-batched-bench.

    Raises:
        ConfigError: it failed, or is not built.
    """
    if settings.tools is None:
        raise ConfigError("llama-batched-bench is not built")
    tokens = generated(settings, name, flight)
    shape = {"-c": flight * 512, "-npp": PROMPT, "-ntg": tokens, "-npl": flight, "-t": settings.threads}
    options = [str(part) for pair in (shape | {"-tb": settings.threads}).items() for part in pair]
    command = [str(settings.tools.batched_bench), "-m", str(settings.file(name)), *options]
    for _ in range(_TRIES):
        process = await asyncio.create_subprocess_exec(
            *command, "-fa", "on", "--output-format", "jsonl",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode:
            tail = err.decode(errors="replace")[-400:]
            raise ConfigError(f"llama-batched-bench ended with {process.returncode}: {tail}")
        if lines := [line for line in out.splitlines() if line.startswith(b"{")]:
            found = json.loads(lines[-1])
            return Rates(found["speed_tg"], found["speed_pp"], found["speed"])
    raise ConfigError(f"llama-batched-bench printed no figures in {_TRIES} runs: {' '.join(command)}")


def _against(
    name: str, flight: int, pairs: list[tuple[Rates, Rates, float]], ours: list[tuple[Rates, float]]
) -> list[Row]:
    wanted = target(name, flight)
    if not pairs:
        alone = judge([Round(rates.tg, 1.0, others) for rates, others in ours])
        why = f"llama-batched-bench is not built (own {alone.ratio:.1f} tok/s)"
        return [skipped(SECTION, f"tg, {flight} in flight", name, why, wanted)]
    rows = []
    for phase in PHASES:
        found = judge([Round(getattr(a, phase), getattr(b, phase), others) for a, b, others in pairs])
        note = f"{found.ours:.1f} against {found.theirs:.1f} tok/s"
        wants = wanted if phase == "tg" else None
        rows.append(
            verdict_row(SECTION, f"{phase} of batched-bench, {flight} in flight", name, found, wants, note)
        )
    return rows


def _gain(name: str, ours: dict[int, list[tuple[Rates, float]]]) -> Row:
    rounds = [Round(many.tg, one.tg, max(a, b)) for (one, a), (many, b) in zip(ours[1], ours[8], strict=True)]
    found = judge(rounds)
    note = f"{found.ours:.1f} against {found.theirs:.1f} tok/s"
    return verdict_row(SECTION, "tg, 8 in flight over 1", name, found, None if name == "tiny" else GAIN, note)
