"""Mutated GGUF headers: each file is loaded and asked, or refused, and the process never dies."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from expert_maker import make_small_expert
from fuzzing import fuzz
from gguf_maker import CHATML, make_gguf, make_spm

# A child for each file, forked from a process that has loaded llama.cpp and never decoded.
SERVER = """
import asyncio, os, resource, signal, sys
from pathlib import Path
import cascade.engine.session
from cascade.errors import CascadeError
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp

def ask(path):
    config = LlamaCppSettings(kind="llamacpp", path=path, n_ctx=64, max_tokens=3, n_threads=1, timeout=60)
    try:
        asyncio.run(LlamaCpp("m", config, Path("/")).ask(Prompt("hello card \\u00e9 <ask>")))
    except CascadeError as error:
        return "answered" if "it answered nothing" in str(error) else f"refused: {error}"
    return "answered"

for line in sys.stdin:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        signal.alarm(120)
        try:
            said = ask(line.strip())
        except BaseException as error:
            said = f"raised {type(error).__name__}: {error}"
        os.write(writer, said.encode(errors="replace")[:500])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode(errors="replace").replace("\\n", " ")
    status = os.waitpid(pid, 0)[1]
    print(f"died of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said, flush=True)
"""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
INTEGERS = (0, 1, 2, 3, 7, 31, 63, 65, 127, 255, 2**16 + 1, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), -1.0, -1e-30, 0.0, 1e-45, 1e30)
# What llama.cpp may look for beside what the file has.
EXTRA = (
    "expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count", "vocab_size",
    "attention.key_length", "attention.value_length", "attention.sliding_window", "nextn_predict_layers",
    "rope.scaling.factor", "rope.scaling.original_context_length", "attention.layer_norm_epsilon",
    "attention.group_norm_epsilon", "attention.group_norm_groups", "attention.max_alibi_bias",
    "attention.clamp_kqv", "attention.scale", "pooling_type", "embedding_length_out", "logit_scale",
)  # fmt: skip
WORDS = (
    "", "llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "none", "qwen2", "gemma3", "mamba", "phi3", "falcon",
    "spiral", "yarn", "x" * 5000, "\udcff\udc80",
)  # fmt: skip
TOKEN_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "unknown", "padding", "eot"))
FLAGS = tuple(f"tokenizer.ggml.{name}" for name in ("add_bos_token", "add_eos_token", "add_space_prefix"))
Pair = tuple[bytes, int, bytes]


class Parts:
    """A GGUF file taken apart: pairs of the metadata as raw bytes, and everything after them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 24
        self.tensors, pairs = struct.unpack_from("<QQ", data, 8)
        self.pairs: list[Pair] = [self._pair() for _ in range(pairs)]
        start = self.at
        for _ in range(self.tensors):
            self._string()
            (sizes,) = self._number("I")
            self.at += 8 * sizes + 12
        self.infos, self.weights = data[start : self.at], data[-(-self.at // 32) * 32 :]

    def _number(self, code: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return found

    def _string(self) -> bytes:
        (size,) = self._number("Q")
        self.at += size
        return self.data[self.at - size : self.at]

    def _pair(self) -> Pair:
        key = self._string()
        (kind,) = self._number("I")
        start = self.at
        self._skip(kind)
        return key, kind, self.data[start : self.at]

    def _skip(self, kind: int) -> None:
        if kind == 8:
            self._string()
        elif kind == 9:
            item, count = self._number("IQ")
            for _ in range(count):
                self._skip(item)
        else:
            self._number(SCALARS[kind])

    def file(self, pairs: list[Pair], infos: bytes, version: int = 3, alignment: int = 32) -> bytes:
        head = b"GGUF" + struct.pack("<IQQ", version, self.tensors, len(pairs))
        head += b"".join(text(key) + struct.pack("<I", kind) + raw for key, kind, raw in pairs) + infos
        return head + bytes(-len(head) % alignment) + self.weights


def text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def scalar(draw: random.Random, kind: int | None = None) -> tuple[int, bytes]:
    """Draw a value, of GGUF type `kind` if that is given."""
    kind = draw.choice([4, 4, 4, 6, 6, 8, 7, 2, 5, 10, 12]) if kind is None else kind
    if kind == 8:
        return kind, text(draw.choice(WORDS).encode(errors="surrogateescape"))
    if kind in (6, 12):
        return kind, struct.pack("<" + SCALARS[kind], draw.choice(FLOATS))
    bits = 8 * struct.calcsize("<" + SCALARS[kind])
    return kind, (draw.choice(INTEGERS) % 2**bits).to_bytes(bits // 8, "little")


def array(draw: random.Random, raw: bytes) -> bytes:
    """Change an array: its length, the type of its items, or some of its bytes."""
    item, count = struct.unpack_from("<IQ", raw)
    way = draw.randrange(4)
    if way == 0:
        kind = draw.choice([4, 5, 6, 8])
        size = draw.choice([0, 1, 2, count, count + 1])
        return struct.pack("<IQ", kind, size) + b"".join(scalar(draw, kind)[1] for _ in range(size))
    if way == 1 and item in SCALARS:
        width = struct.calcsize("<" + SCALARS[item])
        size = draw.choice([0, 1, count // 2, max(0, count - 1)])
        return struct.pack("<IQ", item, size) + raw[12 : 12 + size * width]
    changed = bytearray(raw)
    for _ in range(draw.choice([1, 4, 64])):
        if item != 8 and len(raw) > 12:
            changed[draw.randrange(12, len(raw))] = draw.randrange(8)
        elif len(raw) > 40:  # a letter of a text: lengths stay
            at = draw.randrange(20, len(raw))
            changed[at] = draw.randrange(32, 256) if changed[at] >= 32 else changed[at]
    return bytes(changed)


def header(parts: Parts) -> Callable[[random.Random], bytes]:
    """Return what draws a mutated header."""

    def draw_pairs(draw: random.Random, pairs: list[Pair]) -> Iterator[Pair]:
        chosen = draw.sample(range(len(pairs)), draw.choice([0, 1, 1, 2]))
        for index, (key, kind, raw) in enumerate(pairs):
            way = draw.randrange(8)
            if index not in chosen:
                yield key, kind, raw
            elif way > 1:
                yield (
                    (key, 9, array(draw, raw))
                    if kind == 9
                    else (key, *scalar(draw, kind if way > 2 else None))
                )
            elif way:
                yield key + draw.choice([b"x", b"\xff"]), kind, raw
        for key in draw.sample(EXTRA + TOKEN_KEYS + FLAGS, draw.choice([0, 1, 1, 3])):
            kinds = [7] if key in FLAGS else [4, 4, 6]
            name = key if key.startswith("tokenizer") else f"llama.{key}"
            yield name.encode(), *scalar(draw, draw.choice(kinds))

    def drawn(draw: random.Random) -> bytes:
        infos = bytearray(parts.infos)
        if draw.random() < 0.15:
            infos[draw.randrange(len(infos))] = draw.randrange(256)
        version = draw.choice([2, 3]) if draw.random() < 0.95 else draw.choice([0, 1, 4, 3 << 24])
        whole = parts.file(list(draw_pairs(draw, parts.pairs)), bytes(infos), version)
        return whole[: draw.randrange(len(whole))] if draw.random() < 0.05 else whole

    return drawn


def harmless(parts: Parts) -> Callable[[random.Random], bytes]:
    """Return what draws a header that says more than the good one, and nothing else."""

    def drawn(draw: random.Random) -> bytes:
        alignment = draw.choice([8, 16, 32])  # offsets are multiples of 32
        pairs = [*parts.pairs, (b"general.alignment", 4, struct.pack("<I", alignment))]
        for number in range(draw.randrange(6)):
            key = f"odd.{number}".encode() + draw.choice([b"", b"\xff\xfe", "é".encode(), b"\n"])
            kind, value = scalar(draw, draw.choice([*SCALARS, 8]))
            if draw.random() < 0.5:
                count = draw.choice([0, 1, 5])
                items = b"".join(scalar(draw, kind)[1] for _ in range(count))
                kind, value = 9, struct.pack("<IQ", kind, count) + items
            pairs.insert(draw.randrange(len(pairs)), (key, kind, value))
        return parts.file(pairs, parts.infos, draw.choice([2, 3]), alignment)

    return drawn


def fuzz_headers(
    folder: Path, examples: int, mutate: Callable[[Parts], Callable[[random.Random], bytes]] = header
) -> dict[str, int]:
    """Fuzz the headers of three tiny models, one a learned expert; return how many files ended how."""
    seen: dict[str, int] = {}
    path = folder / "mutated.gguf"
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def check(data: bytes) -> None:
            path.write_bytes(data)
            print(path, file=server.stdin, flush=True)
            said = server.stdout.readline().strip()
            kind = said.partition(":")[0]
            seen[kind] = seen.get(kind, 0) + 1
            assert said == "answered" or said.startswith("refused: "), said

        bpe = make_gguf(folder / "bpe.gguf", chat_template=CHATML, layers=1, width=32)
        expert = make_small_expert(folder / "expert.gguf")
        for name, whole in (("bpe", bpe), ("spm", make_spm(folder / "spm.gguf")), ("expert", expert)):
            draw = mutate(Parts(whole.read_bytes()))
            fuzz(f"gguf-{mutate.__name__}s-{name}", draw, check, examples=examples)
        server.stdin.close()
    return seen


def test_the_parts_make_the_file_again(tmp_path: Path) -> None:
    data = make_gguf(tmp_path / "good.gguf", chat_template=CHATML, layers=1, width=32).read_bytes()
    parts = Parts(data)
    assert parts.file(parts.pairs, parts.infos) == data


def test_a_mutated_header_is_answered_or_refused(tmp_path: Path) -> None:
    seen = fuzz_headers(tmp_path, 40)
    assert seen["answered"] > 5
    assert seen["refused"] > 5


def test_a_header_that_only_says_more_is_not_refused(tmp_path: Path) -> None:
    assert set(fuzz_headers(tmp_path, 15, harmless)) == {"answered"}


@pytest.mark.slow
def test_thousands_of_mutated_headers_are_answered_or_refused(tmp_path: Path) -> None:
    fuzz_headers(tmp_path, 2000)
