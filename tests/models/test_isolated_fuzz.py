"""Damaged files by the hundred, in worker processes: each call is answered or fails, the parent lives."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from gguf_maker import make_gguf

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Model, Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.supervisor import supervisor

HEADER = 6000
SHAPE = (
    "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "rope.dimension_count",
)  # fmt: skip
TOKENIZER = ("bos_token_id", "eos_token_id")
VALUES = (0, 1, 3, 7, 63, 65, 2**16 + 1, 2**31 - 1, 2**31, 2**32 - 1)


def random_damage(good: bytes, seed: int) -> bytes:
    """Overwrite a few bytes of the header, or a whole 64-bit number of it."""
    draw, data = random.Random(seed), bytearray(good)
    if seed % 2:
        start = draw.randrange(HEADER)
        data[start : start + 8] = draw.choice([b"\xff" * 8, bytes(8), (2**31).to_bytes(8, "little")])
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(HEADER)] = draw.randrange(256)
    if seed % 5 == 0:
        del data[draw.randrange(len(data)) :]
    return bytes(data)


def wrong_numbers(good: bytes) -> dict[str, bytes]:
    """Return files that are whole but say one impossible number."""
    found = {}
    keys = [f"llama.{key}" for key in SHAPE] + [f"tokenizer.ggml.{key}" for key in TOKENIZER]
    for key in keys:
        at = good.index(struct.pack("<Q", len(key)) + key.encode()) + 8 + len(key) + 4
        for value in VALUES:
            found[f"{key}={value}"] = good[:at] + struct.pack("<I", value) + good[at + 4 :]
    return found


def isolated(path: Path) -> Model:
    config = LlamaCppSettings(
        kind="llamacpp", path=path.name, isolate="process", labels=["hello", "card os"],
        n_ctx=512, memory_mb=4096, timeout=60,
    )  # fmt: skip
    return build_model("nano", config, path.parent)


async def outcomes(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Ask a model of each file; return "answer" or the error of each. A second model must stay untouched."""
    path, found = folder / "damaged.gguf", {}
    other = isolated(make_gguf(folder / "other.gguf", seed=1))
    before = (await other.ask(Prompt("hello"))).labels
    path.write_bytes(b"")
    holder = isolated(path)  # keeps the process between the files
    with pytest.raises(ModelError):
        await holder.ask(Prompt("hello"))
    for name, data in files.items():
        path.write_bytes(data)
        model = isolated(path)
        try:
            reply = await model.ask(Prompt("hello"))
            assert reply.labels is not None
            found[name] = "answer"
        except ModelError as error:
            found[name] = str(error)
        await model.aclose()
    after = await other.ask(Prompt("hello"))
    assert (after.labels, after.meta["restarts"]) == (before, 0)
    assert len(supervisor().processes()) <= 2
    for model in (holder, other):
        await model.aclose()
    assert supervisor().processes() == {}
    return found


@pytest.mark.slow
async def test_random_damage_never_reaches_the_parent(tmp_path: Path) -> None:
    good = make_gguf(tmp_path / "good.gguf").read_bytes()
    found = await outcomes(tmp_path, {str(seed): random_damage(good, seed) for seed in range(600)})
    assert len(found) == 600
    assert 0 < list(found.values()).count("answer") < 300


@pytest.mark.slow
async def test_impossible_numbers_are_refused_and_never_reach_the_parent(tmp_path: Path) -> None:
    good = make_gguf(tmp_path / "good.gguf").read_bytes()
    found = await outcomes(tmp_path, wrong_numbers(good))
    shape = {name: text for name, text in found.items() if name.startswith("llama.")}
    assert shape.pop("llama.context_length=65537") == "answer"
    assert [name for name, text in shape.items() if " died of " in text] == []
    assert all("cannot load" in text or "; expected " in text for text in shape.values() if text != "answer")
