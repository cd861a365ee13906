"""Figures as people read them."""

from __future__ import annotations

import math


def percent(share: float) -> str:
    """Return a share as per cent, with the decimals that it needs: 0.5%, 97.3%, 100%."""
    return f"{round(100 * share, 1):g}%"


def money(usd: float) -> str:
    """Return US dollars with three significant digits and no exponent."""
    if usd == 0:
        return "$0"
    digits = max(0, 2 - math.floor(math.log10(abs(usd))))
    text = f"{usd:,.{digits}f}"
    return f"${text.rstrip('0').rstrip('.') if '.' in text else text}"


def per_thousand(usd: float, unit: str = " per 1,000") -> str:
    """Return the cost of 1,000 requests from the mean cost of one."""
    return money(1000 * usd if abs(usd) > 1e-15 else 0.0) + unit


def duration(seconds: float) -> str:
    """Return seconds, as milliseconds below one."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def plain(number: float) -> str:
    """Return a number with three decimals."""
    return f"{number:.3f}"
