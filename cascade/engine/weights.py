"""A loaded GGUF file: its vocabulary, metadata and contexts. Used on the decode thread only."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.config.gguf import read_metadata
from cascade.engine.binding import api, first_error, forget_errors
from cascade.engine.context import Context, Shape
from cascade.errors import ConfigError, ModelError

IntArray = npt.NDArray[np.int32]

# No tokenizer has pieces this long on average, so a longer text cannot fit. Checked first because
# llama.cpp's regular expressions recurse per character and its SPM tokenizer is quadratic.
MAX_BYTES_PER_TOKEN = 16
_SPM = 1
_TOKENS = "tokenizer.ggml.tokens"


class Weights:
    """The weights of one GGUF file, with everything llama.cpp knows about it.

    Attributes:
        path: the file.
        size: bytes of all tensors.
        n_vocab: number of tokens in the vocabulary.
        n_ctx_train: longest context, in tokens, that the model was made for.
        causal: False for encoder-like models, which must see a prompt at once.
        branching: whether one prompt can be continued in several ways at once.
        spaced: whether the tokenizer puts a space before every text itself.
    """

    def __init__(self, path: Path) -> None:
        """Load `path`.

        Raises:
            ModelError: the file is missing, broken, or of a kind that cannot be decoded.
        """
        self.path = path
        check_file(path)
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        # Read, not mapped: a mapped file that is overwritten later kills the process with SIGBUS.
        params.load_mode = api.LLAMA_LOAD_MODE_NONE
        params.check_tensors = True  # else broken weights load and answer NaN
        forget_errors()
        self._model = api.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelError(f"llama.cpp cannot load it: {first_error()}; download or export it again")
        self._contexts: dict[Shape, Context] = {}
        self._vocab = api.llama_model_get_vocab(self._model)
        self.size = int(api.llama_model_size(self._model))
        self.n_vocab = int(api.llama_vocab_n_tokens(self._vocab))
        self.n_ctx_train = int(api.llama_model_n_ctx_train(self._model))
        architecture = self.metadata("general.architecture")
        self.causal = self.metadata(f"{architecture}.attention.causal") != "false"
        self.branching = not (
            api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)
        )
        self.spaced = api.llama_vocab_type(self._vocab) == _SPM
        if api.llama_model_has_encoder(self._model) or not self.n_vocab:
            self.close()
            raise ModelError(f"architecture {architecture!r} is not a decoder; use a text-generation GGUF")

    def metadata(self, key: str) -> str | None:
        """Return a metadata value as text; None if the file has no such key."""
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

    def special(self, which: str) -> tuple[int, str]:
        """Return (id, text) of the `bos`, `eos` or `eot` token; (-1, "") if the vocabulary has none."""
        token = int(getattr(api, f"llama_vocab_{which}")(self._vocab))
        return (token, self.piece(token, special=True).decode(errors="replace")) if token >= 0 else (-1, "")

    def tokenize(self, text: str, limit: int, *, begin: bool = False, special: bool = False) -> IntArray:
        """Return the tokens of `text`, shape (tokens,).

        Args:
            text: any valid Unicode.
            limit: tokens that the caller can use; much longer texts are refused before tokenizing.
            begin: add the begin-of-text token if the model wants one.
            special: read control tokens such as `<|im_end|>` in `text` as tokens, not as characters.

        Raises:
            ModelError: the text is not valid Unicode, or surely longer than `limit` tokens.
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
        out = np.empty(len(data) + 16, np.int32)
        address = out.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = api.llama_tokenize(self._vocab, data, len(data), address, len(out), begin, special)
        if count < 0:
            raise ModelError(f"llama.cpp cannot tokenize a text of {len(data)} bytes (code {count})")
        return out[:count].copy()

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of one token; empty for a control token unless `special`."""
        buffer = ctypes.create_string_buffer(64)
        count = api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = api.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(0, count)]

    def ends(self, token: int) -> bool:
        """Whether `token` ends a generation."""
        return bool(api.llama_vocab_is_eog(self._vocab, token))

    def context(self, shape: Shape) -> Context:
        """Return this file's context of that shape; it is made once and reused."""
        if shape not in self._contexts:
            self._contexts[shape] = Context(self._model, self.n_vocab, self.causal, shape)
        return self._contexts[shape]

    def close(self) -> None:
        """Free the contexts, then the weights (the other order crashes)."""
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        if self._model:
            api.llama_model_free(self._model)
            self._model = None


class Library:
    """The loaded files of this process, each once, counted by users."""

    def __init__(self) -> None:
        self._loaded: dict[Path, Weights] = {}
        self._users: Counter[Path] = Counter()

    def acquire(self, path: Path) -> Weights:
        """Return the weights of `path`, loading them for the first user."""
        if path not in self._loaded:
            self._loaded[path] = Weights(path)
        self._users[path] += 1
        return self._loaded[path]

    def release(self, weights: Weights) -> None:
        """Give `weights` back; the last user's release frees them."""
        self._users[weights.path] -= 1
        if self._users[weights.path] <= 0:
            del self._users[weights.path]
            self._loaded.pop(weights.path).close()

    def close(self) -> None:
        """Free everything."""
        for weights in self._loaded.values():
            weights.close()
        self._loaded.clear()
        self._users.clear()

    def __len__(self) -> int:
        return len(self._loaded)


def check_file(path: Path) -> None:
    """Refuse what makes llama.cpp abort the process or fail without a reason.

    Raises:
        ModelError: `path` is missing, not a GGUF file, cut off in its header, or its vocabulary repeats a
            token (llama.cpp asserts that none does).
    """
    if not path.is_file():
        raise ModelError("there is no such file; check the model's path")
    try:
        tokens: Any = read_metadata(path, (_TOKENS,)).get(_TOKENS)
    except ConfigError as error:
        raise ModelError(f"{error}; download or export it again") from error
    if not isinstance(tokens, list) or not tokens:
        raise ModelError(f"its metadata has no {_TOKENS!r}; use a text-generation GGUF")
    token, times = Counter(map(str, tokens)).most_common(1)[0]
    if times > 1:
        raise ModelError(
            f"its vocabulary has {token!r} {times} times; the file is corrupt, download it again"
        )
