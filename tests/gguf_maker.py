"""Writes tiny GGUF files for tests: real models with random weights, or ones that say a given text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<ask>")
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ hello", "c a", "ca r", "car d", "Ġ card", "o s", "Ġ t", "Ġt h")


def byte_alphabet() -> list[str]:
    """Return GPT-2's printable character of each byte, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(extra)) for byte in range(256)]


def make_gguf(
    path: Path,
    *,
    chat_template: str | None = None,
    tasks: dict[str, Sequence[str]] | None = None,
    says: str | Sequence[bytes] | None = None,
    control: Sequence[bytes] = (),
    ends: bool = True,
    seed: int = 0,
    n_ctx: int = 512,
    causal: bool = True,
    max_tokens: int = 64,
    layers: int = 2,
    width: int = 64,
    weights: dict[str, float] | None = None,
    add: dict[str, np.ndarray] | None = None,
    pre: str = "gpt-2",
    pooling: int | None = None,
    contract: Any = None,
    parts: int = 0,
) -> Path:
    """Write a GGUF of the llama architecture (F32, byte-level BPE) and return its path.

    Args:
        path: where to write.
        chat_template: Jinja chat template; `CHATML` fits the special tokens.
        tasks: task → labels; each label becomes one token, with the `cascade.tasks` contract in the metadata.
        says: greedy decoding gives this text after any prompt, one token a word, or these pieces.
        control: which of those pieces are control tokens.
        ends: False starts the text again where it would end.
        seed: seed of the random weights.
        n_ctx: context length that the file claims.
        causal: False writes an encoder-like model.
        max_tokens: the longest text of a task, in tokens.
        layers, width: size of the network.
        weights: tensor name → value that fills it (NaN for broken weights).
        add: tensor name → what is added to it.
        pre: name of the pre-tokeniser.
        pooling: pooling type of an embedding model (1 mean, 2 cls, 3 last, 4 rank).
        contract: written as `cascade.tasks` in place of the right one.
        parts: write this many files `STEM-00001-of-0000N.gguf` instead, and return the first.
    """
    labels = [f"<{task}:{label}>" for task, names in (tasks or {}).items() for label in names]
    merged = [merge.replace(" ", "") for merge in MERGES]
    said = [piece for piece in _pieces(says) if piece not in control]
    plain = list(dict.fromkeys([*byte_alphabet(), *merged, *map(_spell, said)]))
    tokens = [*plain, *SPECIAL, *labels, *(piece.decode() for piece in control)]
    first = len(plain)
    if says is not None:
        width = -(-len(tokens) // 4) * 4
    tensors = _tensors(len(tokens), width, layers, seed, says is not None)
    most = -(-len(tensors) // parts) if parts else 0
    writer = gguf.GGUFWriter(str(path), "llama", split_max_tensors=most)
    _shape(writer, n_ctx, width, layers)
    writer.add_causal_attention(causal)
    if pooling is not None:
        writer.add_uint32("llama.pooling_type", pooling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1 if i < first else 3 for i in range(len(tokens))])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(first)
    writer.add_eos_token_id(first)
    writer.add_add_bos_token(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    if tasks or contract is not None:
        writer.add_string(
            "cascade.tasks", json.dumps(contract or _contract(tasks or {}, tokens, max_tokens, causal))
        )
    tensors = _tensors(len(tokens), width, layers, seed, says is not None)
    if says is not None:
        names = (piece.decode() if piece in control else _spell(piece) for piece in _pieces(says))
        chain = [tokens.index(name) for name in names]
        _say(tensors["token_embd.weight"], tensors["output.weight"], [*chain, first if ends else chain[0]])
    for name, values in tensors.items():
        if weights and name in weights:
            values[:] = weights[name]
        if add and name in add:
            values[:] += add[name]
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.with_name(f"{path.stem}-00001-of-{parts:05d}.gguf") if parts else path


def make_spm(path: Path) -> Path:
    """Write a model with a SentencePiece vocabulary in which pieces spell the control token `</s>`."""
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz", *"<>/", "</", "s>", "ab", "▁ab", "▁a"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "<tool>"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(index) for index in range(len(pieces))] + [0.0])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(pieces), 4])
    tiny_network(writer, len(tokens))
    return path


def tiny_network(writer: gguf.GGUFWriter, vocab: int) -> None:
    """Write a network of width 8 and one layer, and close the file."""
    writer.add_context_length(4096)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (vocab, 8), "output_norm": (8,)}
    shapes |= {f"blk.0.{name}": (8, 8) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
    shapes |= {f"blk.0.{name}": (8, 8) for name in ("ffn_gate", "ffn_up", "ffn_down")}
    shapes |= {f"blk.0.{name}": (8,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_adapter(
    path: Path,
    *,
    seed: int = 0,
    rank: int = 4,
    width: int = 64,
    scale: float = 0.5,
    strings: dict[str, str] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    alpha: Any = None,
) -> Path:
    """Write a LoRA adapter (GGUF, F32) for a model of `make_gguf` of that width and return its path.

    Args:
        path: where to write.
        seed: seed of the random factors.
        rank: inner size of the factors.
        width: the model's.
        scale: standard deviation of the factors; 0 changes nothing.
        strings: metadata in place of the right values; an empty text leaves the key out.
        tensors: written in place of the factors of the queries and values.
        alpha: written as `adapter.lora.alpha`: a float, or something that does not belong there.
    """
    writer = gguf.GGUFWriter(str(path), "llama")
    wanted = {"general.type": "adapter", "adapter.type": "lora"} | (strings or {})
    for key, value in wanted.items():
        if key == "general.architecture":
            writer.kv_data[0][key].value = value
        elif value:
            writer.add_string(key, value)
    if alpha is not None:
        add = writer.add_float32 if isinstance(alpha, float) else writer.add_uint32
        add("adapter.lora.alpha", alpha)
    random = np.random.default_rng(seed)
    factors = {
        f"blk.0.attn_{part}.weight.lora_{side}": random.standard_normal(sizes, dtype=np.float32) * scale
        for part in "qv"
        for side, sizes in (("a", (rank, width)), ("b", (width, rank)))
    }
    for name, values in (factors if tensors is None else tensors).items():
        writer.add_tensor(name, values.astype(values.dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shape(writer: gguf.GGUFWriter, n_ctx: int, width: int, layers: int) -> None:
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(width // 2)
    writer.add_file_type(0)


def _contract(
    tasks: dict[str, Sequence[str]], tokens: list[str], max_tokens: int, causal: bool
) -> dict[str, Any]:
    place = {token: i for i, token in enumerate(tokens)}
    return {
        task: {
            "prefix": [],
            "suffix": [place["<ask>"]],
            "max_tokens": max_tokens,
            "lowercase": True,
            "lead": " ",
            "causal": causal,
            "labels": list(labels),
            "tokens": [place[f"<{task}:{label}>"] for label in labels],
        }
        for task, labels in tasks.items()
    }


def _tensors(vocab: int, width: int, layers: int, seed: int, empty: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> np.ndarray:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(0.0 if empty else scale)

    tensors = {
        "token_embd.weight": normal(vocab, width, scale=1.0),
        "output_norm.weight": np.ones(width, np.float32),
        "output.weight": normal(vocab, width, scale=0.3),
    }
    for layer in range(layers):
        block = f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"{block}{name}.weight"] = np.ones(width, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}{name}.weight"] = normal(width, width, scale=width**-0.5)
        for name in ("ffn_gate", "ffn_up"):
            tensors[f"{block}{name}.weight"] = normal(2 * width, width, scale=width**-0.5)
        tensors[f"{block}ffn_down.weight"] = normal(width, 2 * width, scale=(2 * width) ** -0.5)
    return tensors


def _pieces(says: str | Sequence[bytes] | None) -> list[bytes]:
    if isinstance(says, str):
        words = [word.encode() for word in re.findall(r"\s*\S+", says)]
        return words if len(set(words)) == len(words) else [says.encode()]
    return list(says or ())


def _spell(piece: bytes) -> str:
    alphabet = byte_alphabet()
    return "".join(alphabet[byte] for byte in piece)


def _say(embedding: np.ndarray, output: np.ndarray, chain: list[int]) -> None:
    """Make a bigram model: every token embeds as a unit vector, and the output picks its successor."""
    follows = dict(pairwise(chain))
    if len(follows) != len(chain) - 1:
        raise ValueError("a piece is said twice; make the pieces distinct")
    np.fill_diagonal(embedding, 1.0)
    for token in range(len(embedding)):
        output[follows.get(token, chain[0]), token] = 0.5
