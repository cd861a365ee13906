"""What the statistics of a token cost: the engine's own code on one row, and end to end.

End to end, it is the share of a row's statistics in the time of a token: with N requests in flight, a token's
time is 1 ÷ (tokens per second).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt

from cascade.engine.stats import RowStats
from engine_sections.asking import Settings, ask_all, close, fresh, log, model, seed, words
from engine_sections.figures import Round, Row, Target, at_most, judge, verdict_row
from engine_sections.load import Watch
from engine_sections.models import SPECS
from engine_sections.reference import reference

SECTION = "statistics"
VOCABULARIES = {4096: None, 49152: at_most(100.0), 151936: at_most(300.0)}
SHARE = at_most(4.0)  # percent of a token's time, for models of 135 M and up
PROMPT = 64
FloatArray = npt.NDArray[np.float32]


async def measure(settings: Settings) -> list[Row]:
    """Return the rows of this section."""
    rows: list[Row] = []
    async with reference() as other:
        for vocab, wanted in VOCABULARIES.items():
            log(f"{SECTION} vocabulary {vocab}")
            sort = await other.do("python_sort", vocab=vocab, repeats=2 if settings.quick else 8)
            rows += _rows(settings, vocab, wanted, sort["seconds"])
    for name in settings.models:
        for flight in (1, 8):
            rows.append(await _share(settings, name, flight))
    return rows


def engine_cost(vocab: int, repeats: int) -> float:
    """Return the seconds that the engine's own code takes for one row."""
    stats = RowStats(vocab)
    return _time(lambda row: stats(row, 0), vocab, repeats)


def naive(row: FloatArray) -> tuple[float, float, float]:
    """Return log-probability, margin and entropy the plain way: all in float64, with a sort."""
    shifted = row.astype(np.float64)
    shifted -= shifted.max()
    share = np.exp(shifted)
    share /= share.sum()
    second, best = np.sort(share)[-2:]
    return float(np.log(share[0])), float(np.log(best / second)), float(-(share * np.log(share)).sum())


def _time(work: Callable[[FloatArray], object], vocab: int, repeats: int) -> float:
    rows = np.random.default_rng(0).standard_normal((8, vocab)).astype(np.float32)
    times = []
    for turn in range(repeats + 8):
        started = time.perf_counter()
        work(rows[turn % 8])
        times.append(time.perf_counter() - started)
    return median(times[8:])


def _rows(settings: Settings, vocab: int, wanted: Target | None, sort: float) -> list[Row]:
    repeats = 100 if settings.quick else 1000
    rounds, plain = [], []
    for _ in range(settings.rounds(5)):
        watch = Watch()
        ours = engine_cost(vocab, repeats)
        theirs = _time(naive, vocab, repeats // 10)
        rounds.append(Round(1e6 * ours, 1e6 * theirs, watch.others()))
        plain.append(Round(1e6 * ours, 1e6 * sort, rounds[-1].others))
    found, listed = judge(rounds, times=True), judge(plain, times=True)
    where = f"V = {vocab:,}"
    return [
        Row(SECTION, "a token", where, found.ours, "µs", wanted, found.others, found.rounds),
        verdict_row(SECTION, "float64 and a sort over engine", where, found, note=f"{found.theirs:,.0f} µs"),
        verdict_row(
            SECTION,
            "llama-cpp-python's logprobs over engine",
            where,
            listed,
            note=f"{listed.theirs:,.0f} µs",
        ),
    ]


async def _share(settings: Settings, name: str, flight: int) -> Row:
    """Return the statistics' share of a token's time, in percent."""
    tokens = 16 if settings.quick else 48
    source, rng, vocab = words(name), seed(SECTION, name, flight), SPECS[name].vocab
    one, many = (
        model(settings.file(name), settings.threads, n_ctx=256, max_tokens=n) for n in (1, 1 + tokens)
    )
    await ask_all(one, fresh(source, rng, flight, 16), 1)
    rounds = []
    for turn in range(settings.rounds(3)):
        log(f"{SECTION} {name} {flight} in flight, round {turn + 1}")
        watch = Watch()
        first = await ask_all(one, fresh(source, rng, flight, PROMPT), 1)
        whole = await ask_all(many, fresh(source, rng, flight, PROMPT), 1 + tokens)
        token = max(whole - first, 1e-9) / (tokens * flight)
        cost = engine_cost(vocab, 100)
        rounds.append(Round(100 * cost, token, watch.others()))
    await close(one, many)
    found = judge(rounds)
    note = f"{1e4 * found.ours:.0f} µs of {1e6 * found.theirs:.0f} µs a token"
    wanted = None if name == "tiny" else SHARE
    what = f"share of a token's time, {flight} in flight"
    return Row(SECTION, what, name, found.ratio, "%", wanted, found.others, found.rounds, note)
