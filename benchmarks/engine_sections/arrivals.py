"""The list of arrivals that every side of the mixed load is asked, and what is read off its answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from engine_sections.figures import percentiles

LENGTHS = (16, 32, 64)  # tokens that an answer may have
SHORT = (16, 96)  # tokens of a short prompt, and of a long one
LONG = (400, 700)
LONG_SHARE = 0.2


class Arrival(NamedTuple):
    """A request: seconds after the start, its prompt by word, and how many tokens to generate."""

    at: float
    prompt: list[int]
    tokens: int


class Seen(NamedTuple):
    """What a client saw: seconds after the start at which each token of the answer came."""

    at: float
    tokens: list[float]


def requests(rng: random.Random, words: int, count: int) -> list[tuple[list[int], int]]:
    """Return `count` (prompt, tokens to generate) of the mix; a prompt is word indices below `words`."""
    mix = []
    for _ in range(count):
        length = rng.randint(*(LONG if rng.random() < LONG_SHARE else SHORT))
        mix.append(([rng.randrange(words) for _ in range(length)], rng.choice(LENGTHS)))
    return mix


def arrivals(rng: random.Random, words: int, rate: float, seconds: float) -> list[Arrival]:
    """Return Poisson arrivals at `rate` a second for `seconds`.

    Raises:
        ValueError: the rate is not positive.
    """
    if rate <= 0:
        raise ValueError(f"{rate} arrivals a second; expected more than 0")
    times = []
    at = rng.expovariate(rate)
    while at < seconds:
        times.append(at)
        at += rng.expovariate(rate)
    return [
        Arrival(when, prompt, tokens)
        for when, (prompt, tokens) in zip(times, requests(rng, words, len(times)), strict=True)
    ]


def latencies(seen: Sequence[Seen]) -> dict[str, dict[str, float]]:
    """Return p50, p95, p99 in seconds: to the first token, per token after it, and of whole answers."""
    return {
        "first": percentiles([one.tokens[0] - one.at for one in seen]),
        "token": percentiles([b - a for one in seen for a, b in pairwise(one.tokens)]),
        "whole": percentiles([one.tokens[-1] - one.at for one in seen]),
    }
