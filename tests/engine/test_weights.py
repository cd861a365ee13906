"""Loading GGUF files: shared, counted, and refused with a reason when they are broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoding import with_weights
from gguf_maker import CHATML, make_gguf

from cascade.engine.weights import ModelCache, Weights
from cascade.errors import ModelError


def load(path: Path) -> None:
    with_weights(path, lambda weights: None)


def test_a_file_tells_its_vocabulary_context_and_metadata(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=256, chat_template=CHATML, tasks={"a": ["x"]})

    def look(weights: Weights) -> tuple[object, ...]:
        return weights.n_ctx_train, weights.causal, weights.chat_template(), weights.metadata("no.such.key")

    assert with_weights(path, look) == (256, True, CHATML, None)


def test_tokens_and_pieces_give_the_text_back(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    text = " hello card, naïve 日本 \N{CRYING FACE}"

    def round_trip(weights: Weights) -> bytes:
        return b"".join(weights.piece(token) for token in weights.tokenize(text, 512))

    assert with_weights(path, round_trip).decode() == text


def test_control_tokens_are_read_only_on_demand(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")

    def count(weights: Weights) -> tuple[int, int]:
        text = "<|im_end|>"
        return len(weights.tokenize(text, 64)), len(weights.tokenize(text, 64, special=True))

    assert with_weights(path, count) == (10, 1)


def test_a_missing_file_is_named_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such file; check the model's path"):
        load(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    "content", [b"", b"GG", b"GGUF", b"not a gguf file at all", b"GGUF\x09\0\0\0" + bytes(64)]
)
def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not a GGUF file.*(copy or download|download or export) it again"):
        load(path)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for seed in range(20):
        path.write_bytes(b"GGUF\x03\0\0\0" + np.random.default_rng(seed).bytes(4096))
        with pytest.raises(ModelError):
            load(path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(
        ModelError, match=r"ends too early|exceeds remaining file size|it is cut off: it has \d+ bytes"
    ):
        load(path)


def test_a_vocabulary_that_repeats_a_token_is_refused_before_llama_cpp_aborts(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    path.write_bytes(
        path.read_bytes().replace(b"<|im_start|>", b"<|im_start|x", 1).replace(b"<ask>", b"hello", 1)
    )
    with pytest.raises(ModelError, match=r"its vocabulary has 'hello' 2 times"):
        load(path)


def test_weights_that_are_nan_are_refused(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", weights={"blk.0.ffn_up.weight": float("nan")})
    with pytest.raises(ModelError, match=r"cannot load it: .*ffn_up.weight. has invalid data"):
        load(path)


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match=r"text has 1000000 bytes; 512 tokens hold at most 8192"):
        with_weights(path, lambda weights: weights.tokenize("a" * 1_000_000, 512))


def test_a_lone_surrogate_is_refused(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match="not valid Unicode at position 2"):
        with_weights(path, lambda weights: weights.tokenize("ab\ud800", 512))


def test_a_long_run_of_one_letter_does_not_overflow_the_stack(tmp_path: Path) -> None:
    # This pre-tokenizer is a std::regex that recurses once per character: 40 kB overflow a stack of 8 MiB.
    path = make_gguf(tmp_path / "m.gguf", pre="deepseek-llm")
    tokens = with_weights(path, lambda weights: len(weights.tokenize("a" * 500_000, 40_000)))
    assert tokens == 500_000


def test_a_model_cache_loads_a_file_once_and_frees_it_with_its_last_user(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")

    def use(_: Weights) -> list[int]:
        models = ModelCache()
        first, second = models.acquire(path), models.acquire(path)
        sizes = [len(models), int(first is second)]
        models.release(first)
        sizes.append(len(models))
        models.release(second)
        return [*sizes, len(models)]

    assert with_weights(path, use) == [1, 1, 1, 0]


FUZZ = """
import random, sys
from pathlib import Path
from cascade.engine.session import EngineRequest, Session
from cascade.engine.weights import Weights
from cascade.models.llamacpp import LlamaCppSettings
from cascade.errors import ModelError

good, header = Path(sys.argv[1]).read_bytes(), 6000
path = Path(sys.argv[1] + ".fuzzed")
refused = 0
for seed in range(150):
    draw, data = random.Random(seed), bytearray(good)
    if seed % 2:
        start = draw.randrange(header)
        data[start:start + 8] = draw.choice([b"\\xff" * 8, bytes(8), (2**31).to_bytes(8, "little")])
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(header)] = draw.randrange(256)
    path.write_bytes(data)
    try:
        weights = Weights(path)
        config = LlamaCppSettings(kind="llamacpp", path=str(path), max_tokens=4)
        session = Session(weights, config, ["hello", "card os"])
        for _ in session.answer(EngineRequest("hello", "hello")):
            pass
        weights.close()
    except ModelError:
        refused += 1
print(refused)
"""


def test_a_damaged_header_never_kills_the_process(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf")
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50
