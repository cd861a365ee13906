"""Loaded GGUF files: vocabulary, metadata and contexts of one, and the cache of all of them.

Used on the decode thread only.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import Counter
from collections.abc import Hashable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade._fork import abandon
from cascade.engine.binding import api, first_error, forget_errors
from cascade.engine.context import Context, ContextShape
from cascade.engine.embed import Embedder, pooling_type
from cascade.engine.embed_queue import EmbeddingQueue
from cascade.engine.memory import large_pages
from cascade.engine.prefix import PrefixCache
from cascade.engine.scheduler import Scheduler
from cascade.engine.stats import RowStats
from cascade.environment import ENGINE_MEMORY
from cascade.errors import ConfigError, ModelError
from cascade.formats.adapter import check_adapter
from cascade.formats.expert_file import encoder_digest, is_encoder
from cascade.formats.gguf_header import check_file
from cascade.formats.thinking import is_marker

IntArray = npt.NDArray[np.int32]
# No tokenizer has pieces this long on average, so a longer text cannot fit. This is checked before
# tokenizing, because llama.cpp's regular expressions recurse once per character and its SPM tokenizer is
# quadratic.
MAX_BYTES_PER_TOKEN = 16
_SPM, _UGM = 1, 4  # llama.cpp's types of SentencePiece vocabularies, by BPE and by unigrams
_WPM = 3  # that of a WordPiece vocabulary
_UNKNOWN_ID = "tokenizer.ggml.unknown_token_id"
_CONTROL, _USER_DEFINED = 1 << 3, 1 << 4  # llama_token_attr
_POOLINGS = ("1", "2", "3")  # mean, first token, last token
_ANCHOR = b"\0"
_MIB = 2**20
_log = logging.getLogger("cascade.engine")


class Weights:
    """The weights of one GGUF file, with all that llama.cpp knows about it.

    Attributes:
        path: the file.
        key: what the cache knows it by.
        size: bytes of all tensors.
        n_vocab: number of tokens in the vocabulary.
        n_ctx_train: longest context that the model was trained for, in tokens.
        causal: False for encoder-like models, which must see a prompt as a whole.
        encoder: whether it only turns texts into vectors.
        can_branch: whether one prompt can be continued in several ways at once.
        can_rewind: whether the end of a sequence can be dropped again.
        row_stats: computes the statistics of its logits rows.
        active_requests: number of requests that use it now.
        adds_space: whether the tokenizer itself puts a space before every text.
    """

    def __init__(self, path: Path) -> None:
        """Load `path`.

        Raises:
            ModelError: the file is missing, broken, or no text-generation model.
        """
        self.path = path
        self.key: Hashable = path
        check_file(path)
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        # Read, not mapped: overwriting a mapped file kills the process with SIGBUS.
        params.load_mode = api.LLAMA_LOAD_MODE_NONE
        params.check_tensors = True  # otherwise broken weights load and give NaN
        forget_errors()
        with large_pages():
            self._model = api.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelError(f"llama.cpp cannot load it: {first_error()}; download or export it again")
        self._contexts: dict[ContextShape, Context] = {}
        self._schedulers: dict[ContextShape, Scheduler] = {}
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self.active_requests = 0
        self._vocab = api.llama_model_get_vocab(self._model)
        self.size = int(api.llama_model_size(self._model))
        self.n_vocab = int(api.llama_vocab_n_tokens(self._vocab))
        self.row_stats = RowStats(self.n_vocab)
        self.n_ctx_train = int(api.llama_model_n_ctx_train(self._model))
        self._adapters: dict[Path, Any] = {}
        self._embedders: dict[tuple[int, int], Embedder] = {}
        self._queues: dict[Embedder, EmbeddingQueue] = {}
        architecture = self.metadata("general.architecture")
        self.causal = self.metadata(f"{architecture}.attention.causal") != "false"
        self.encoder = not self.causal and self.metadata(f"{architecture}.pooling_type") in _POOLINGS
        self.can_branch = not (
            api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)
        )
        # A sliding window forgets old tokens, so like a recurrent state it cannot return to a shorter prefix.
        self.can_rewind = self.can_branch and not api.llama_model_n_swa(self._model)
        self.adds_space = api.llama_vocab_type(self._vocab) == _SPM
        if api.llama_model_has_encoder(self._model) or not self.n_vocab:
            self.close()
            raise ModelError(f"architecture {architecture!r} is not a decoder; use a text-generation GGUF")

    @property
    def vocab(self) -> Any:
        """llama.cpp's pointer to the vocabulary, for its samplers."""
        return self._vocab

    def metadata(self, key: str) -> str | None:
        """Return the metadata value of `key` as text; None if the file has no such key."""
        needed = api.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if needed < 0:
            return None
        buffer = ctypes.create_string_buffer(needed + 1)
        api.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    def chat_template(self) -> str | None:
        """Return the file's Jinja chat template, if it has one."""
        template = api.llama_model_chat_template(self._model, None)
        return None if template is None else template.decode(errors="replace")

    def special_token(self, which: str) -> tuple[int, str]:
        """Return (id, text) of the `bos`, `eos` or `eot` token; (-1, "") if the vocabulary has none."""
        token = int(getattr(api, f"llama_vocab_{which}")(self._vocab))
        return (token, self.piece(token, special=True).decode(errors="replace")) if token >= 0 else (-1, "")

    def tokenize(
        self,
        text: str,
        limit: int,
        *,
        begin: bool = False,
        special: bool = False,
        goes_on: bool = False,
    ) -> IntArray:
        """Return the tokens of `text`, shape (tokens,). For text from outside: `outside.tokenize_outside`.

        Args:
            text: any valid Unicode.
            limit: tokens that the caller can use; much longer texts are refused without tokenizing them.
            begin: add the begin-of-text token if the model expects one.
            special: parse control tokens such as `<|im_end|>` in `text` instead of keeping them as
                characters. User-defined tokens are always parsed.
            goes_on: the text follows another one, so a tokenizer that puts a space before texts puts none.

        Raises:
            ModelError: the text is not valid Unicode, or certainly longer than `limit` tokens.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise ModelError(
                f"text is not valid Unicode at position {error.start}; decode it as UTF-8"
            ) from error
        if len(data) > limit * MAX_BYTES_PER_TOKEN:
            raise ModelError(
                f"text has {len(data)} bytes; {limit} tokens hold at most {limit * MAX_BYTES_PER_TOKEN}; "
                "shorten it or send it to a larger model"
            )
        if goes_on and self._anchor is not None:
            data = _ANCHOR + data  # the space comes before it
        if begin and not self._can_begin:
            begin = False  # llama.cpp would abort
        out = np.empty(len(data) + 16, np.int32)
        address = out.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = api.llama_tokenize(self._vocab, data, len(data), address, len(out), begin, special)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenize a text of {len(data)} bytes (code {count})")
        tokens = out[:count].copy()
        if goes_on and self._anchor is not None:
            return tokens[int((tokens == self._anchor).argmax()) + 1 :]
        return tokens

    @cached_property
    def _anchor(self) -> int | None:
        """The token of a NUL, which merges with nothing, in a vocabulary that puts a space before texts."""
        if api.llama_vocab_type(self._vocab) not in (_SPM, _UGM):
            return None
        tokens = self.tokenize("\0", 1)
        return int(tokens[-1]) if len(tokens) else None

    @cached_property
    def _can_begin(self) -> bool:
        """Whether the vocabulary has the tokens that it says begin and end each text."""
        added = {"bos": api.llama_vocab_get_add_bos, "eos": api.llama_vocab_get_add_eos}
        return all(self.special_token(name)[0] >= 0 for name, adds in added.items() if adds(self._vocab))

    @property
    def cell_bytes(self) -> int:
        """Bytes of one token in a context, in 16-bit floats."""
        heads = max(1, int(api.llama_model_n_head(self._model)))
        width = (
            int(api.llama_model_n_embd(self._model)) * int(api.llama_model_n_head_kv(self._model)) // heads
        )
        return 2 * 2 * width * int(api.llama_model_n_layer(self._model))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token; empty for control tokens that mark no thinking, unless `special`."""
        if special:
            return self._piece(token, special=True)
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._piece(token, special=self._marks_thinking(token))
            self._pieces[token] = piece
        return piece

    def _marks_thinking(self, token: int) -> bool:
        return self.is_control(token) and is_marker(self._piece(token, special=True).decode(errors="replace"))

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        count = api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(0, count)]

    def is_end(self, token: int) -> bool:
        """Return whether `token` ends a generation."""
        end = self._ends.get(token)
        if end is None:
            end = self._ends[token] = bool(api.llama_vocab_is_eog(self._vocab, token))
        return end

    def is_control(self, token: int) -> bool:
        """Return whether `token` is a control token, such as `<|im_end|>`."""
        return bool(api.llama_vocab_is_control(self._vocab, token))

    def is_special(self, token: int) -> bool:
        """Return whether `token` has a meaning of its own: a control token, or a user-defined one.

        A user-defined token that is white space or a single character is text.
        """
        return token in self._special

    def text_of(self, token: int) -> str:
        """Return the text that is read as `token`."""
        return self.piece(token, special=True).decode(errors="replace")

    @cached_property
    def _unknown(self) -> int | None:
        """The token of what a WordPiece vocabulary lacks; files call it a mark, and texts hold it."""
        unknown = self.metadata(_UNKNOWN_ID) or ""
        return int(unknown) if api.llama_vocab_type(self._vocab) == _WPM and unknown.isdigit() else None

    @cached_property
    def _special(self) -> frozenset[int]:
        found = []
        for token in range(self.n_vocab):
            if token == self._unknown:
                continue
            kind = int(api.llama_vocab_get_attr(self._vocab, token))
            if kind & _CONTROL or (kind & _USER_DEFINED and len(self.text_of(token).strip(" \t\r\n▁")) > 1):
                found.append(token)
        return frozenset(found)

    def context(self, shape: ContextShape) -> Context:
        """Return the context of `shape`, made by the first call."""
        if shape not in self._contexts:
            adapter = self._adapter(shape.adapter)
            self._contexts[shape] = Context(self._model, self.n_vocab, self.causal, shape, adapter)
        return self._contexts[shape]

    def scheduler(self, shape: ContextShape) -> Scheduler:
        """Return the scheduler of the context of `shape`, made by the first call.

        The context starts with one slot and grows up to those of `shape`, because their cells take memory.
        """
        if shape not in self._schedulers:
            reuse = self.can_rewind and self.causal and not shape.packed and shape.slots > 1
            prefixes = PrefixCache() if reuse else None
            context = self.context(shape if shape.packed else shape._replace(slots=1))
            self._schedulers[shape] = Scheduler(
                context, causal=self.causal, prefixes=prefixes, max_slots=shape.slots
            )
        return self._schedulers[shape]

    def embedder(self, limit: int, n_threads: int) -> Embedder:
        """Return the embedding context for texts of up to `limit` tokens, made by the first call."""
        key = (limit, n_threads)
        if key not in self._embedders:
            self._embedders[key] = self.new_embedder(limit, n_threads)
        return self._embedders[key]

    def new_embedder(self, limit: int, n_threads: int) -> Embedder:
        """Make an embedding context that the caller closes before the weights; for use on another thread."""
        architecture = self.metadata("general.architecture")
        pooling = pooling_type(self.metadata(f"{architecture}.pooling_type"), self.causal)
        return Embedder(self._model, self.n_vocab, pooling, limit, n_threads)

    def embedding_queue(self, limit: int, n_threads: int) -> EmbeddingQueue:
        """Return what embeds texts of up to `limit` tokens for many requests, made by the first call."""
        embedder = self.embedder(limit, n_threads)
        if embedder not in self._queues:
            self._queues[embedder] = EmbeddingQueue(embedder)
        return self._queues[embedder]

    def _adapter(self, path: Path | None) -> Any:
        """Return llama.cpp's pointer to the adapter in `path`, loaded once and freed with the model."""
        if path is not None and path not in self._adapters:
            self._adapters[path] = _load_adapter(self._model, self.metadata("general.architecture"), path)
        return None if path is None else self._adapters[path]

    def start_over(self) -> None:
        """Leave the contexts to the parent process of this fork, whose memory they are; new ones are made."""
        abandon((self._contexts, self._schedulers, self._embedders, self._queues))
        self._contexts, self._schedulers, self._embedders, self._queues = {}, {}, {}, {}
        self.active_requests = 0

    @property
    def memory(self) -> int:
        """Bytes of the weights, the contexts' cells and the saved prefixes."""
        cells = sum(context.shape.cells for context in self._contexts.values())
        cells += sum(embedder.cells for embedder in self._embedders.values())
        saved = sum(scheduler.saved_bytes for scheduler in self._schedulers.values())
        return self.size + cells * self.cell_bytes + saved

    @property
    def closed(self) -> bool:
        """Whether the weights have been freed."""
        return self._model is None

    def close(self) -> None:
        """Free the contexts, then the weights; the other order crashes."""
        self._schedulers.clear()
        self._queues.clear()
        for context in self._contexts.values():
            context.close()
        for embedder in self._embedders.values():
            embedder.close()
        self._contexts.clear()
        self._embedders.clear()
        if self._model:
            api.llama_model_free(self._model)
            self._model = None


