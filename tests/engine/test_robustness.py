"""Inputs that would make llama.cpp kill or hang its process are refused before the C call.

docs/robustness.md lists where each case is tested. tests/models/test_isolated_faults.py tests that isolation
contains the same cases.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from decoding import with_weights
from gguf_maker import make_gguf

from cascade.engine.context import MAX_BRANCHES, ContextShape, max_branches
from cascade.engine.weights import ModelCache, Weights
from cascade.errors import ModelError


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    head = (
        "import asyncio, os, sys\nfrom pathlib import Path\n"
        "from cascade.models.llamacpp import LlamaCppSettings\nfrom cascade.models import build_model\n"
        "from cascade.models.base import Prompt\n"
        "config = LlamaCppSettings(kind='llamacpp', path=sys.argv[1], max_tokens=3, n_threads=2)\n"
        "model = build_model('nano', config, Path('.'))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + code, str(path)], capture_output=True, text=True, timeout=60
    )


def test_a_copy_of_a_sequence_is_always_whole(tmp_path: Path) -> None:
    # A context whose sequences have cells of their own aborts on a partial copy, so it has no branches.
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)
    with pytest.raises(ModelError, match="1 branches; this context has 0"):
        with_weights(path, lambda weights: weights.context(ContextShape(64, 1)).fork(1))


@pytest.mark.parametrize("branches", [256, 300, -1])
def test_sequence_ids_that_llama_cpp_aborts_on_cannot_arise(tmp_path: Path, branches: int) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)
    with pytest.raises(ModelError, match=f"{branches} branches; a context has at most 255"):
        with_weights(path, lambda weights: weights.context(ContextShape(512, 1, branches)))


@pytest.mark.parametrize(
    "shape", [ContextShape(64, 1, 64), ContextShape(64, 1, 255), ContextShape(8, 1, slots=16)]
)
def test_a_context_never_has_more_sequences_than_logits_rows(tmp_path: Path, shape: ContextShape) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)
    with pytest.raises(ModelError, match=r"\d+ sequences, \d+ logits rows; raise n_ctx"):
        with_weights(path, lambda weights: weights.context(shape))


@pytest.mark.parametrize("n_ctx", [2, 63, 64, 255, 256, 4096])
@pytest.mark.parametrize("n_vocab", [300, 152_000, 40_000_000])
def test_a_tree_asks_for_no_more_branches_than_a_context_has(n_ctx: int, n_vocab: int) -> None:
    branches = max_branches(n_ctx, n_vocab)
    assert 1 <= branches <= MAX_BRANCHES
    assert branches == 1 or (branches < n_ctx and branches < 2**25 // n_vocab)


def test_the_log_callback_outlives_every_collection(tmp_path: Path) -> None:
    good, bad = make_gguf(tmp_path / "good.gguf"), make_gguf(tmp_path / "bad.gguf")
    bad.write_bytes(bad.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight", 1))
    for _ in range(3):
        gc.collect()
        with pytest.raises(ModelError, match=r"cannot load it: .*tensor 'blk.1.ffn_up.weight' not found"):
            with_weights(bad, lambda weights: None)
    with_weights(good, lambda weights: None)


def test_weights_are_freed_after_their_contexts_whatever_is_open(tmp_path: Path) -> None:
    path = make_gguf(tmp_path / "m.gguf", n_ctx=64)

    def use(_: Weights) -> int:
        for _round in range(20):
            models = ModelCache()
            weights = models.acquire(path)
            for shape in (ContextShape(64, 1), ContextShape(32, 1), ContextShape(64, 1, 2)):
                weights.context(shape).feed(np.arange(5, 9, dtype=np.int32), 0, output=True)
            models.close()
        return len(models)

    assert with_weights(path, use) == 0


def test_a_forked_child_of_a_process_that_has_decoded_decodes_on_a_thread_of_its_own(tmp_path: Path) -> None:
    # Waiting for the parent's decode thread, which is not forked, would hang for ever.
    path = make_gguf(tmp_path / "m.gguf", says="one two three four")
    done = run(
        "print(asyncio.run(model.ask(Prompt('hi'))).text, flush=True)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(asyncio.run(model.ask(Prompt('hi'))).text, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(asyncio.run(model.ask(Prompt('hi'))).text)\n",
        path,
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, lines) == (0, ["one two three"] * 3), done.stderr


def test_a_file_cut_off_under_a_running_answer_changes_nothing(tmp_path: Path) -> None:
    # Mapped weights would raise SIGBUS at the next token; they are read into memory instead.
    path = make_gguf(tmp_path / "m.gguf", says="on and", ends=False)
    done = run(
        "def cut(piece):\n    os.truncate(sys.argv[1], 4096)\n"
        "reply = asyncio.run(model.ask(Prompt('hi'), cut))\n"
        "print(reply.text, Path(sys.argv[1]).stat().st_size)\n",
        path,
    )
    assert (done.returncode, done.stdout) == (0, "on andon 4096\n"), done.stderr


def test_flipped_bits_in_the_weights_are_an_answer_or_an_error_and_never_nan(tmp_path: Path) -> None:
    path, draw = make_gguf(tmp_path / "m.gguf", tasks={"a": ["x", "y"]}), np.random.default_rng(0)
    good, outcomes = path.read_bytes(), []
    for _ in range(20):
        data = bytearray(good)
        for at in draw.integers(len(data) // 2, len(data), 50):  # in the tensors
            data[at] ^= 1 << int(draw.integers(8))
        path.write_bytes(data)

        def ask(weights: Weights) -> bool:
            context = weights.context(ContextShape(64, 1))
            context.feed(np.arange(5, 15, dtype=np.int32), 0, output=True)
            return bool(np.isfinite(context.rows()).all())

        try:
            outcomes.append(with_weights(path, ask))
        except ModelError as error:
            assert "invalid data" in str(error) or "NaN or infinity" in str(error)  # noqa: PT017
            outcomes.append(None)
    assert set(outcomes) == {True, None}
