"""Files that llama.cpp would abort the process on are refused before it sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
from gguf_maker import make_gguf, tiny_network

from cascade.config.references import bundled_names, bundled_path
from cascade.errors import ModelError
from cascade.formats.gguf_header import check_file

WRONG: list[tuple[str, Any, str]] = [
    ("block_count", 0, "0; expected 1 to 512"),
    ("block_count", 513, "513; expected 1 to 512"),
    ("block_count", 2**32 - 1, "4294967295; expected 1 to 512"),
    ("context_length", 0, "0; expected 1 to 2147483647"),
    ("context_length", 2**31, "2147483648; expected 1 to 2147483647"),
    ("expert_count", 1025, "1025; expected 0 to 1024"),
    ("expert_used_count", 1, "1; expected 0 to 0"),
    ("nextn_predict_layers", 3, "3; expected 0 to 2"),
    ("attention.head_count_kv", 2**30 + 2, "1073741826; expected 0 to 65536"),
    ("attention.head_count_kv", [2, 2**30 + 2], "1073741826; expected 0 to 65536"),
    ("attention.head_count", "two", "'two'; expected 0 to 65536"),
    ("rope.scaling.type", "spiral", "'spiral'; expected one of none, linear, yarn, longrope"),
    ("attention.layer_norm_rms_epsilon", float("nan"), "nan; expected a number from 0 on"),
    ("attention.layer_norm_rms_epsilon", -1e-30, "-.*; expected a number from 0 on"),
    ("attention.group_norm_epsilon", -float("inf"), "-inf; expected a number from 0 on"),
    ("expert_group_count", 1, "1; expected less than the 0 experts"),
]


def changed(path: Path, key: str, value: Any) -> Path:
    """Rewrite a whole model with one metadata value added or replaced."""
    reader = gguf.GGUFReader(make_gguf(path.with_suffix(".good")))
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", f"llama.{key}"):
            sub = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub)
    if isinstance(value, list):
        writer.add_array(f"llama.{key}", value)
    else:
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(f"llama.{key}", value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_an_impossible_number_is_refused_by_name(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    with pytest.raises(ModelError, match=f"its metadata 'llama.{key}' is {expected}; download"):
        check_file(changed(tmp_path / "m.gguf", key, value))


LOAD = """
import sys
from cascade.engine.binding import api
model = api.llama_model_load_from_file(sys.argv[1].encode(), api.llama_model_default_params())
api.llama_init_from_model(model, api.llama_context_default_params())
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 0),
        ("block_count", 513),
        ("expert_count", 1025),
        ("expert_used_count", 1),
        ("nextn_predict_layers", 3),
        ("attention.head_count_kv", 2**30 + 2),
        ("rope.scaling.type", "spiral"),
        ("expert_count", 1),  # of which none is used
        ("expert_group_count", 1),
    ],
)
def test_llama_cpp_aborts_on_it(tmp_path: Path, key: str, value: Any) -> None:
    path = changed(tmp_path / "m.gguf", key, value)
    done = subprocess.run([sys.executable, "-c", LOAD, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -6, done.stderr  # SIGABRT: when this fails, the check is no longer needed


@pytest.mark.parametrize(
    ("key", "value"),
    [("attention.head_count_kv", [2, 2]), ("rope.scaling.type", "linear"), ("expert_count", 0)],
)
def test_a_possible_number_passes(tmp_path: Path, key: str, value: Any) -> None:
    check_file(changed(tmp_path / "m.gguf", key, value))


def test_every_bundled_expert_passes() -> None:
    for name in bundled_names():
        check_file(bundled_path(name))


@pytest.mark.parametrize(
    ("model", "token", "message"),
    [
        ("bert", "<0x00>", "a byte; export"),
        ("gpt2", "x", "a byte; export"),
        ("llama", None, "no token for"),
    ],
)
def test_tokens_of_bytes_that_cannot_be_written_are_refused(
    tmp_path: Path, model: str, token: str | None, message: str
) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(["a", "b", *([token] if token else [])])
    writer.add_token_types([1, 1, *([6] if token else [])])
    tiny_network(writer, 3)
    with pytest.raises(ModelError, match=message):
        check_file(tmp_path / "m.gguf")
