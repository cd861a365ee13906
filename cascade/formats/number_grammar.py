"""GBNF for numbers between two bounds, digit by digit."""

from __future__ import annotations

LARGEST = 10**15 - 1  # every integer up to here is exact as a double
_FRACTION = '"." [0-9]{1,6}'  # with 9 digits before the point, all 15 digits of a double
_NONZERO = '"." "0"{0,5} [1-9]'
LARGEST_REAL = 10**9 - 1


def integers(low: int, high: int) -> str:
    """Return alternatives for the integers from `low` to `high`, both within ±`LARGEST`."""
    parts = []
    if low < 0:
        parts += ['"-" ' + digits for digits in _digits(max(1, -high), -low)]
    if high >= 0:
        parts += _digits(max(0, low), high)
    return " | ".join(parts)


def reals(low: int, high: int, *, above: bool = False, below: bool = False) -> str:
    """Return alternatives for decimal numbers from `low` to `high`, both within ±`LARGEST_REAL`.

    Args:
        low: the smallest number, excluded with `above`.
        high: the greatest number, excluded with `below`.
    """
    parts = []
    if low < 0:
        parts += ['"-" ' + part for part in _positive(max(0, -high), -low, below and high <= 0, above)]
    if high > 0:
        parts += _positive(max(0, low), high, above and low >= 0, below)
    elif low <= 0 <= high and not (above and low == 0) and not (below and high == 0):
        parts.append('"0"')
    return " | ".join(parts)


def _positive(low: int, high: int, above: bool, below: bool) -> list[str]:
    """Return the alternatives of `reals` for 0 ≤ low ≤ high, without a sign."""
    parts = []
    if low < high:
        if above:
            parts.append(f'"{low}" {_NONZERO}')
            parts += [f"{digits} ({_FRACTION})?" for digits in _digits(low + 1, high - 1)]
        else:
            parts += [f"{digits} ({_FRACTION})?" for digits in _digits(low, high - 1)]
    if not below and not (above and low == high):
        parts.append(f'"{high}" ("." "0"{{1,6}})?')
    return parts


def _digits(low: int, high: int) -> list[str]:
    """Return alternatives for the integers from `low` to `high`, 0 ≤ low, without leading zeros."""
    parts = []
    for length in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (length - 1) if length > 1 else 0)
        last = min(high, 10**length - 1)
        if first <= last:
            parts += _same_length(str(first), str(last))
    return parts


def _same_length(low: str, high: str) -> list[str]:
    size = len(low)
    if set(low) <= {"0"} and set(high) <= {"9"}:
        return [f"[0-9]{{{size}}}"] if size else [""]
    if low[0] == high[0]:
        return [f'"{low[0]}" {rest}'.rstrip() for rest in _same_length(low[1:], high[1:])]
    first, last = int(low[0]), int(high[0])
    parts = []
    if set(low[1:]) - {"0"}:
        parts += [f'"{first}" {rest}' for rest in _same_length(low[1:], "9" * (size - 1))]
        first += 1
    upper = []
    if set(high[1:]) - {"9"}:
        upper = [f'"{last}" {rest}' for rest in _same_length("0" * (size - 1), high[1:])]
        last -= 1
    if first <= last:
        more = f" [0-9]{{{size - 1}}}" if size > 1 else ""
        parts.append(f"[{first}-{last}]{more}")
    return parts + upper
