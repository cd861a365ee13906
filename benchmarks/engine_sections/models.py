"""GGUF files of random weights at the shapes of real models, written on first use and kept.

The vocabulary is byte-level BPE whose merges spell words from left to right, so every word of it, after a
space, is exactly one token: prompts have exactly as many tokens as words. Tokens that are no whole character,
and the end-of-text token, have a zero embedding: greedy decoding never chooses them, so every answer has its
full length and every token shows as text.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import string
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

from cascade.errors import ConfigError
from cascade.formats.gguf import read_metadata

_MARK = "general.description"  # holds the fingerprint of what the file was made from
_SPACE = "Ġ"  # GPT-2's character for the byte of a space
_VERSION = 1
_ROWS = 8192  # rows of a matrix that are made at a time
_FILE_TYPES = {"Q8_0": 7, "Q4_0": 2, "F32": 0}


@dataclass(frozen=True)
class Spec:
    """The shape of a model. `kind` quantises its matrices, `embedding` the token embedding."""

    name: str
    architecture: str
    vocab: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    kind: str
    embedding: str
    rope_base: float = 10000.0
    n_ctx: int = 8192
    seed: int = 0

    def fingerprint(self) -> str:
        """Return a digest of everything that decides the file's bytes."""
        text = json.dumps({**asdict(self), "version": _VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


# The shapes of SmolLM-135M and Qwen2.5-0.5B, and a small one beside them.
TINY = Spec("tiny", "llama", 4096, 4, 256, 4, 2, 704, "Q8_0", "Q8_0")
SMOL = Spec("smol135", "llama", 49152, 30, 576, 9, 3, 1536, "Q8_0", "Q8_0")
QWEN = Spec("qwen05", "qwen2", 151936, 24, 896, 14, 2, 4864, "Q4_0", "Q8_0", 1e6)
SPECS = {spec.name: spec for spec in (TINY, SMOL, QWEN)}


class Words:
    """The words of a vocabulary of `size` tokens, and seeded texts of them."""

    def __init__(self, size: int) -> None:
        self.words = list(itertools.islice(_words(), size - 257))

    def draw(self, rng: random.Random, count: int) -> list[int]:
        """Return `count` random words, by index."""
        return [rng.randrange(len(self.words)) for _ in range(count)]

    def text(self, indices: list[int]) -> str:
        """Return the text of words, which has exactly as many tokens."""
        return "".join(f" {self.words[index]}" for index in indices)

    def tokens(self, indices: list[int]) -> list[int]:
        """Return the token of each word."""
        return [256 + index for index in indices]


def model_file(folder: Path, spec: Spec) -> Path:
    """Return the file of `spec` in `folder`; it is written if it is missing or made from something else."""
    path = folder / f"{spec.name}.gguf"
    if path.is_file():
        try:
            if read_metadata(path, (_MARK,)).get(_MARK) == spec.fingerprint():
                return path
        except ConfigError:  # cut off by an interrupted copy, say
            pass
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    _write(part, spec)
    part.replace(path)
    return path


def _words() -> Iterator[str]:
    """Yield words of one letter, of two, and so on: every beginning of a word comes before it."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)


def _bytes() -> list[str]:
    """Return GPT-2's printable character of each byte, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(extra)) for byte in range(256)]


def _write(path: Path, spec: Spec) -> None:
    writer = gguf.GGUFWriter(str(path), spec.architecture)
    writer.add_description(spec.fingerprint())
    writer.add_context_length(spec.n_ctx)
    writer.add_embedding_length(spec.width)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.ffn)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(spec.rope_base)
    writer.add_rope_dimension_count(spec.width // spec.heads)
    writer.add_file_type(_FILE_TYPES[spec.kind])
    _add_vocabulary(writer, spec)
    _add_tensors(writer, spec)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, spec: Spec) -> None:
    words = Words(spec.vocab).words
    tokens = [*_bytes(), *(_SPACE + word for word in words), "<|endoftext|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([*itertools.repeat(1, len(tokens) - 1), 3])
    writer.add_token_merges([f"{_SPACE}{word[:-1]} {word[-1]}" for word in words])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)


def _add_tensors(writer: gguf.GGUFWriter, spec: Spec) -> None:
    rng = np.random.default_rng(spec.seed)
    made: dict[tuple[int, int], Any] = {}
    head = spec.width // spec.heads
    kind = Kind[spec.kind]

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(spec.width, np.float32))

    def matrix(name: str, rows: int, columns: int) -> None:
        # Equal shapes share their numbers: what is measured is the work, and the file is made sooner.
        if (rows, columns) not in made:
            made[rows, columns] = _matrix(rng, rows, columns, 0.04, kind)
        writer.add_tensor(name, made[rows, columns], raw_dtype=kind)

    embedding = _matrix(rng, spec.vocab, spec.width, 0.02, Kind[spec.embedding], silent=_silent(spec.vocab))
    writer.add_tensor("token_embd.weight", embedding, raw_dtype=Kind[spec.embedding])
    ones("output_norm.weight")
    for layer in range(spec.layers):
        block = f"blk.{layer}."
        ones(f"{block}attn_norm.weight")
        ones(f"{block}ffn_norm.weight")
        for part, heads in (("q", spec.heads), ("k", spec.kv_heads), ("v", spec.kv_heads)):
            matrix(f"{block}attn_{part}.weight", heads * head, spec.width)
            if spec.architecture == "qwen2":
                writer.add_tensor(f"{block}attn_{part}.bias", np.zeros(heads * head, np.float32))
        matrix(f"{block}attn_output.weight", spec.width, spec.heads * head)
        matrix(f"{block}ffn_gate.weight", spec.ffn, spec.width)
        matrix(f"{block}ffn_up.weight", spec.ffn, spec.width)
        matrix(f"{block}ffn_down.weight", spec.width, spec.ffn)


def _silent(vocab: int) -> list[int]:
    """Return the tokens that are never generated: no printable ASCII character or word."""
    return [byte for byte in range(256) if not 32 < byte < 127] + [vocab - 1]


def _matrix(
    rng: np.random.Generator,
    rows: int,
    columns: int,
    scale: float,
    kind: Kind,
    silent: list[int] | None = None,
) -> Any:
    parts = []
    for start in range(0, rows, _ROWS):
        part = rng.standard_normal((min(_ROWS, rows - start), columns), dtype=np.float32) * np.float32(scale)
        if silent:
            part[[row - start for row in silent if start <= row < start + len(part)]] = 0.0
        parts.append(part if kind is Kind.F32 else gguf.quants.quantize(part, kind))
    return np.concatenate(parts)
