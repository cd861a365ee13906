"""A model in several GGUF files is one model: downloaded, checked, hashed, loaded and isolated as a whole."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from gguf_maker import make_adapter, make_gguf

from cascade.config.load import load_graph
from cascade.config.references import fingerprint, local_model_path
from cascade.errors import ConfigError, ModelError
from cascade.formats.gguf import read_header
from cascade.formats.gguf_header import check_file
from cascade.formats.gguf_parts import file_bytes, model_files, part_names
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings

GRAPH = "name: g\nmodels:\n  m: {{kind: llamacpp, path: {path}, n_ctx: 256, max_tokens: 4{more}}}\n"
STAGES = "stages:\n  - {name: only, ask: [m]}\n"


def split(folder: Path, parts: int = 3) -> Path:
    return make_gguf(folder / "m.gguf", says="It is split.", parts=parts)


def settings(path: Path, **more: object) -> LlamaCppSettings:
    return LlamaCppSettings.model_validate(
        {"kind": "llamacpp", "path": path.name, "n_ctx": 256, "max_tokens": 8, **more}
    )


@pytest.mark.parametrize("isolate", ["none", "process"])
@pytest.mark.parametrize("linked", [False, True])
async def test_all_parts_answer_as_one_model(tmp_path: Path, isolate: str, linked: bool) -> None:
    first = split(tmp_path)
    if linked:  # as the hub's cache keeps them: links to files that are named after their hashes
        (tmp_path / "cache").mkdir()
        for number, file in enumerate(model_files(first)):
            (tmp_path / "cache" / file.name).symlink_to(file.rename(tmp_path / f"blob{number}"))
        first = tmp_path / "cache" / first.name
    model = build_model("m", settings(first, isolate=isolate, prefix_dir="kept"), first.parent)
    assert (await model.ask(Prompt("hello"))).text == "It is split."
    await model.aclose()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_part_counts(tmp_path: Path, part: int) -> None:
    first = split(tmp_path)
    config = settings(first)
    before, size = fingerprint(config, tmp_path), file_bytes(first)
    file = model_files(first)[part]
    assert size == sum(each.stat().st_size for each in model_files(first)) > file.stat().st_size
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    assert fingerprint(config, tmp_path) != before
    file.write_bytes(data[:-200])
    with pytest.raises(ModelError, match=rf"{file.name}: it is cut off"):
        check_file(first)
    file.unlink()
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH.format(path=first.name, more="") + STAGES)
    with pytest.raises(ConfigError, match=file.name):
        load_graph(path)


def test_a_whole_file_may_be_named_like_a_part(tmp_path: Path) -> None:
    whole = make_gguf(tmp_path / "m.gguf").rename(tmp_path / "m-00001-of-00002.gguf")
    assert model_files(whole) == (whole,)
    assert local_model_path(whole.name, tmp_path) == whole


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("m.gguf", ["m.gguf"]),
        ("m-00001-of-00001.gguf", ["m-00001-of-00001.gguf"]),
        ("m-00001-of-00002.gguf", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]),
        ("q4/m-00001-of-00002.gguf", ["q4/m-00001-of-00002.gguf", "q4/m-00002-of-00002.gguf"]),
    ],
)
def test_the_parts_of_a_name(name: str, names: list[str]) -> None:
    assert list(part_names(name)) == names


@pytest.mark.parametrize("path", ["m-00002-of-00003.gguf", "hf:a/b/m-00003-of-00003.gguf"])
def test_a_later_part_names_the_first(tmp_path: Path, path: str) -> None:
    split(tmp_path)
    with pytest.raises(
        ConfigError, match=r"is part \d of 3; name the first part, '.*m-00001-of-00003\.gguf'"
    ):
        local_model_path(path, tmp_path)


def test_a_file_cut_anywhere_in_its_weights_is_refused_by_check(tmp_path: Path) -> None:
    whole = make_gguf(tmp_path / "m.gguf", layers=1, width=32)
    adapter = make_adapter(tmp_path / "a.gguf", width=32)
    graph = tmp_path / "g.yaml"
    graph.write_text(GRAPH.format(path="m.gguf", more=", lora: a.gguf") + STAGES)
    load_graph(graph)
    draw = random.Random(0)
    for file in (whole, adapter):
        data, header = file.read_bytes(), read_header(file)
        assert header.data < header.data + header.data_bytes <= len(data)
        for _ in range(8):
            end = draw.randrange(header.data, header.data + header.data_bytes)
            file.write_bytes(data[:end])
            with pytest.raises(ConfigError, match=rf"{file.name}: it is cut off: it has {end} bytes"):
                load_graph(graph)
        file.write_bytes(data)
    load_graph(graph)
