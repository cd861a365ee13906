"""langgraph.json, loaded as LangGraph's own tools load it: import the file, take the name, use the graph."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = json.loads((ROOT / "langgraph.json").read_text())
ASKED = {
    "support": "please freeze my card",
    "banking": "my new card has not arrived yet",
    "threats": "The malware adds a Run key to the registry to start with Windows.",
    "desk": "please freeze my card",
}


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    modules: dict[Path, ModuleType] = {}
    graphs = {}
    for name, place in CONFIG["graphs"].items():
        file, attribute = place.split(":")
        path = (ROOT / file).resolve()
        if path not in modules:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            modules[path] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(modules[path])
        graphs[name] = getattr(modules[path], attribute)
    return graphs


def test_every_graph_file_for_local_experts_is_offered() -> None:
    offline = {path.stem for path in (ROOT / "graphs").glob("*.yaml") if "hf:" not in path.read_text()}
    assert set(CONFIG["graphs"]) == offline == set(ASKED)


def test_the_extra_that_its_local_experts_need_is_installed_beside_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert CONFIG["dependencies"] == [".", *extras["local"]]


@pytest.mark.parametrize("name", CONFIG["graphs"])
async def test_each_graph_answers_as_a_runnable_and_shows_its_stages(
    loaded: dict[str, Any], name: str
) -> None:
    graph = loaded[name]
    state = await graph.ainvoke({"request": {"text": ASKED[name], "local_only": True}})
    assert json.loads(json.dumps(state)) == state
    assert state["trace"][0]["decision"]["rule"]
    drawn = graph.get_graph()
    assert {step["stage"] for step in state["trace"]} <= set(drawn.nodes)
    assert graph.name == name
    assert "request" in graph.get_input_jsonschema()["properties"]
