"""An encoder's GGUF file as PyTorch weights, and fine-tuned weights as a GGUF file.

A file of llama.cpp's architecture `bert` is all that fine-tuning starts from: its weights, its vocabulary and
llama.cpp's own tokenizer, so that training and run time cut a text into the same tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.errors import ConfigError
from cascade.files import replace_file
from cascade.lab.networks.bert import Bert, BertShape

ARCHITECTURE = "bert"


@dataclass(frozen=True, slots=True)
class EncoderFile:
    """An encoder that was read from a file.

    Attributes:
        path: the file.
        encoder: its weights, as 32-bit numbers.
        pieces: the pieces of its vocabulary.
    """

    path: Path
    encoder: Bert
    pieces: list[str]

    def tokenize(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        """Return each text's token ids with the special ones, `limit` at most, cut as at run time."""
        from cascade.engine.experts import encoder_tokens
        from cascade.engine.weights import Weights

        weights = Weights(self.path)
        try:
            return [encoder_tokens(weights, text, limit)[0].tolist() for text in texts]
        finally:
            weights.close()


def read_encoder(path: Path) -> EncoderFile:
    """Read an encoder.

    Raises:
        ConfigError: the file is missing or broken, or of another architecture.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(str(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a GGUF file: {error}; give another encoder") from error
    found = _value(reader, "general.architecture")
    if found != ARCHITECTURE:
        raise ConfigError(
            f"{path}: architecture is {found!r}; only {ARCHITECTURE!r} can be fine-tuned; "
            "take bundled:encoder, or size head, which works with any encoder"
        )
    encoder = Bert(_shape(reader))
    weights = {tensor.name: torch.from_numpy(_dequantized(tensor)) for tensor in reader.tensors}
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{path}: not the tensors of a BERT encoder: {error}") from error
    return EncoderFile(path, encoder, list(_value(reader, "tokenizer.ggml.tokens")))


def write_encoder(source: EncoderFile, encoder: Bert, out: Path) -> None:
    """Write `encoder` like the file that it was fine-tuned from: its metadata, and its type of each tensor.

    Raises:
        OSError: the file cannot be written; one that was there is as it was.
    """
    import gguf

    reader = gguf.GGUFReader(str(source.path))
    weights = encoder.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "encoder.gguf"
        writer = gguf.GGUFWriter(str(draft), ARCHITECTURE)
        for field in reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                kinds = field.types
                part = kinds[-1] if kinds[0] == gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), kinds[0], sub_type=part)
        for tensor in reader.tensors:
            values = np.ascontiguousarray(weights[tensor.name].detach().float().numpy())
            if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
                writer.add_tensor(tensor.name, values)
            else:
                packed = gguf.quants.quantize(values, tensor.tensor_type)
                writer.add_tensor(tensor.name, packed, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        replace_file(out, draft.read_bytes())


def _shape(reader: Any) -> BertShape:
    """Return the sizes that the metadata and the tensors tell.

    Raises:
        ConfigError: one is missing.
    """
    sizes = {
        name: _value(reader, f"{ARCHITECTURE}.{key}")
        for name, key in (
            ("width", "embedding_length"),
            ("layers", "block_count"),
            ("heads", "attention.head_count"),
            ("feed", "feed_forward_length"),
            ("positions", "context_length"),
            ("epsilon", "attention.layer_norm_epsilon"),
        )
    }
    return BertShape(vocab=len(_value(reader, "tokenizer.ggml.tokens")), **sizes)


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ConfigError(f"its metadata has no {key!r}; is it an encoder that llama.cpp reads?")
    return field.contents()


def _dequantized(tensor: Any) -> Any:
    import gguf

    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return np.array(values, np.float32).reshape([int(size) for size in reversed(tensor.shape)])
