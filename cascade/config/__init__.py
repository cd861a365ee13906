"""Graph files: loading with file:line errors, static checks, drawing.

The public names are loaded on first use, so that a module of this package does not import all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names

if TYPE_CHECKING:
    from cascade.config.load import LoadedGraph, load_graph

__all__ = ["LoadedGraph", "load_graph"]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    __getattr__ = lazy_names(__name__, {".load": "LoadedGraph load_graph"})
