"""A BERT encoder as published (safetensors and tokenizer.json) → a GGUF file for llama.cpp.

llama.cpp reads a WordPiece vocabulary in its own spelling: a word's first piece begins with U+2581, and a
piece within a word has lost its `##`. Nothing here needs PyTorch. From the command line:

    python -m cascade.lab.networks.convert_bert FOLDER OUT.gguf --kind Q8_0 --name all-MiniLM-L6-v2

FOLDER holds `model.safetensors`, `config.json` and `tokenizer.json`, as sentence-transformers saves them.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cascade.errors import ConfigError
from cascade.files import replace_file

KINDS: Final = ("F32", "F16", "Q8_0")
# Parts that no sentence vector depends on.
_UNUSED = re.compile(r"(pooler\.|cls\.|.*position_ids$)")
# Small, and looked up or added, never multiplied: they stay exact.
_EXACT = ("position_embd.weight", "token_types.weight")
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7}  # llama.cpp's `general.file_type`


def write_bert_gguf(
    weights: Mapping[str, npt.NDArray[np.float32]],
    config: Mapping[str, Any],
    tokenizer: Path,
    out: Path,
    *,
    kind: str = "Q8_0",
    name: str | None = None,
) -> None:
    """Write an encoder whose vectors are means over tokens; the same input gives the same bytes.

    Args:
        weights: Hugging Face's names of a `BertModel` (with or without `bert.` in front) → values.
        config: its `config.json`.
        tokenizer: its `tokenizer.json`, with an uncased WordPiece vocabulary.
        out: the file to write; replaced as a whole, or not at all.
        kind: type of the matrices: F32, F16 or Q8_0.
        name: the name in the metadata; default: the stem of `out`.

    Raises:
        ConfigError: the weights are no BERT encoder's, or the tokenizer is another than llama.cpp's.
        OSError: the file cannot be written.
    """
    import gguf

    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}; known: {', '.join(KINDS)}")
    pieces = _pieces(tokenizer)
    tensors = _tensors(weights, int(config["num_hidden_layers"]))
    if len(pieces[0]) != len(tensors["token_embd.weight"]):
        raise ConfigError(
            f"{tokenizer} has {len(pieces[0])} pieces and the weights {len(tensors['token_embd.weight'])}; "
            "take both from one model"
        )
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "encoder.gguf"
        writer = gguf.GGUFWriter(str(draft), "bert")
        _write_metadata(writer, config, name or out.stem, kind)
        _write_tokenizer(writer, *pieces)
        for key, values in tensors.items():
            _write_tensor(writer, key, values, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        replace_file(out, draft.read_bytes())


def read_encoder_folder(folder: Path) -> tuple[dict[str, npt.NDArray[np.float32]], dict[str, Any]]:
    """Return the weights and the config of a model as sentence-transformers saves it.

    Raises:
        OSError: a file is missing.
    """
    from safetensors.numpy import load_file

    loaded = load_file(str(folder / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = {key: values for key, values in loaded.items() if values.dtype.kind == "f"}
    return {key: np.asarray(values, np.float32) for key, values in weights.items()}, config


def _pieces(tokenizer: Path) -> tuple[list[str], list[int], dict[str, int]]:
    """Return the vocabulary as llama.cpp spells it, the type of each piece, and the ids of special pieces.

    Raises:
        ConfigError: it is none that llama.cpp's tokenizer reads in the same way.
    """
    import gguf

    spec = json.loads(tokenizer.read_text(encoding="utf-8"))
    model, normalizer = spec["model"], spec.get("normalizer") or {}
    if model.get("type") != "WordPiece" or not normalizer.get("lowercase"):
        raise ConfigError(f"{tokenizer}: llama.cpp's tokenizer of BERT models reads uncased WordPiece only")
    ids: dict[str, int] = model["vocab"]
    if sorted(ids.values()) != list(range(len(ids))):
        raise ConfigError(f"{tokenizer}: the ids of its vocabulary are not 0 to {len(ids) - 1}")
    special = {token["content"]: int(token["id"]) for token in spec["added_tokens"] if token["special"]}
    mark = model.get("continuing_subword_prefix", "##")
    pieces = []
    for piece in sorted(ids, key=ids.__getitem__):
        if piece in special:
            pieces.append(piece)
        else:
            pieces.append(piece.removeprefix(mark) if piece.startswith(mark) else f"▁{piece}")
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    return pieces, [control if piece in special else normal for piece in pieces], special


def _tensors(weights: Mapping[str, Any], layers: int) -> dict[str, npt.NDArray[np.float32]]:
    """Return the tensors by llama.cpp's names.

    Raises:
        ConfigError: one has no name in llama.cpp's `bert`, or the vocabulary's vectors are missing.
    """
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    tensors = {}
    for key, values in sorted(weights.items()):
        bare = key.removeprefix("bert.")
        if _UNUSED.match(bare):
            continue
        name = names.get_name(bare, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ConfigError(f"weights {key!r}: llama.cpp's BERT has no such tensor; convert another model")
        tensors[name] = np.ascontiguousarray(values, np.float32)
    if "token_embd.weight" not in tensors:
        raise ConfigError("the weights have no embeddings of words; give those of a BertModel")
    return tensors


def _write_metadata(writer: Any, config: Mapping[str, Any], name: str, kind: str) -> None:
    import gguf

    writer.add_name(name)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_eps(float(config["layer_norm_eps"]))
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(_FILE_TYPES[kind])


def _write_tokenizer(writer: Any, pieces: list[str], types: list[int], special: Mapping[str, int]) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_token_list(pieces)
    writer.add_token_types(types)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_mask_token_id(special["[MASK]"])
    writer.add_add_bos_token(True)
    writer.add_add_sep_token(True)


def _write_tensor(writer: Any, key: str, values: npt.NDArray[np.float32], kind: str) -> None:
    import gguf

    if values.ndim == 1 or key in _EXACT or kind == "F32":
        writer.add_tensor(key, values)
        return
    quant = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(key, gguf.quants.quantize(values, quant), raw_dtype=quant)


def main() -> None:
    """Convert a folder."""
    parser = argparse.ArgumentParser(description="Convert a BERT encoder to a GGUF file.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=KINDS, default="Q8_0")
    parser.add_argument("--name", help="name in the metadata; default: the stem of OUT")
    given = parser.parse_args()
    weights, config = read_encoder_folder(given.folder)
    write_bert_gguf(
        weights, config, given.folder / "tokenizer.json", given.out, kind=given.kind, name=given.name
    )


if __name__ == "__main__":
    main()
