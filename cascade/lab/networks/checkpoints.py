"""Checkpoints of a training run: files replaced whole, without which a run goes on all the same."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cascade.files import replace_file


def save(state: Mapping[str, Any], path: Path | None) -> None:
    """Keep tensors and plain values at `path`; None, or a disk without room, keeps nothing."""
    if path is None:
        return
    data = io.BytesIO()
    torch.save(dict(state), data)
    try:
        replace_file(path, data.getvalue())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()  # an older one would only take room


def load(path: Path | None) -> dict[str, Any] | None:
    """Return what `save` kept; None if there is nothing, or it cannot be read."""
    if path is None:
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return state
