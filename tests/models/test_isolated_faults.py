"""Every way in which llama.cpp is known to kill its process is one failed call when it is isolated."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
from gguf_maker import make_gguf

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings

DEATHS = {
    "batch longer than n_batch": r"SIGABRT \(llama-context.cpp:\d+: GGML_ASSERT\(n_tokens_all <=",
    "more outputs than n_outputs_max": r"SIGABRT \(llama-context.cpp:\d+: GGML_ASSERT\(n_outputs_max <=",
    "sequence id over 256": r"SIGABRT \(llama-kv-cache.cpp:\d+: GGML_ASSERT\(seq_id_dst >= 0",
    "partial copy, not unified": r"SIGABRT \(llama-kv-cache.cpp:\d+: GGML_ASSERT\(is_full",
    "half a state file": r"SIGABRT \(llama-context.cpp:\d+: GGML_ASSERT\(nread <= state_size",
    "token outside the grammar": r"SIGABRT \(what\(\):  Unexpected empty grammar stack",
    "mapped file truncated": "SIGBUS",
    "log callback collected": "SIGSEGV",
    "model freed before context": "SIGSEGV",
}


@pytest.mark.parametrize("fault", DEATHS)
async def test_llama_cpp_kills_its_process_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    faults.install(monkeypatch)
    # Freed memory is overwritten, so that a use of it shows every time.
    monkeypatch.setenv("MALLOC_PERTURB_", "165")
    path = make_gguf(tmp_path / "m.gguf", tasks={"colours": ["red", "green"]})
    config = LlamaCppSettings(kind="llamacpp", path=path.name, isolate="process")
    nano = build_model("nano", config, tmp_path)
    try:
        with pytest.raises(
            ModelError, match=rf"model 'nano' \(.*m.gguf\): its process \d+ died of {DEATHS[fault]}"
        ):
            await nano.ask(Prompt(f"fault:{fault}"))
        reply = await nano.ask(Prompt("hello"))
        assert reply.labels is not None
        assert reply.meta["restarts"] == 1
    finally:
        await nano.aclose()
