"""Graph files: loading with file:line errors, static checks, drawing.

The public names are loaded on first use, so that a module of this package does not import all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph, load_graph

__all__ = ["LoadedGraph", "load_graph"]


if not TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from cascade.config import load

        return getattr(load, name)
