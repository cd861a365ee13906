"""LoRA adapters change only the model that uses them; broken ones are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoding import drain, with_weights
from gguf_maker import make_adapter, make_gguf

from cascade.engine.context import ContextShape
from cascade.engine.generate import prefill
from cascade.engine.weights import Weights
from cascade.errors import ModelError
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp

BASE = {"kind": "llamacpp", "path": "m.gguf", "max_tokens": 6}
PROMPT = np.array([72, 101, 257, 111, 32, 99], np.int32)


def row(weights: Weights, adapter: Path | None = None) -> np.ndarray:
    return drain(prefill(weights.context(ContextShape(64, 1, adapter=adapter)), PROMPT)).copy()


def test_an_adapter_changes_its_own_context_only(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    one, two = make_adapter(tmp_path / "a.gguf"), make_adapter(tmp_path / "b.gguf", seed=1)
    none = make_adapter(tmp_path / "c.gguf", scale=0.0)

    def rows(weights: Weights) -> list[np.ndarray]:
        return [row(weights, adapter) for adapter in (None, one, two, one, None, none)]

    plain, first, second, again, after, nothing = with_weights(path, rows)
    assert np.abs(plain - first).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(plain, after)
    np.testing.assert_allclose(plain, nothing, atol=1e-6)


def test_the_difference_is_that_of_the_factors(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", layers=1)
    random = np.random.default_rng(5)
    a = random.standard_normal((3, 64), dtype=np.float32)
    b = random.standard_normal((64, 3), dtype=np.float32) * np.float32(0.1)
    adapter = make_adapter(
        tmp_path / "a.gguf",
        tensors={"blk.0.ffn_down.weight.lora_a": np.tile(a, (1, 2)), "blk.0.ffn_down.weight.lora_b": b},
        alpha=6.0,
    )
    got = with_weights(path, lambda weights: row(weights, adapter))
    merged = make_gguf(
        tmp_path / "merged.gguf", layers=1, add={"blk.0.ffn_down.weight": 2.0 * b @ np.tile(a, (1, 2))}
    )
    np.testing.assert_allclose(got, with_weights(merged, row), atol=1e-3)


async def test_two_models_of_one_file_have_their_own_adapters(tmp_path: Path) -> None:
    make_gguf(tmp_path / "m.gguf")
    make_adapter(tmp_path / "a.gguf", scale=1.0)

    def model(**settings: Any) -> LlamaCpp:
        config = LlamaCppSettings.model_validate(
            {"kind": "llamacpp", "path": "m.gguf", "max_tokens": 6} | settings
        )
        return LlamaCpp("m", config, tmp_path)

    plain, tuned = model(), model(lora="a.gguf")
    first, changed, again = [(await each.ask(Prompt("hello"))).tokens for each in (plain, tuned, plain)]
    assert first == again
    assert [token.logprob for token in first] != [token.logprob for token in changed]
    labels = ["card os", "card", "car"]
    scored = [
        (await each.ask(Prompt("hello"))).labels
        for each in (model(labels=labels), model(labels=labels, lora="a.gguf"))
    ]
    assert scored[0] != scored[1]
    for each in (plain, tuned):
        await each.aclose()


FACTOR = "blk.0.attn_q.weight.lora_"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strings": {"general.type": "model"}}, "general.type is 'model'; expected 'adapter'"),
        ({"strings": {"general.type": ""}}, "general.type is None; expected 'adapter'"),
        ({"strings": {"general.architecture": "qwen2"}}, "architecture is 'qwen2'; expected 'llama'"),
        ({"strings": {"adapter.type": "control"}}, "adapter.type is 'control'"),
        ({"strings": {"adapter.alora.invocation_tokens": "x"}}, "it is an aLoRA"),
        ({"alpha": 3}, "adapter.lora.alpha is not a 32-bit number"),
        ({"width": 32}, "has incorrect shape"),
        ({"tensors": {"x": np.zeros(4, np.float32)}}, "has no tensors named"),
        (
            {"tensors": {FACTOR + "a": np.zeros((2, 64), np.float32), "x": np.zeros(4, np.float32)}},
            "tensor 'x' is no part of a LoRA",
        ),
        ({"tensors": {FACTOR + "a": np.zeros((2, 64), np.float32)}}, "has no .lora_b"),
        (
            {
                "tensors": {
                    FACTOR + "a": np.zeros((2, 64), np.float32),
                    FACTOR + "b": np.zeros((64, 3), np.float32),
                }
            },
            "which do not fit",
        ),
        (
            {
                "tensors": {
                    FACTOR + "a": np.zeros((2, 64), np.int32),
                    FACTOR + "b": np.zeros((64, 2), np.int32),
                }
            },
            "has type 26; known: F32",
        ),
        (
            {
                "tensors": {
                    FACTOR + "a": np.zeros((3, 2, 64), np.float32),
                    FACTOR + "b": np.zeros((64, 2), np.float32),
                }
            },
            r"has sizes \(64, 2, 3\); expected two",
        ),
        (
            {
                "tensors": {
                    "token_embd.weight.lora_a": np.zeros((400, 2), np.float32),
                    "token_embd.weight.lora_b": np.zeros((64, 2), np.float32),
                }
            },
            "it changes the token embeddings",
        ),
        (
            {
                "tensors": {
                    "blk.9.attn_q.weight.lora_a": np.zeros((2, 64), np.float32),
                    "blk.9.attn_q.weight.lora_b": np.zeros((64, 2), np.float32),
                }
            },
            "does not exist in base model",
        ),
    ],
)
def test_a_wrong_adapter_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    adapter = make_adapter(tmp_path / "a.gguf", **settings)
    with pytest.raises(ModelError, match=message):
        with_weights(path, lambda weights: row(weights, adapter))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no gguf at all", b"GGUF\x03\0\0\0" + bytes(100)])
def test_a_file_that_is_not_an_adapter_is_refused(tmp_path: Path, content: bytes) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"adapter .*a\.gguf"):
        with_weights(path, lambda weights: row(weights, tmp_path / "a.gguf"))


def test_a_model_is_not_an_adapter(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"general.type is None; expected 'adapter'"):
        with_weights(path, lambda weights: row(weights, path))


FUZZ = """
import random, sys
from pathlib import Path
from cascade.engine.context import ContextShape
from cascade.engine.generate import prefill
from cascade.engine.weights import Weights
from cascade.errors import ModelError
import numpy as np

weights, good = Weights(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes()
refused = 0
for seed in range(300):
    draw, data = random.Random(seed), bytearray(good)
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(700)] = draw.randrange(256)
    if seed % 5 == 0:
        data = data[: draw.randrange(len(data))]
    path = Path(f"{sys.argv[2]}.{seed}")
    path.write_bytes(data)
    try:
        for _ in prefill(weights.context(ContextShape(32, 1, adapter=path)), np.array([5, 6, 7], np.int32)):
            pass
    except ModelError:
        refused += 1
print(refused)
"""


def test_a_damaged_adapter_never_kills_the_process(tmp_path: Path) -> None:
    path, adapter = make_gguf(tmp_path / "m.gguf"), make_adapter(tmp_path / "a.gguf")
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(path), str(adapter)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100
