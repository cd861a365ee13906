"""Asking a GGUF file through llama.cpp, one sentence at a time, to measure cards and tests."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade.formats.gguf import read_tasks


class Probe:
    """A model and a context on one thread."""

    def __init__(self, path: Path, length: int = 512) -> None:
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")
        from llama_cpp import llama_cpp as lib

        lib.llama_log_set(_quiet(lib), ctypes.c_void_p(0))
        lib.llama_backend_init()
        self.lib, self.length, self.tasks = lib, length, read_tasks(path)
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self.model:
            raise OSError(f"llama.cpp cannot load {path}; run the export again")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.size = lib.llama_vocab_n_tokens(self.vocab)
        options = lib.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = length
        options.n_threads = options.n_threads_batch = 1
        options.flash_attn_type = 0
        self.context = lib.llama_init_from_model(self.model, options)
        if not self.context:
            raise OSError(f"llama.cpp cannot make a context of {length} tokens for {path}; use a shorter one")
        self.memory = lib.llama_get_memory(self.context)
        self.batch = lib.llama_batch_init(length, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        """Return the text's tokens; control tokens are never read from text."""
        data = text.encode()
        room = (self.lib.llama_token * (len(data) + 8))()
        count = self.lib.llama_tokenize(self.vocab, data, len(data), room, len(room), False, False)
        return list(room[:count])

    def prompt(self, task: str, text: str) -> list[int]:
        """Return the tokens that ask `task` of `text`."""
        ask = self.tasks[task]
        clean = ask["lead"] + (text.strip().lower() if ask["lowercase"] else text.strip())
        return [*ask["prefix"], *self.tokenize(clean)[: ask["max_tokens"]], *ask["suffix"]]

    def row(self, tokens: Sequence[int]) -> Any:
        """Return the logits of all tokens at the last position, shape (vocabulary,)."""
        count = self.batch.n_tokens = len(tokens)
        if count > self.length:
            raise ValueError(f"{count} tokens do not fit in {self.length}; cut the text")
        for i, token in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, i, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = 0, int(i == count - 1)
        self.lib.llama_memory_clear(self.memory, False)
        if code := self.lib.llama_decode(self.context, self.batch):
            raise RuntimeError(f"llama_decode returned {code} for {count} tokens")
        return np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, -1), (self.size,)).copy()

    def logits(self, texts: Sequence[str], task: str) -> Any:
        """Return the label logits, shape (texts, labels)."""
        tokens = self.tasks[task]["tokens"]
        return np.stack([self.row(self.prompt(task, text))[tokens] for text in texts])

    def close(self) -> None:
        """Free the model and its context."""
        self.lib.llama_batch_free(self.batch)
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


_KEEP: list[Any] = []


def _quiet(lib: Any) -> Any:
    """Return a log callback that drops every line; it is kept alive because llama.cpp calls it later."""
    if not _KEEP:
        _KEEP.append(lib.llama_log_callback(lambda level, text, data: None))
    return _KEEP[0]
