"""The trace viewer, pages without scripts and the same as JSON, and the OpenAI-compatible server.

The public names are loaded on first use, so that importing this package does not import FastAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.serve.app import create_app

__all__ = ["create_app"]


if not TYPE_CHECKING:  # a type checker reads the imports above instead

    def __getattr__(name: str) -> Any:
        if name != "create_app":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from cascade.serve.app import create_app

        return create_app
