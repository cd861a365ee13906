"""Reproducible randomness."""

from __future__ import annotations

import random


def generator(seed: int) -> random.Random:
    """Return a generator that gives the same numbers for the same seed."""
    return random.Random(seed)  # noqa: S311 - it draws sentences, not keys
