"""The trace viewer, pages without scripts and the same as JSON, and the OpenAI-compatible server.

The public names are loaded on first use, so that importing this package does not import FastAPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cascade._lazy import lazy_names

if TYPE_CHECKING:
    from cascade.serve.app import create_app
    from cascade.serve.board import Board
    from cascade.serve.openai.keys import Keyring
    from cascade.serve.server import create_server

__all__ = ["Board", "Keyring", "create_app", "create_server"]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    __getattr__ = lazy_names(
        __name__,
        {
            ".app": "create_app",
            ".board": "Board",
            ".openai.keys": "Keyring",
            ".server": "create_server",
        },
    )
