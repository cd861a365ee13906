"""LoRA adapters: small differences to a model's weights, in a GGUF file of their own (E. J. Hu et al., 2021).

An adapter belongs to a context: all sequences of one batch have the same. llama.cpp ends the process at
metadata of another type than it expects and at factors that it cannot multiply, so both are checked first.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from cascade.config.gguf import Header, Tensor, read_header
from cascade.engine.binding import api, first_error, forget_errors
from cascade.errors import ConfigError, ModelError

_STRING, _FLOAT = 8, 6  # GGUF types
_ALPHA = "adapter.lora.alpha"
_ALORA = "adapter.alora.invocation_tokens"
_NUMBERS = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}  # ggml types of factors
_A, _B = ".lora_a", ".lora_b"
_SKIPPED = "_norm.weight"  # llama.cpp passes over them


def load_adapter(model: Any, architecture: str | None, path: Path) -> Any:
    """Return llama.cpp's pointer to the adapter in `path`; it is freed with the model.

    Args:
        model: llama.cpp's pointer to the model.
        architecture: the model's, as in its metadata.
        path: the adapter's GGUF file.

    Raises:
        ModelError: the file is broken, is no LoRA adapter, or is one of another model.
    """
    try:
        _check(read_header(path), architecture)
    except ConfigError as error:
        raise ModelError(f"adapter {error}; download or convert it again") from error
    except ModelError as error:
        raise ModelError(f"adapter {path}: {error}") from error
    forget_errors()
    adapter = api.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        raise ModelError(
            f"adapter {path}: llama.cpp cannot load it: {first_error()}; is it of another model?"
        )
    return adapter


def attach(context: Any, adapter: Any) -> None:
    """Have llama.cpp's `context` use `adapter`.

    Raises:
        ModelError: llama.cpp refuses.
    """
    adapters = (api.llama_adapter_lora_p_ctypes * 1)(adapter)
    if api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
        raise ModelError(f"llama.cpp cannot use the adapter: {first_error()}")


def _check(header: Header, architecture: str | None) -> None:
    values, kinds = header.values, header.kinds
    wanted = {"general.type": "adapter", "general.architecture": architecture, "adapter.type": "lora"}
    for key, value in wanted.items():
        if kinds.get(key) != _STRING or values[key] != value:
            raise ModelError(
                f"{key} is {values.get(key)!r:.60}; expected {value!r}; give a LoRA of this model"
            )
    if kinds.get(_ALPHA, _FLOAT) != _FLOAT:
        raise ModelError(f"{_ALPHA} is not a 32-bit number; convert it again")
    if _ALORA in kinds:
        raise ModelError("it is an aLoRA, which works on a part of the text only; merge it into the model")
    names = {name for name in header.tensors if not name.endswith(_SKIPPED)}
    bases = {name.removesuffix(_A) for name in names if name.endswith(_A)}
    if not bases:
        raise ModelError(f"it has no tensors named …{_A}; convert it again")
    if odd := names - {base + suffix for base in bases for suffix in (_A, _B)}:
        raise ModelError(f"tensor {min(odd)!r} is no part of a LoRA; convert it again")
    for base in sorted(bases):
        _check_pair(base, header.tensors[base + _A], header.tensors.get(base + _B))


def _check_pair(base: str, a: Tensor, b: Tensor | None) -> None:
    """Check one difference B·A of rank r: A has the sizes (inputs, r), B has (r, outputs)."""
    if b is None:
        raise ModelError(f"{base!r} has no {_B}; convert it again")
    for tensor in (a, b):
        if tensor.kind not in _NUMBERS:
            raise ModelError(f"{base!r} has type {tensor.kind}; known: {', '.join(_NUMBERS.values())}")
        if len(tensor.sizes) != 2 or not all(tensor.sizes):
            raise ModelError(f"{base!r} has sizes {tensor.sizes}; expected two that are not 0")
    if base == "token_embd.weight":  # where it also is the output, llama.cpp would multiply it wrongly
        raise ModelError("it changes the token embeddings, which is not supported; merge it into the model")
    if a.sizes[1] != b.sizes[0]:
        raise ModelError(f"{base!r} has sizes {a.sizes} and {b.sizes}, which do not fit; convert it again")