def _load_adapter(model: Any, architecture: str | None, path: Path) -> Any:
    """Return llama.cpp's pointer to a LoRA adapter (E. J. Hu et al., 2021); it is freed with the model.

    Args:
        model: llama.cpp's pointer to the model.
        architecture: the architecture in the model's metadata.
        path: the adapter's GGUF file, which is checked before llama.cpp reads it.

    Raises:
        ModelError: the file is broken, is not a LoRA adapter, or was made for another model.
    """
    try:
        check_adapter(path, architecture)
    except ConfigError as error:
        raise ModelError(str(error)) from error
    forget_errors()
    adapter = api.llama_adapter_lora_init(model, os.fsencode(path))
    if not adapter:
        raise ModelError(
            f"adapter {path}: llama.cpp cannot load it: {first_error()}; "
            "give a whole file that was made for this model"
        )
    return adapter


def max_memory_bytes() -> int:
    """Return the bytes that all local models together may use: CASCADE_ENGINE_MEMORY MiB, else half the RAM.

    Raises:
        ModelError: the variable is not a positive number; it may have been set after the graph was loaded.
    """
    text = os.environ.get(ENGINE_MEMORY)
    if text is None:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if not text.isdecimal() or int(text) < 1:
        raise ModelError(f"{ENGINE_MEMORY} is {text!r}; expected a number of MiB, 4096 for instance")
    return int(text) * _MIB


