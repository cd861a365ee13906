"""docs/graph.md is up to date with the schema, and its examples are valid."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from cascade.cli.schema import json_schema
from cascade.config.load import load_graph


def test_the_tables_of_keys_are_those_of_the_schema(root: Path) -> None:
    spec = importlib.util.spec_from_file_location("keys", root / ".ci" / "keys.py")
    assert spec is not None
    assert spec.loader is not None
    keys = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keys)
    page = (root / "docs" / "graph.md").read_text(encoding="utf-8")
    assert keys.rendered(page) == page, "out of date: run python .ci/keys.py"
    tables = set(re.findall(r"<!-- keys: (\w+) -->", page))
    assert tables == {json_schema()["title"], *json_schema()["$defs"]}


def test_the_example_of_the_page_passes_the_checks(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "graph.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "example.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_graph(path).graph.name == "support"
