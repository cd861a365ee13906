"""Rejects GGUF files whose metadata would make llama.cpp abort the process or fail without a reason.

The checks mirror the assertions of its `load_hparams`, its vocabulary and ggml's operators. They may not be
complete: for a file of unknown origin, `isolate: process` contains the rest. A fuzzer looks for more
(`tests/fuzz/test_gguf_headers.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from cascade.errors import ConfigError, ModelError
from cascade.formats.gguf import Header, read_header
from cascade.formats.gguf_parts import model_files

_ARCHITECTURE = "general.architecture"
_TOKENS = "tokenizer.ggml.tokens"
_TYPES = "tokenizer.ggml.token_type"
_MODEL = "tokenizer.ggml.model"
_RANGES = {
    "block_count": (1, 512),  # LLAMA_MAX_LAYERS
    "context_length": (1, 2**31 - 1),  # else read as a negative number
    "expert_count": (0, 1024),  # LLAMA_MAX_EXPERTS
    "attention.head_count": (0, 2**16),  # beyond that, sizes overflow and pass the shape checks
    "attention.head_count_kv": (0, 2**16),
}
_AT_MOST = {"expert_used_count": "expert_count", "nextn_predict_layers": "block_count"}
_GROUPS, _GROUPS_USED = "expert_group_count", "expert_group_used_count"
_EPSILON = re.compile(r"(^|[._])(eps|epsilon)$")
_SCALING = "rope.scaling.type"
_SCALINGS = ("none", "linear", "yarn", "longrope")
_SPLIT_NUMBER, _UINT16 = "split.no", 2
_BYTE_TYPE, _BYTE = 6, re.compile("<0x[0-9A-Fa-f]{2}>")
_UNKNOWN_ID = "tokenizer.ggml.unknown_token_id"
_ESCAPED_BYTE = re.compile(r"\\x([0-9A-Fa-f]{2})")
_OWN_BYTES = ("rwkv", "plamo2")  # tokenizers that read them in another way


def check_file(path: Path) -> None:
    """Reject a model on which an assertion of llama.cpp would fail.

    Raises:
        ModelError: `path` is missing, is not a GGUF file, or ends before its last tensor, or one of its parts
            does; its vocabulary repeats a token; or a number of its layers, heads, experts, tokens or norms
            is impossible.
    """
    if not path.is_file():
        raise ModelError("there is no such file; check the model's path")
    try:
        first, *others = model_files(path)
        header = read_header(first, _is_read)
        check_size(first, header)
        for part in others:
            _check_part(part)
    except ConfigError as error:
        advice = "" if str(error).endswith("again") else "; download or export it again"
        raise ModelError(f"{error}{advice}") from error
    values = header.values
    _check_tokens(values.get(_TOKENS))
    _check_bytes(values)
    _check_unknown(values)
    prefix = f"{values.get(_ARCHITECTURE)}."
    own = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    _check_numbers(own, prefix)
    _check_experts(own, prefix)
    _check_norms(own, prefix)


def check_size(path: Path, header: Header | None = None) -> None:
    """Reject a file that ends before its last tensor does.

    Raises:
        ConfigError: it does, or is not a GGUF file.
    """
    header = read_header(path) if header is None else header
    needed = header.data + header.data_bytes
    if header.tensors and needed > header.size:
        raise ConfigError(
            f"{path}: it is cut off: it has {header.size} bytes and its tensors end at {needed}"
        )


def _is_read(key: str) -> bool:
    """Return whether an array is looked at: the vocabulary, and what may be one number a layer."""
    return key in (_TOKENS, _TYPES) or key.endswith(tuple(f".{name}" for name in (*_RANGES, *_AT_MOST)))


def _check_part(path: Path) -> None:
    header = read_header(path)
    check_size(path, header)
    if header.kinds.get(_SPLIT_NUMBER, _UINT16) != _UINT16:
        raise ConfigError(f"{path}: {_SPLIT_NUMBER!r} is not a 16-bit number")


def _check_tokens(tokens: Any) -> None:
    if not isinstance(tokens, list) or not tokens:
        raise ModelError(f"its metadata has no {_TOKENS!r}; use a text-generation GGUF")
    token, times = Counter(map(str, tokens)).most_common(1)[0]
    if times > 1:
        raise ModelError(
            f"its vocabulary has {token!r} {times} times; the file is corrupt, download it again"
        )


def _check_unknown(values: Mapping[str, Any]) -> None:
    """Check an RWKV vocabulary: llama.cpp looks up the token of what is unknown unchecked."""
    tokens, unknown = values[_TOKENS], values.get(_UNKNOWN_ID)
    if values.get(_MODEL) != "rwkv" or (isinstance(unknown, int) and 0 <= unknown < len(tokens)):
        return
    missing = set(range(256)) - set(map(_rwkv_byte, tokens))
    if missing:
        raise ModelError(
            f"its RWKV vocabulary has no token for the byte 0x{min(missing):02X}, and no {_UNKNOWN_ID!r}; "
            "export it again"
        )


def _rwkv_byte(token: str) -> int | None:
    """Return the byte that a token of an RWKV vocabulary is, if it is one; it is written escaped."""
    if match := _ESCAPED_BYTE.fullmatch(token):
        return int(match[1], 16)
    plain = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}.get(token, token)
    return ord(plain) if len(plain) == 1 and ord(plain) < 128 else None


def _check_bytes(values: Mapping[str, Any]) -> None:
    """Check the tokens of single bytes.

    A SentencePiece vocabulary needs one for each byte, since unknown characters fall back to them. Where such
    a token is written, its text is read as `<0x..>`; a WordPiece vocabulary can have none.
    """
    model, tokens, types = values.get(_MODEL), values[_TOKENS], values.get(_TYPES) or ()
    known = set(tokens)
    for byte in range(256 if model == "llama" else 0):
        if f"<0x{byte:02X}>" not in known and bytes([byte]).decode(errors="surrogateescape") not in known:
            raise ModelError(f"its vocabulary has no token for the byte 0x{byte:02X}; export it again")
    if model in _OWN_BYTES:
        return
    for token, kind in zip(tokens, types, strict=False):
        if kind == _BYTE_TYPE and (model == "bert" or not _BYTE.fullmatch(token)):
            raise ModelError(f"its vocabulary calls {token!r:.40} a byte; export it again")


def _check_numbers(metadata: Mapping[str, Any], prefix: str) -> None:
    bounds: dict[str, tuple[float, float]] = dict(_RANGES)
    for key, other in _AT_MOST.items():
        maximum = metadata.get(other, 0)
        bounds[key] = (0, maximum if isinstance(maximum, int) else inf)
    if prefix.startswith("hunyuan"):  # llama.cpp reads one expert as none there
        del bounds["expert_used_count"]
    for key in bounds.keys() & metadata.keys():
        minimum, maximum = bounds[key]
        for value in _each(metadata[key]):
            if not isinstance(value, int) or not minimum <= value <= maximum:
                raise _impossible(prefix + key, value, f"{minimum} to {maximum}")
    scaling = metadata.get(_SCALING, "none")
    if scaling not in _SCALINGS:
        raise _impossible(prefix + _SCALING, scaling, f"one of {', '.join(_SCALINGS)}")


def _check_experts(metadata: Mapping[str, Any], prefix: str) -> None:
    """Experts are used where there are any, and in groups of equal size."""
    experts, groups = metadata.get("expert_count", 0), metadata.get(_GROUPS, 0)
    if not isinstance(experts, int) or not isinstance(groups, int):
        return  # llama.cpp refuses that itself
    if prefix.startswith("hunyuan") and experts <= 1:
        experts = 0
    used = [value for value in _each(metadata.get("expert_used_count", 0)) if isinstance(value, int)]
    if experts and not any(used):
        raise _impossible(f"{prefix}expert_used_count", max(used, default=0), f"1 to {experts}")
    if groups and not groups < experts:
        raise _impossible(prefix + _GROUPS, groups, f"less than the {experts} experts")
    in_use = metadata.get(_GROUPS_USED, 0)
    if groups > 1 and (experts % groups or not isinstance(in_use, int) or not 0 < in_use < groups):
        raise _impossible(prefix + _GROUPS, groups, "groups of equal size, of which some are used")


def _check_norms(metadata: Mapping[str, Any], prefix: str) -> None:
    """ggml asserts that the epsilon of a norm is not negative, which NaN fails too."""
    for key, value in metadata.items():
        if _EPSILON.search(key) and isinstance(value, float) and not value >= 0:  # NaN is neither
            raise _impossible(prefix + key, value, "a number from 0 on")


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]  # a list is one a layer


def _impossible(key: str, value: object, expected: str) -> ModelError:
    return ModelError(
        f"its metadata {key!r} is {value!r:.60}; expected {expected}; download or export it again"
    )