def _key(path: Path) -> Hashable:
    """Return what the file at `path` is known by: an encoder by its digest, another file by its path."""
    try:
        if not is_encoder(path):
            return path
        state = path.stat()
        return _digest(path.resolve(), state.st_size, state.st_mtime_ns)
    except (ConfigError, OSError):  # loading it says what is wrong
        return path


@lru_cache(maxsize=64)
def _digest(path: Path, _size: int, _changed: int) -> str:
    return encoder_digest(path)


class ModelCache:
    """The loaded files of this process, each once, under one bound of memory.

    A file stays loaded while it has users. Above the bound, the least recently used file without an active
    request is freed; its users load it again with their next request. Files with the same encoder, such as
    experts that were learned on it, count as one.
    """

    def __init__(self) -> None:
        self._loaded: dict[Hashable, Weights] = {}  # least recently used first
        self._users: Counter[Hashable] = Counter()

    def acquire(self, path: Path) -> Weights:
        """Return the weights of `path`; the first user loads them."""
        key = _key(path)
        if key not in self._loaded:
            max_memory_bytes()  # report a wrong setting before a long load
            self._loaded[key] = Weights(path)
            self._loaded[key].key = key
        self._users[key] += 1
        weights = self._loaded[key]
        self.touch(weights)
        return weights

    def touch(self, weights: Weights) -> None:
        """Mark `weights` as used now, and free others while memory is above its bound."""
        self._loaded[weights.key] = self._loaded.pop(weights.key)
        bound = max_memory_bytes()
        for other in list(self._loaded.values())[:-1]:
            if self.memory <= bound:
                return
            if not other.active_requests:
                _log.info("unloading %s: the models use %d MiB", other.path, self.memory // _MIB)
                self._loaded.pop(other.key).close()

    def release(self, weights: Weights) -> None:
        """Return `weights`; the last user's release frees them."""
        key = weights.key
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key]
            if key in self._loaded:
                self._loaded.pop(key).close()

    def start_over(self) -> None:
        """Keep the files, in a forked child; whoever used one there must acquire it again."""
        self._users.clear()
        for weights in self._loaded.values():
            weights.start_over()

    @property
    def memory(self) -> int:
        """Bytes that the loaded files use."""
        return sum(weights.memory for weights in self._loaded.values())

    def close(self) -> None:
        """Free everything."""
        for weights in self._loaded.values():
            weights.close()
        self._loaded.clear()
        self._users.clear()

    def __len__(self) -> int:
        return len(self._loaded)
