"""Randomness that repeats."""

from __future__ import annotations

import random


def generator(seed: int) -> random.Random:
    """Return a generator that gives the same numbers for the same seed."""
    return random.Random(seed)  # noqa: S311 - sentences are drawn here, not keys
