"""The trace viewer, pages without scripts and the same as JSON, and the OpenAI-compatible server.

The public names are loaded on first use, so that importing this package does not import FastAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names

if TYPE_CHECKING:
    from cascade.serve.app import create_app

__all__ = ["create_app"]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    __getattr__ = lazy_names(__name__, {".app": "create_app"})
