"""`cascade models`: what is listed, what is loaded, and what is told where a file is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from gguf_maker import make_adapter, make_gguf
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.errors import ConfigError

GRAPH = {
    "name": "tiny",
    "models": {
        "expert": {"kind": "llamacpp", "path": "expert.gguf", "task": "colours"},
        "writer": {"kind": "llamacpp", "path": "writer.gguf", "n_ctx": 256},
        "told": {"kind": "scripted", "default": "x"},
    },
    "stages": [
        {"name": "first", "ask": ["expert"], "confidence": {"by": "labels"}, "accept": 0.6},
        {"name": "second", "ask": ["writer"], "confidence": {"by": "logprob"}, "accept": 0.6},
        {"name": "third", "ask": ["told"]},
    ],
}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    make_gguf(tmp_path / "expert.gguf", tasks={"colours": ["red", "green"]})
    make_gguf(tmp_path / "writer.gguf", seed=1)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(GRAPH))
    return path


def test_list_names_the_local_models_with_their_files(graph: Path) -> None:
    done = CliRunner().invoke(app, ["models", "list", str(graph)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("tiny: expert: expert.gguf, 0.")
    assert lines[0].endswith(" MiB")


def test_list_names_adapters(graph: Path) -> None:
    make_adapter(graph.parent / "tone.gguf")
    graph.write_text(graph.read_text().replace("path: writer.gguf", "path: writer.gguf\n    lora: tone.gguf"))
    done = CliRunner().invoke(app, ["models", "list", str(graph)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1].endswith(" MiB, adapter tone.gguf")


def test_warm_loads_and_asks_every_local_model(graph: Path) -> None:
    done = CliRunner().invoke(app, ["models", "warm", str(graph)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["expert", "writer"]
    assert all("first call" in line and "MiB" in line for line in lines)


def test_warm_tells_of_a_broken_file_after_the_others(graph: Path) -> None:
    data = (graph.parent / "expert.gguf").read_bytes()
    (graph.parent / "expert.gguf").write_bytes(data[: len(data) // 2])
    done = CliRunner().invoke(app, ["models", "warm", str(graph)])
    assert isinstance(done.exception, ConfigError)
    assert "model 'expert'" in str(done.exception)
    assert "tiny: writer: first call" in done.output
