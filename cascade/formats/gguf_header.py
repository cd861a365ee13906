"""Rejects GGUF files whose metadata would make llama.cpp abort the process or fail without a reason.

The checks mirror the assertions of its `load_hparams` and vocabulary loader. They may not be complete: for a
file of unknown origin, `isolate: process` contains the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from cascade.errors import ConfigError, ModelError
from cascade.formats.gguf import read_metadata

_ARCHITECTURE = "general.architecture"
_TOKENS = "tokenizer.ggml.tokens"
_RANGES = {
    "block_count": (1, 512),  # LLAMA_MAX_LAYERS
    "context_length": (1, 2**31 - 1),  # else read as a negative number
    "expert_count": (0, 1024),  # LLAMA_MAX_EXPERTS
    "attention.head_count": (0, 2**16),  # beyond that, sizes overflow and pass the shape checks
    "attention.head_count_kv": (0, 2**16),
}
_AT_MOST = {"expert_used_count": "expert_count", "nextn_predict_layers": "block_count"}
_SCALING = "rope.scaling.type"
_SCALINGS = ("none", "linear", "yarn", "longrope")


def check_file(path: Path) -> None:
    """Reject a file on which an assertion of llama.cpp would fail.

    Raises:
        ModelError: `path` is missing, is not a GGUF file, or ends within its header; its vocabulary repeats a
            token; or its number of layers, heads, experts or tokens is impossible.
    """
    if not path.is_file():
        raise ModelError("there is no such file; check the model's path")
    try:
        metadata = read_metadata(path, (_ARCHITECTURE, _TOKENS))
        prefix = f"{metadata.get(_ARCHITECTURE)}."
        numbers = read_metadata(path, [prefix + key for key in (*_RANGES, *_AT_MOST, _SCALING)])
    except ConfigError as error:
        raise ModelError(f"{error}; download or export it again") from error
    _check_tokens(metadata.get(_TOKENS))
    _check_numbers({key.removeprefix(prefix): value for key, value in numbers.items()}, prefix)


def _check_tokens(tokens: Any) -> None:
    if not isinstance(tokens, list) or not tokens:
        raise ModelError(f"its metadata has no {_TOKENS!r}; use a text-generation GGUF")
    token, times = Counter(map(str, tokens)).most_common(1)[0]
    if times > 1:
        raise ModelError(
            f"its vocabulary has {token!r} {times} times; the file is corrupt, download it again"
        )


def _check_numbers(metadata: Mapping[str, Any], prefix: str) -> None:
    bounds: dict[str, tuple[float, float]] = dict(_RANGES)
    for key, other in _AT_MOST.items():
        maximum = metadata.get(other, 0)
        bounds[key] = (0, maximum if isinstance(maximum, int) else inf)
    if prefix.startswith("hunyuan"):  # llama.cpp reads one expert as none there
        del bounds["expert_used_count"]
    for key in bounds.keys() & metadata.keys():
        minimum, maximum = bounds[key]
        values = (
            metadata[key] if isinstance(metadata[key], list) else [metadata[key]]
        )  # a list is one a layer
        for value in values:
            if not isinstance(value, int) or not minimum <= value <= maximum:
                raise _impossible(prefix + key, value, f"{minimum} to {maximum}")
    scaling = metadata.get(_SCALING, "none")
    if scaling not in _SCALINGS:
        raise _impossible(prefix + _SCALING, scaling, f"one of {', '.join(_SCALINGS)}")


def _impossible(key: str, value: object, expected: str) -> ModelError:
    return ModelError(f"its metadata {key!r} is {value!r}; expected {expected}; download or export it again")
