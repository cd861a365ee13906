"""The keys of sampling, grammars, examples and adapters: checked with the graph, part of a fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_maker import CHATML, make_adapter, make_gguf
from pydantic import ValidationError
from scripting import scripted, write

from cascade.config.load import load_graph
from cascade.config.references import fingerprint
from cascade.errors import ConfigError
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.openai import OpenAISettings

EXAMPLES = {"examples": {"a": ["x"], "b": ["y"]}}
TASKS = {"pets": ["cat", "dog"]}
LABELS = ["yes", "no"]
GRAMMAR = "root ::= [a-z]+"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    make_gguf(tmp_path / "expert.gguf", tasks=TASKS)
    make_gguf(tmp_path / "plain.gguf")
    make_gguf(tmp_path / "chat.gguf", chat_template=CHATML)
    make_adapter(tmp_path / "lora.gguf")
    make_adapter(tmp_path / "wide.gguf", width=128)
    factors = {f"blk.7.attn_q.weight.lora_{side}": np.zeros((64, 64), np.float32) for side in "ab"}
    make_adapter(tmp_path / "deep.gguf", tensors=factors)
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "lora.gguf").read_bytes()[:50])
    (tmp_path / "good.gbnf").write_text(GRAMMAR)
    (tmp_path / "bad.gbnf").write_text("root ::= root")
    (tmp_path / "good.json").write_text('{"type": "integer"}')
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "binary.gbnf").write_bytes(b"\xff\xfe")
    (tmp_path / "large.gbnf").write_bytes(b"#" * 300_000)
    return tmp_path


def local(path: str = "plain.gguf", **settings: Any) -> LlamaCppSettings:
    return LlamaCppSettings.model_validate({"kind": "llamacpp", "path": path} | settings)


def problems(base: Path, model: dict[str, Any], confidence: dict[str, Any] | None = None) -> list[str]:
    stage = {"name": "first", "ask": ["nano"]} | (
        {"confidence": confidence, "accept": 0.6} if confidence else {}
    )
    path = write(base, {"nano": {"kind": "llamacpp", "path": "plain.gguf"} | model}, [stage])
    try:
        load_graph(path)
    except ConfigError as error:
        return [problem.split(": ", 1)[1] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "model",
    [
        {"grammar": "good.gbnf"},
        {"grammar": GRAMMAR},
        {"output_schema": "good.json", "lora": "lora.gguf", "stop": ["."], "top_p": 0.9, "min_p": 0.1},
        {"output_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        {"examples": {"a": ["x"], "b": ["y", "z"]}},
        {"labels": LABELS, "label_scoring": "top1"},
        {"prefix_dir": "made/when/needed"},
        {"path": "chat.gguf", "system": "Be brief."},
        {"path": "hf:someone/something/m.gguf", "lora": "wide.gguf"},
    ],
)
def test_good_settings_have_no_problems(base: Path, model: dict[str, Any]) -> None:
    assert problems(base, model) == []


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (
            {"grammar": "none.gbnf"},
            "grammar: grammar 'none.gbnf' does not exist; files there: bad.gbnf",
        ),
        ({"grammar": "bad.gbnf"}, "models.nano.grammar: grammar never ends"),
        ({"grammar": "root ::= ("}, "models.nano.grammar: grammar is not valid in line 1"),
        ({"grammar": "binary.gbnf"}, "models.nano.grammar: grammar 'binary.gbnf' cannot be read"),
        ({"grammar": "large.gbnf"}, "has 300000 bytes; at most 262144 are taken"),
        ({"output_schema": "bad.json"}, "models.nano.output_schema: JSON Schema 'bad.json' is not JSON"),
        ({"output_schema": {"pattern": "a"}}, "models.nano.output_schema: output schema #: 'pattern' is not"),
        ({"output_schema": {}, "grammar": GRAMMAR}, "'grammar' and 'output_schema' exclude each other"),
        ({"labels": LABELS, "grammar": GRAMMAR}, "'grammar' cannot stand here: the model only chooses among"),
        ({"labels": LABELS, "output_schema": {}}, "'output_schema' cannot stand here"),
        (
            {"path": "expert.gguf"} | EXAMPLES,
            "'examples' cannot stand here: an expert's",
        ),
        (
            {"labels": LABELS} | EXAMPLES,
            "'examples' and 'labels' exclude each other",
        ),
        ({"examples": {"a": ["x"], "b": ["y", " "]}}, "examples.b.1: example ' ' is blank; give a text"),
        ({"system": "Be brief."}, "system: 'plain.gguf' has no chat template for a system message; put that"),
        ({"system": "Be brief."} | EXAMPLES, "'system' has no effect beside 'examples'"),
        ({"examples": {"a": ["x"]}}, "1 labels; give at least two answers"),
        (
            {"lora": "lora.gguf"} | EXAMPLES,
            "'lora' cannot stand beside 'examples'",
        ),
        (
            {"lora": "none.gguf"},
            "lora: adapter 'none.gguf' does not exist; files there: chat",
        ),
        ({"lora": "plain.gguf"}, "plain.gguf: general.type is None; expected 'adapter'; give a LoRA of this"),
        ({"lora": "text.gguf"}, "text.gguf: not a GGUF file that can be read: it starts with b'hell' where"),
        ({"lora": "cut.gguf"}, "cut.gguf: not a GGUF file that can be read: it ends too early; copy or"),
        (
            {"lora": "wide.gguf"},
            "'blk.0.attn_q.weight' of sizes (128, 128); plain.gguf has (64, 64); give an",
        ),
        ({"lora": "deep.gguf"}, "it changes 'blk.7.attn_q.weight', which plain.gguf does not have; give an"),
        ({"prefix_dir": "good.json"}, "prefix_dir: 'good.json' is not a folder; give one"),
        ({"prefix_dir": "x", "reproducible": True}, "'prefix_dir' has no effect beside 'reproducible'"),
        ({"prefix_dir": "x", "prompt_statistics": True}, "has no effect beside 'prompt_statistics'"),
        ({"path": "expert.gguf", "task": "pets", "prefix_dir": "x"}, "has no effect beside 'task'"),
        ({"prefix_dir": "x"} | EXAMPLES, "has no effect beside 'examples'"),
    ],
)
def test_bad_settings_are_named_with_a_fix(base: Path, model: dict[str, Any], problem: str) -> None:
    found = problems(base, model)
    assert any(problem in one for one in found), found


@pytest.mark.parametrize(("signal", "fits"), [("top1", True), ("margin", False), ("entropy", False)])
def test_top1_scoring_gives_the_top1_signal_only(base: Path, signal: str, fits: bool) -> None:
    model = {"labels": LABELS, "label_scoring": "top1"}
    found = problems(base, model, {"by": "labels", "signal": signal})
    assert (found == []) == fits
    assert fits or "has 'label_scoring: top1', which finds the best label only; use exact" in found[0]


def test_a_gate_needs_the_whole_distribution(base: Path) -> None:
    gate = {"by": "classifier", "model": "nano", "to": {"yes": "first", "no": "last"}}
    models = {
        "nano": {"kind": "llamacpp", "path": "plain.gguf", "labels": LABELS, "label_scoring": "top1"},
        "one": scripted("1"),
    }
    stages = [
        {"name": "door", "gate": gate},
        {"name": "first", "ask": ["one"], "escalate": "end"},
        {"name": "last", "ask": ["one"]},
    ]
    with pytest.raises(ConfigError, match="finds the best label only; use exact"):
        load_graph(write(base, models, stages))


@pytest.mark.parametrize(
    "settings",
    [
        {"top_p": 0}, {"top_p": 1.1}, {"min_p": 1}, {"min_p": -0.1}, {"stop": [""]}, {"stop": ["a"] * 17},
        {"examples": {"a": []}}, {"label_scoring": "fast"}, {"example_temperature": 0},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        local(**settings)


def test_a_fingerprint_holds_what_decides_and_is_unchanged_by_defaults(base: Path) -> None:
    kinds = [
        local(),
        local(top_p=0.5),
        local(min_p=0.5),
        local(stop=["."]),
        local(stop=[","]),
        local(grammar=GRAMMAR + " [0-9]"),
        local(grammar="good.gbnf"),
        local(output_schema={"type": "integer"}),
        local(output_schema="good.json"),
        local(lora="lora.gguf"),
        local(labels=LABELS),
        local(labels=LABELS, label_scoring="top1"),
        local(examples={"a": ["x"], "b": ["y"]}),
        local(examples={"a": ["x"], "b": ["z"]}),
        OpenAISettings(kind="openai", model="a"),
        OpenAISettings(kind="openai", model="a", stop=["."]),
        OpenAISettings(kind="openai", model="a", top_p=0.5),
    ]
    before = [fingerprint(kind, base) for kind in kinds]
    assert len(set(before)) == len(kinds)
    (base / "good.gbnf").write_text(GRAMMAR + " ")
    (base / "good.json").write_text('{"type": "number"}')
    make_adapter(base / "lora.gguf", seed=1)
    changed = [kind for kind, old in zip(kinds, before, strict=True) if fingerprint(kind, base) != old]
    assert changed == [kinds[6], kinds[8], kinds[9]]
    assert fingerprint(local(top_p=1.0, stop=[], label_scoring="exact"), base) == before[0]


def test_a_schema_is_a_grammar_and_examples_are_labels(base: Path) -> None:
    assert local().resolve(base).grammar is None
    assert local(grammar="good.gbnf").resolve(base).grammar == GRAMMAR
    inline = local(output_schema=json.loads('{"type": "integer"}')).resolve(base).grammar
    assert inline == local(output_schema="good.json").resolve(base).grammar
    assert local(examples={"b": ["x"], "a": ["y"]}).resolve(base).labels == ("b", "a")
