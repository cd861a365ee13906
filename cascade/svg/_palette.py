"""The colours of all pages and pictures, by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

Palette = Mapping[str, str]

SERIES = 6  # colours of a plot's series, `series-0` to `series-5`; each has a marker of its own, too

LIGHT: Palette = {
    "page": "#f7f8fa", "panel": "#fff", "sunk": "#f0f2f5", "line": "#e2e6eb", "edge": "#8793a3",
    "ink": "#171c24", "soft": "#4c5765", "faint": "#606b79",
    "link": "#1f4fbf", "good": "#177245", "good-bg": "#e2f4e9", "warn": "#8a5a00", "warn-bg": "#fdf1d6",
    "bad": "#b02a1f", "bad-bg": "#fce8e5", "accent": "#1f4fbf", "accent-bg": "#e7edfb",
    "haiku": "#23967f", "sonnet": "#3f6fd8", "opus": "#8a4fc4", "other": "#7c8896", "nobody": "#c3cad3",
    "h1": "#fff6dd", "h2": "#ffebbb", "h3": "#ffd99a", "h4": "#ffc383", "h5": "#ffab7c", "h6": "#fb9580",
    "h7": "#f28080",
    "series-0": "#2563b0", "series-1": "#c2410c", "series-2": "#0f766e", "series-3": "#8b3fa8",
    "series-4": "#8a6d00", "series-5": "#b0256b",
}  # fmt: skip
DARK: Palette = {
    "page": "#0f1318", "panel": "#171c23", "sunk": "#1e252e", "line": "#2a323d", "edge": "#66748a",
    "ink": "#e7ebf0", "soft": "#b1bbc8", "faint": "#8b97a6",
    "link": "#8fb2ff", "good": "#62c88d", "good-bg": "#14311f", "warn": "#e5b454", "warn-bg": "#33270c",
    "bad": "#ff8d80", "bad-bg": "#3b1714", "accent": "#7ea5ff", "accent-bg": "#1a2742",
    "haiku": "#3fb8a0", "sonnet": "#6f9bff", "opus": "#b584ea", "other": "#8b97a6", "nobody": "#465160",
    "h1": "#2b2513", "h2": "#3b3013", "h3": "#4e3a12", "h4": "#633f12", "h5": "#753c17", "h6": "#84341f",
    "h7": "#932b2b",
    "series-0": "#7fb2f0", "series-1": "#ff9d66", "series-2": "#5fd0c0", "series-3": "#d59bea",
    "series-4": "#e0c25a", "series-5": "#f58bbb",
}  # fmt: skip
PRINT: Palette = {
    **LIGHT,
    "page": "#fff", "sunk": "#fff", "line": "#bbb", "ink": "#000", "soft": "#444", "faint": "#444",
    "good": "#145c33", "bad": "#8c1d18", "warn-bg": "#fff",
    "series-0": "#1d4f91", "series-1": "#a33a0a", "series-2": "#0b5e57", "series-3": "#6f3187",
    "series-4": "#6e5700", "series-5": "#8e1d56",
}  # fmt: skip


def variables(*, printed: bool = False) -> str:
    """Return the palette as custom properties of a page, `--ink` and so on, by the reader's colour scheme.

    Args:
        printed: with colours for paper as well.
    """
    blocks = [f":root{{{_properties(LIGHT)}}}"]
    blocks.append(f"@media (prefers-color-scheme:dark){{:root{{{_properties(DARK)}}}}}")
    if printed:
        blocks.append(f"@media print{{:root{{{_properties(PRINT)}}}}}")
    return "\n".join(blocks)


def _properties(palette: Palette) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in palette.items())


def style_sheet(rules: str) -> str:
    """Return `rules` in light and dark colours, for a picture that stands alone.

    Args:
        rules: CSS whose colours are `${ink}` and so on: not every program that shows SVG knows variables.
    """
    light, dark = (Template(rules).substitute(_underscored(palette)) for palette in (LIGHT, DARK))
    return f"{light}\n@media (prefers-color-scheme:dark){{{dark}}}"


def _underscored(palette: Palette) -> dict[str, str]:
    return {name.replace("-", "_"): colour for name, colour in palette.items()}
