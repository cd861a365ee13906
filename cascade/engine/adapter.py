"""LoRA adapters: small differences to a model's weights, in a GGUF file of their own (E. J. Hu et al., 2021).

An adapter belongs to a context: all sequences of one batch have the same. `cascade.config.adapter` checks the
file before llama.cpp reads it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from cascade.config.adapter import check_adapter
from cascade.engine.binding import api, first_error, forget_errors
from cascade.errors import ConfigError, ModelError


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
        check_adapter(path, architecture)
    except ConfigError as error:
        raise ModelError(str(error)) from error
    forget_errors()
    adapter = api.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        raise ModelError(
            f"adapter {path}: llama.cpp cannot load it: {first_error()}; "
            "give a whole file that was made for this model"
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
