"""Poisson arrivals of long and short prompts: the engine, llama-server, and a `Llama` behind a lock.

Each answers the same list of arrivals alone; the engine and the server take turns, because the machine's own
speed changes within minutes and a tenth of it moves the queue. The rate is 0.8 of what answering one request
after another can bear, measured first. Statistics are on in the engine only, where they are free; the others
would have to pay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from cascade.models.base import Prompt
from engine_sections.arrivals import LENGTHS, LONG, Arrival, Seen, arrivals, latencies, requests
from engine_sections.asking import Settings, close, log, model, seed, timed, words
from engine_sections.figures import Round, Row, Target, at_least, judge, skipped, verdict_row
from engine_sections.load import Watch
from engine_sections.models import Words
from engine_sections.reference import reference
from engine_sections.server import SLOTS, serving, stream

SECTION = "mixed"
N_CTX = 1024
LOAD = 0.8
AHEAD = at_least(1.5)  # of the lock
LEVEL = at_least(0.95)  # with the server; passes of a minute cannot tell less than 5 % apart
KINDS = {"first": "time to first token", "token": "time per token", "whole": "time of an answer"}
Pass = tuple[dict[str, dict[str, float]], float]  # latencies, and the cores that others used meanwhile
Answer = Callable[[Arrival], Awaitable[list[float]]]


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    rows = []
    for name in settings.models:
        # A minute of three sides: one model in the middle says it. Another is asked for by --models.
        if name == "smol135" or len(settings.models) == 1:
            rows += await _model(settings, name)
    return rows or [skipped(SECTION, "all", "smol135", "not among --models")]


async def _model(settings: Settings, name: str) -> list[Row]:
    source = words(name)
    watch = Watch()
    rate = LOAD / await _alone(settings, name, source)
    load = watch.others()
    seconds = 10.0 if settings.quick else 60.0
    listed = arrivals(seed(SECTION, name), len(source.words), rate, seconds)
    log(f"{SECTION} {name}: {len(listed)} arrivals, {rate:.2f} a second")
    note = f"{len(listed)} in {seconds:.0f} s, {LOAD:g} of what one at a time can bear"
    rows = [Row(SECTION, "arrivals", name, rate, "a second", others=load, note=note)]
    passes: dict[str, list[Pass]] = {side: [] for side in SIDES}
    for turn in range(settings.rounds(3)):
        for side, run in SIDES.items():
            if (side == "llama-server" and settings.tools is None) or (side == "lock" and turn):
                continue  # the lock is so far behind that one pass tells
            log(f"{SECTION} {name} {side}, round {turn + 1}")
            watch = Watch()
            seen = await run(settings, name, source, listed)
            passes[side].append((latencies(seen), watch.others()))
    rows += _against(name, passes["engine"], passes["lock"], "lock", AHEAD)
    if settings.tools is None:
        return [*rows, skipped(SECTION, "against llama-server", name, "llama-server is not built", LEVEL)]
    return [*rows, *_against(name, passes["engine"], passes["llama-server"], "llama-server", LEVEL)]


async def _alone(settings: Settings, name: str, source: Words) -> float:
    """Return the mean seconds of a request of the mix when nothing else runs."""
    asked = {n: model(settings.file(name), settings.threads, n_ctx=N_CTX, max_tokens=n) for n in LENGTHS}
    await timed(asked[LENGTHS[0]], source.text([0, 1, 2]))
    mix = requests(seed(SECTION, name, "alone"), len(source.words), 6 if settings.quick else 20)
    times = [(await timed(asked[tokens], source.text(prompt)))[0] for prompt, tokens in mix]
    await close(*asked.values())
    return sum(times) / len(times)


async def _engine(settings: Settings, name: str, source: Words, listed: list[Arrival]) -> list[Seen]:
    asked = {n: model(settings.file(name), settings.threads, n_ctx=N_CTX, max_tokens=n) for n in LENGTHS}
    for one in asked.values():
        await one.ask(Prompt(source.text([0, 1, 2])))

    async def answer(arrival: Arrival) -> list[float]:
        times: list[float] = []
        prompt = Prompt(source.text(arrival.prompt))
        await asked[arrival.tokens].ask(prompt, lambda _piece: times.append(time.perf_counter()))
        return times

    seen = await _replay(listed, answer)
    await close(*asked.values())
    return seen


async def _server(settings: Settings, name: str, source: Words, listed: list[Arrival]) -> list[Seen]:
    if settings.tools is None:
        return []
    async with serving(settings.tools.server, settings.file(name), settings.threads, N_CTX) as port:
        await stream(port, source.tokens([0, 1, 2]), 2)
        return await _replay(
            listed, lambda arrival: stream(port, source.tokens(arrival.prompt), arrival.tokens)
        )


async def _locked(settings: Settings, name: str, source: Words, listed: list[Arrival]) -> list[Seen]:
    async with reference() as other:
        await other.do(
            "open_locked",
            path=str(settings.file(name)),
            threads=settings.threads,
            n_ctx=max(N_CTX, LONG[1] + LENGTHS[-1]),
            warm=source.tokens([0, 1, 2]),
        )
        asked = [(one.at, source.tokens(one.prompt), one.tokens) for one in listed]
        answer = await other.do("mixed", arrivals=asked, workers=SLOTS)
        return [Seen(one.at, tokens) for one, tokens in zip(listed, answer["tokens"], strict=True)]


async def _replay(listed: list[Arrival], answer: Answer) -> list[Seen]:
    started = time.perf_counter()

    async def one(arrival: Arrival) -> Seen:
        await asyncio.sleep(max(0.0, started + arrival.at - time.perf_counter()))
        return Seen(arrival.at, [at - started for at in await answer(arrival)])

    return await asyncio.gather(*map(one, listed))


SIDES = {"engine": _engine, "llama-server": _server, "lock": _locked}


def _against(name: str, ours: list[Pass], theirs: list[Pass], side: str, wanted: Target) -> list[Row]:
    rows = []
    for kind, title in KINDS.items():
        for point in ("p50", "p95", "p99"):
            found = judge(
                [
                    Round(mine[kind][point], other[kind][point], max(load, their_load))
                    for (mine, load), (other, their_load) in zip(ours, theirs, strict=False)
                ],
                times=True,
            )
            # One at a time, a token of a lock costs least and its request waits longest.
            held = kind != "token" or side != "lock"
            what = f"{title} {point}, {side} over engine"
            note = f"{1e3 * found.ours:.1f} against {1e3 * found.theirs:.1f} ms"
            rows.append(verdict_row(SECTION, what, name, found, wanted if held else None, note))
    return rows
