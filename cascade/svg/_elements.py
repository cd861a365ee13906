"""Elements as text: attributes and texts are escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def element(name: str, /, *children: str, **attributes: str | float | None) -> str:
    """Return an element.

    Args:
        name: of the element.
        children: its content as SVG; pass texts through `text`.
        attributes: underscores in a name become hyphens, a trailing one is dropped (`class_`); numbers get
            one decimal, None leaves an attribute out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.1f}" if isinstance(value, float) else str(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    content = "".join(children)
    return f"<{' '.join(parts)}>{content}</{name}>" if content else f"<{' '.join(parts)}/>"


def text(content: str, name: str = "text", /, **attributes: str | float | None) -> str:
    """Return an element (`text`, or a `title`) that holds `content`, escaped."""
    return element(name, escape(content), **attributes)


def coordinates(points: Iterable[tuple[float, float]]) -> str:
    """Return points as a `points` attribute holds them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
