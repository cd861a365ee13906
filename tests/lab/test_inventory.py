"""`cascade experts`: what is in reach, from real files, graphs and stored runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import typer
from scripting import REMOTE, scripted, write
from typer.testing import CliRunner

from cascade import Cascade, lab
from cascade.cli.experts import app
from cascade.errors import RequestError
from cascade.lab.inventory.experts import BUNDLED, CardFigures, ExpertReport, Inventory, _evaluation
from cascade.trace import TraceStore

main = typer.Typer()
main.add_typer(app, name="experts")
EASY = ["Please freeze my debit card account right away", "What's my current account balance?"]


def found(inventory: Inventory, name: str, task: str) -> ExpertReport:
    return next(each for each in inventory.experts if (each.name, each.task) == (name, task))


def graph(folder: Path, path: str = "bundled:tiny", **more: object) -> Path:
    models = {
        "nano": {"kind": "llamacpp", "path": path, "task": "clinc150", "tier": "haiku"},
        "strong": scripted("balance", tier="opus", **REMOTE),
    }
    first = {"name": "first", "ask": ["nano"], "confidence": {"by": "labels"}, "accept": 0.9}
    return write(folder, models, [first, {"name": "last", "ask": ["strong"]}], name="intents", **more)


def test_bundled_experts_are_always_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inventory = lab.experts()
    tiny = found(inventory, "bundled:tiny", "clinc150")
    assert tiny.bytes == (BUNDLED / "tiny.gguf").stat().st_size
    assert tiny.labels == 151
    assert tiny.evaluation is not None
    card = json.loads((BUNDLED / "tiny.json").read_text())["tasks"]["clinc150"]["test"]
    assert (tiny.evaluation.split, tiny.evaluation.accuracy) == ("test", card["accuracy"])
    assert (tiny.uses, tiny.share, tiny.savings, tiny.drift) == ((), None, None, None)


def test_stored_runs_say_what_an_expert_answers_and_saves(tmp_path: Path) -> None:
    path = graph(tmp_path)
    with Cascade.load(path) as cascade:
        results = [cascade.invoke(text) for text in [*EASY, "Will my shaver fit the socket in Dublin?"]]
    own = [result for result in results if result.model == "nano"]
    assert 0 < len(own) < len(results)
    tiny = found(lab.experts([tmp_path]), "bundled:tiny", "clinc150")
    assert [(use.graph, use.model, use.stages) for use in tiny.uses] == [("intents", "nano", ("first",))]
    assert (tiny.runs, tiny.asked, tiny.answered) == (3, 3, len(own))
    assert tiny.savings is not None
    assert tiny.savings.runs == len(own)
    assert tiny.savings.spent_usd == 0.0 < tiny.savings.cost_usd
    assert tiny.drift == "no reference"
    assert found(lab.experts([tmp_path]), "bundled:tiny", "banking77").uses == ()


def test_files_in_experts_folders_are_found_and_one_file_is_one_expert(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / "experts").mkdir()
    shutil.copy(BUNDLED / "tiny.gguf", tmp_path / "experts/mine.gguf")
    (tmp_path / "experts/broken.gguf").write_bytes(b"GGUF no")
    path = graph(tmp_path / "graphs", "../experts/mine.gguf")
    inventory = lab.experts([path])
    own = [each for each in inventory.experts if each.name.endswith("mine.gguf")]
    assert {each.task for each in own} == {"clinc150", "banking77", "desk"}
    assert [len(each.uses) for each in own if each.task == "clinc150"] == [1]
    assert all(each.evaluation is None for each in own)  # no card beside it
    assert any("broken.gguf" in remark for remark in inventory.remarks)


def test_other_yaml_is_passed_over_and_a_broken_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "bad.yaml").write_text("name: bad\nmodels: {}\nstages: []\n")
    graph(tmp_path)
    inventory = lab.experts([tmp_path])
    assert inventory.graphs == (str(tmp_path / "graph.yaml"),)
    assert len(inventory.remarks) == 1
    assert "bad.yaml" in inventory.remarks[0]
    with pytest.raises(RequestError, match=r"--graphs: .*nowhere does not exist"):
        lab.experts([tmp_path / "nowhere"])


def test_listing_changes_nothing(tmp_path: Path) -> None:
    path = graph(tmp_path)
    with Cascade.load(path) as cascade:
        cascade.invoke(EASY[0])
    before = {each: each.read_bytes() for each in tmp_path.iterdir() if each.suffix == ".yaml"}
    lab.experts([tmp_path])
    assert {each: each.read_bytes() for each in tmp_path.iterdir() if each.suffix == ".yaml"} == before
    with TraceStore(os.environ["CASCADE_TRACE_DB"], create=False) as traces:
        assert len(traces.runs()) == 1


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    path = graph(tmp_path)
    text = CliRunner().invoke(main, ["experts", "--graphs", str(path)], env={"COLUMNS": "200"})
    assert text.exit_code == 0, text.output
    assert "intents (nano)" in text.output
    assert "used by no graph in reach: bundled:hunter tram" in text.output
    data = json.loads(CliRunner().invoke(main, ["experts", "--graphs", str(path), "--json"]).output)
    assert {each["name"] for each in data["experts"]} == {"bundled:hunter", "bundled:small", "bundled:tiny"}
    assert all(each["share_answered"] is None for each in data["experts"])


def test_the_card_of_a_learned_expert_tells_held_out_rows_first() -> None:
    part = {"rows": 40, "accuracy": 0.9, "accuracy_ci": [0.77, 0.96]}
    card = {"version": 1, "figures": {"cross_fitted": {**part, "accuracy": 0.99}, "held_out": part}}
    assert _evaluation(card) == CardFigures(split="held_out", rows=40, accuracy=0.9, low=0.77, high=0.96)
    card["figures"] = {"cross_fitted": part, "held_out": None}
    found = _evaluation(card)
    assert found is not None
    assert found.split == "cross_fitted"
    assert _evaluation({"figures": {"held_out": {"rows": 0, "accuracy": None}}}) is None
