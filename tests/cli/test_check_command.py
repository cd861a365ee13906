"""`cascade check`, `draw` and `schema` as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from scripting import checked, scripted, write

from cascade.cli.schema import json_schema
from cascade.config.load import load_graph
from cascade.spec.schema import Graph

GRAPHS = sorted((Path(__file__).parents[2] / "graphs").glob("*.yaml"))


def cascade(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cascade.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(
        tmp_path, {"nano": scripted("x")}, [checked("first", "nano")], limits={"calls": 2, "cost_usd": 0.5}
    )


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad").mkdir()
    return write(tmp_path / "bad", {"nano": scripted("x")}, [checked("first", "nno", acept=1)])


def test_a_sound_graph_is_one_line(good: Path) -> None:
    done = cascade("check", good)
    assert (done.returncode, done.stdout, done.stderr) == (
        0, "ok: test: 1 stage, 1 model, at most $0.5, 2 calls\n", "",
    )  # fmt: skip


def test_problems_go_to_standard_error_with_exit_status_1(good: Path, bad: Path) -> None:
    done = cascade("check", bad, good, bad.parent / "none.yaml")
    assert done.returncode == 1
    assert done.stdout.startswith("ok: test")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {bad}:")
    assert "stages.0.acept: unknown key 'acept'" in first
    assert second.startswith(f"{bad.parent / 'none.yaml'}: graph file is missing; known in")


def test_json_is_one_object_per_file(good: Path, bad: Path) -> None:
    done = cascade("check", "--json", good, bad)
    assert (done.returncode, done.stderr) == (1, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == {
        "file": str(good), "ok": True, "problems": [], "name": "test", "stages": 1, "models": 1,
        "limits": {"cost_usd": 0.5, "calls": 2},
    }  # fmt: skip
    assert second["ok"] is False
    assert second["problems"][0].startswith(f"{bad}:")


def test_a_graph_is_drawn_to_standard_output_or_a_file(good: Path, tmp_path: Path) -> None:
    assert cascade("draw", good).stdout.startswith("flowchart TD\n")
    done = cascade("draw", good, "--format", "svg", "--output", tmp_path / "graph.svg")
    assert (done.returncode, done.stdout) == (0, "")
    assert ET.parse(tmp_path / "graph.svg").getroot().tag.endswith("svg")


def test_a_drawing_that_cannot_be_written_is_an_error(good: Path, bad: Path, tmp_path: Path) -> None:
    done = cascade("draw", good, "--output", tmp_path / "no" / "graph.mmd")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No such file or directory; give a file that can be written" in done.stderr
    assert cascade("draw", bad).returncode == 1


def test_the_schema_is_a_json_schema_with_a_description_for_every_key() -> None:
    done = cascade("schema")
    schema = json.loads(done.stdout)
    assert schema == json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in schema
    assert schema["additionalProperties"] is False
    plain = {"name", "kind", "by", "limits", "trace", "models", "stages"}
    missing = [
        f"{part['title']}.{key}"
        for part in (schema, *schema["$defs"].values())
        for key, value in part["properties"].items()
        if key not in plain and "description" not in value
    ]
    assert missing == []


def test_the_committed_schema_is_the_current_one(root: Path) -> None:
    current = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    assert (root / "graphs" / "schema.json").read_text(encoding="utf-8") == current, (
        "write it anew: cascade schema > graphs/schema.json"
    )


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_every_graph_of_the_repository_names_its_schema_and_passes_the_checks(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == "# yaml-language-server: $schema=schema.json"
    graph = load_graph(path).graph
    assert graph.name == path.stem
    assert isinstance(graph, Graph)
