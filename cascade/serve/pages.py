"""Renders the pages: the templates, and how they write numbers and texts."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cascade.explain.formatting import (
    clean,
    format_between,
    format_duration,
    format_number,
    format_percent,
    format_time,
    format_usd,
)
from cascade.serve import charts

HERE = Path(__file__).parent
_TIERS = ("haiku", "sonnet", "opus")
_BIDI = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_MAX_SHOWN = 20_000  # characters of a text on a page; JSON has all of it


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["bar"] = charts.bar
    environment.filters |= {
        "usd": format_usd,
        "duration": format_duration,
        "number": format_number,
        "percent": format_percent,
        "between": format_between,
        "day": lambda started: format_time(started)[:10],
        "clock": lambda started: format_time(started)[11:19],
        "when": format_time,
        "line": clean,
        "excerpt": excerpt,
        "prose": prose,
        "tier": tier_class,
        "words": lambda name: name.replace("_", " "),
    }
    return environment


def excerpt(text: str) -> str:
    """Return a text that a user or model wrote, cut after 20,000 characters."""
    hidden = len(text) - _MAX_SHOWN
    return text if hidden <= 0 else f"{text[:_MAX_SHOWN]}\n… and {hidden:,} more characters (see JSON)"


def _visible(value: Any) -> Any:
    """Replace characters that would change how a page is displayed by dots."""
    if type(value) is not str or (value.isascii() and value.isprintable()):
        return value
    return "".join("·" if _is_control(char) else char for char in value)


def _is_control(char: str) -> bool:
    return char in _BIDI or (char not in "\n\t" and unicodedata.category(char) == "Cc")


def prose(text: str) -> Markup:
    """Return a sentence with its quotations, which stand between backticks, set as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # the last backtick opens nothing
        pieces[-2:] = ["`".join(pieces[-2:])]
    code = Markup("<code>{}</code>")
    return Markup().join(code.format(piece) if index % 2 else piece for index, piece in enumerate(pieces))


def tier_class(tier: str | None) -> str:
    """Return the class that gives a tier its colour: one for each well-known tier, one for the others."""
    return f"tier-{tier}" if tier in _TIERS else "tier-other"
