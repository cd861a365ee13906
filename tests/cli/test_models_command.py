"""`cascade models`: what is listed, what is loaded, and what is told where a file is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from gguf_maker import make_adapter, make_gguf
from loopback import Answer, Loopback, Seen, chat, status
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
    broken = data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_w.weight", 1)  # llama.cpp misses a tensor
    assert broken != data
    (graph.parent / "expert.gguf").write_bytes(broken)
    done = CliRunner().invoke(app, ["models", "warm", str(graph)])
    assert isinstance(done.exception, ConfigError)
    assert "model 'expert'" in str(done.exception)
    assert "tiny: writer: first call" in done.output


def endpoint_graph(folder: Path, url: str, **settings: object) -> Path:
    model = {"kind": "openai", "model": "m", "url": url, "key_env": None, "max_retries": 0, **settings}
    models = {
        "far": {**model, "price": {"input": 1, "output": 1}},
        "told": {"kind": "scripted", "default": "x"},
    }
    path = folder / "far.yaml"
    stages = [{"name": "only", "ask": ["far"]}, {"name": "last", "ask": ["told"]}]
    path.write_text(yaml.safe_dump({"name": "far", "models": models, "stages": stages}))
    return path


def test_probe_says_what_an_endpoint_refuses_and_what_to_write(tmp_path: Path) -> None:
    def answer(seen: Seen) -> Answer:
        bad = [name for name in ("seed", "stream_options") if name in seen.json]
        return status(422, f"unknown fields: {', '.join(bad)}") if bad else chat("yes")

    with Loopback() as server:
        server.answers = [answer]
        done = CliRunner().invoke(app, ["models", "probe", str(endpoint_graph(tmp_path, server.url))])
        asked = len(server.requests)
    assert done.exit_code == 0, done.output
    assert asked == 4  # whole and streamed, each once refused
    lines = done.output.splitlines()
    assert "whole: ended by stop, 11 + 3 tokens, log-probabilities missing, refuses seed" in lines[0]
    assert lines[2].endswith("write omit: [seed, stream_options]")
    assert lines[3].endswith("write logprobs: false")
    with Loopback() as server:
        server.answers = [chat("yes", logprobs=[("yes", -0.1)], usage=None, finish_reason="eos")]
        path = endpoint_graph(tmp_path, server.url, omit=["seed"])
        done = CliRunner().invoke(app, ["models", "probe", str(path)])
    assert "ended by eos, usage missing, 1 log-probabilities" in done.output
    assert "write" not in done.output


def test_probe_fails_with_the_words_of_an_endpoint_that_does_not_answer(tmp_path: Path) -> None:
    with Loopback() as server:
        server.answers = [status(401, "no such key")]
        done = CliRunner().invoke(app, ["models", "probe", str(endpoint_graph(tmp_path, server.url))])
    assert isinstance(done.exception, ConfigError)
    assert "answered 401 (no such key)" in str(done.exception)
