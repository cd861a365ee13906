"""Real faults inside the worker process of isolated models.

`install(monkeypatch)` has the next workers run `plant` before they serve; a call with the text
`fault:NAME` then commits that fault in the worker. The llama.cpp ones go around the engine's own checks,
straight to the C library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from cascade.models.llamacpp import process

PREFIX = "fault:"


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers that start from now on know the faults."""
    monkeypatch.setattr(
        process,
        "BOOT",
        process.BOOT.replace("from cascade", "import faults; faults.plant(); from cascade", 1),
    )


def plant() -> None:
    """Run in the worker: answer `fault:NAME` by committing it."""
    from cascade.models.llamacpp.model import LlamaCpp

    answer = LlamaCpp.ask

    async def ask(self: LlamaCpp, prompt: Any, on_text: Any = None) -> Any:
        if prompt.text.startswith(PREFIX):
            FAULTS[prompt.text.removeprefix(PREFIX)](self._config.path)
        return await answer(self, prompt, on_text)

    LlamaCpp.ask = ask  # type: ignore[method-assign]


class Raw:
    """A model and a context of llama.cpp's own, without the engine."""

    def __init__(
        self, path: str, *, n_seq: int = 1, outputs: int = 8, unified: bool = False, mapped: bool = False
    ) -> None:
        from cascade.engine.binding import api

        self.api = api
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = api.LLAMA_LOAD_MODE_MMAP if mapped else api.LLAMA_LOAD_MODE_NONE
        self.model = api.llama_model_load_from_file(path.encode(), params)
        config = api.llama_context_default_params()
        config.n_ctx, config.n_batch, config.n_ubatch = 64 * n_seq, 32, 32
        config.n_seq_max, config.n_outputs_max, config.kv_unified = n_seq, outputs, unified
        config.n_threads = config.n_threads_batch = 1
        self.context = api.llama_init_from_model(self.model, config)
        self.memory = api.llama_get_memory(self.context)

    def decode(self, count: int, *, all_outputs: bool = False) -> int:
        batch = self.api.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i in range(count):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = 5 + i, i, 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = all_outputs or i == count - 1
        return int(self.api.llama_decode(self.context, batch))


def long_batch(path: str) -> None:
    Raw(path).decode(40)


def many_outputs(path: str) -> None:
    Raw(path, outputs=2).decode(16, all_outputs=True)


def high_sequence(path: str) -> None:
    raw = Raw(path, n_seq=2, unified=True)
    raw.decode(4)
    raw.api.llama_memory_seq_cp(raw.memory, 0, 300, -1, -1)


def partial_copy(path: str) -> None:
    raw = Raw(path, n_seq=2)
    raw.decode(8)
    raw.api.llama_memory_seq_cp(raw.memory, 0, 1, 2, 4)


def torn_state(path: str) -> None:
    raw = Raw(path)
    raw.decode(16)
    state = Path(path).with_suffix(".state")
    tokens = (ctypes.c_int32 * 16)(*range(5, 21))
    raw.api.llama_state_seq_save_file(raw.context, str(state).encode(), 0, tokens, 16)
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    count = ctypes.c_size_t(0)
    raw.api.llama_state_seq_load_file(raw.context, str(state).encode(), 0, tokens, 16, ctypes.byref(count))


def outside_grammar(path: str) -> None:
    raw = Raw(path)
    vocab = raw.api.llama_model_get_vocab(raw.model)
    sampler = raw.api.llama_sampler_init_grammar(vocab, b'root ::= "x"', b"root")
    raw.api.llama_sampler_accept(sampler, 40)


def truncated_mapping(path: str) -> None:
    copy = Path(path).with_suffix(".copy")
    copy.write_bytes(Path(path).read_bytes())
    raw = Raw(str(copy), mapped=True)
    with copy.open("r+b") as file:
        file.truncate(4096)
    raw.decode(16)


def collected_callback(_path: str) -> None:
    from cascade.engine.binding import api

    api.llama_log_set(ctypes.cast(0xDEAD, api.llama_log_callback), ctypes.c_void_p(0))
    api.llama_model_load_from_file(b"/nowhere.gguf", api.llama_model_default_params())


def model_freed_first(path: str) -> None:
    raw = Raw(path)
    raw.decode(4)
    raw.api.llama_model_free(raw.model)
    raw.decode(16)
    raw.api.llama_free(raw.context)


def own_signal(number: int) -> Callable[[str], None]:
    return lambda _path: os.kill(os.getpid(), number)


def hang(_path: str) -> None:
    """Block the decode thread for good."""
    from cascade.engine.worker import decode_worker

    def steps(_library: object, _queued: float) -> Generator[None, None, None]:
        time.sleep(3600)
        yield

    decode_worker().submit("hang", steps)


def freeze(_path: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def garbage(_path: str) -> None:
    os.write(1, b"\x00\x00\x00\x05hello" + bytes(range(256)) * 64 + b'\n{"event": "reply"}\n')
    os.write(2, b"\xff\xfe garbage on stderr\n")


def nonsense(_path: str) -> None:
    """Write what is no frame into the connection itself."""
    os.write(int(sys.argv[1]), b"\x00\x00\x00\x02[]")


FAULTS: dict[str, Callable[[str], None]] = {
    "batch longer than n_batch": long_batch,
    "more outputs than n_outputs_max": many_outputs,
    "sequence id over 256": high_sequence,
    "partial copy, not unified": partial_copy,
    "half a state file": torn_state,
    "token outside the grammar": outside_grammar,
    "mapped file truncated": truncated_mapping,
    "log callback collected": collected_callback,
    "model freed before context": model_freed_first,
    "SIGSEGV": own_signal(signal.SIGSEGV),
    "SIGBUS": own_signal(signal.SIGBUS),
    "SIGABRT": own_signal(signal.SIGABRT),
    "SIGKILL": own_signal(signal.SIGKILL),
    "exit": lambda _path: os._exit(7),
    "hang": hang,
    "freeze": freeze,
    "garbage": garbage,
    "nonsense": nonsense,
}
