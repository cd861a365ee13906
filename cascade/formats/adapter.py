"""Checks LoRA adapters without llama.cpp: is a file one, and was it made for a model?

llama.cpp aborts the process on metadata of an unexpected type and on factors that it cannot multiply.
"""

from __future__ import annotations

from pathlib import Path

from cascade.errors import ConfigError
from cascade.formats.gguf import Header, Tensor, read_header
from cascade.formats.gguf_header import check_size

_STRING, _FLOAT = 8, 6  # GGUF types
_ARCHITECTURE = "general.architecture"
_ALPHA = "adapter.lora.alpha"
_ALORA = "adapter.alora.invocation_tokens"
_NUMBERS = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}  # ggml types of factors
_A, _B = ".lora_a", ".lora_b"
_SKIPPED = "_norm.weight"  # llama.cpp ignores them


def check_adapter(path: Path, architecture: str | None) -> None:
    """Check that the file `path` is a LoRA adapter of a model of this architecture.

    Raises:
        ConfigError: it is broken or something else; the message names the file.
    """
    _read(path, architecture)


def check_adapter_of(path: Path, model: Path) -> None:
    """Check that the file `path` is a LoRA adapter whose factors fit the tensors of the GGUF file `model`.

    Raises:
        ConfigError: it is broken, something else, or an adapter of another model; or `model` is broken.
    """
    whole = read_header(model)
    for base, (a, b) in _read(path, whole.values.get(_ARCHITECTURE)).items():
        sizes = (a.sizes[0], b.sizes[1])
        tensor = whole.tensors.get(base)
        if tensor is None:
            raise ConfigError(
                f"adapter {path}: it changes {base!r}, which {model.name} does not have; {_FIX}"
            )
        if tensor.sizes != sizes:
            raise ConfigError(
                f"adapter {path}: it is for a {base!r} of sizes {sizes}; {model.name} has "
                f"{tensor.sizes}; {_FIX}"
            )


_FIX = "give an adapter that was made for this model"


def _read(path: Path, architecture: str | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the two factors for each tensor that the adapter changes, by the tensor's name."""
    try:
        header = read_header(path)
        check_size(path, header)
        _check_metadata(header, architecture)
        return _factors(header)
    except _AdapterError as error:
        raise ConfigError(f"adapter {path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"adapter {error}") from error


class _AdapterError(Exception):
    """The file is a GGUF file but not a usable adapter."""


def _check_metadata(header: Header, architecture: str | None) -> None:
    values, kinds = header.values, header.kinds
    wanted = {"general.type": "adapter", _ARCHITECTURE: architecture, "adapter.type": "lora"}
    for key, value in wanted.items():
        if kinds.get(key) != _STRING or values[key] != value:
            raise _AdapterError(
                f"{key} is {values.get(key)!r:.60}; expected {value!r}; give a LoRA of this model"
            )
    if kinds.get(_ALPHA, _FLOAT) != _FLOAT:
        raise _AdapterError(f"{_ALPHA} is not a 32-bit number; convert it again")
    if _ALORA in kinds:
        raise _AdapterError("it is an aLoRA, which works on a part of the text only; merge it into the model")


def _factors(header: Header) -> dict[str, tuple[Tensor, Tensor]]:
    names = {name for name in header.tensors if not name.endswith(_SKIPPED)}
    bases = {name.removesuffix(_A) for name in names if name.endswith(_A)}
    if not bases:
        raise _AdapterError(f"it has no tensors named …{_A}; convert it again")
    if odd := names - {base + suffix for base in bases for suffix in (_A, _B)}:
        raise _AdapterError(f"tensor {min(odd)!r} is no part of a LoRA; convert it again")
    return {
        base: _pair(base, header.tensors[base + _A], header.tensors.get(base + _B)) for base in sorted(bases)
    }


def _pair(base: str, a: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the factors of one difference B·A of rank r: A has the sizes (inputs, r), B (r, outputs)."""
    if b is None:
        raise _AdapterError(f"{base!r} has no {_B}; convert it again")
    for tensor in (a, b):
        if tensor.kind not in _NUMBERS:
            raise _AdapterError(f"{base!r} has type {tensor.kind}; known: {', '.join(_NUMBERS.values())}")
        if len(tensor.sizes) != 2 or not all(tensor.sizes):
            raise _AdapterError(f"{base!r} has sizes {tensor.sizes}; expected two that are not 0")
    if base == "token_embd.weight":  # where it is the output too, llama.cpp would multiply it wrongly
        raise _AdapterError(
            "it changes the token embeddings, which is not supported; merge it into the model"
        )
    if a.sizes[1] != b.sizes[0]:
        raise _AdapterError(f"{base!r} has sizes {a.sizes} and {b.sizes}, which do not fit; convert it again")
    return a, b
