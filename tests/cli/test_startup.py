"""`cascade run` of one text imports LangGraph, the store, and nothing heavy that its graph does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gguf_maker import make_gguf
from scripting import scripted, write

HEAVY = {
    "alembic",
    "fastapi",
    "genai_prices",
    "openai",
    "pandas",
    "scipy",
    "sklearn",
    "torch",
}
# What another kind of model needs.
OF_KIND = {"scripted": {"jinja2", "llama_cpp", "numpy"}, "llamacpp": set[str]()}


@pytest.mark.parametrize("kind", list(OF_KIND))
def test_one_text_imports_nothing_heavy(tmp_path: Path, kind: str) -> None:
    make_gguf(tmp_path / "m.gguf", says="yes")
    model = scripted("yes") if kind == "scripted" else {"kind": "llamacpp", "path": "m.gguf"}
    graph = write(tmp_path, {"m": model}, [{"name": "only", "ask": ["m"]}])
    code = (
        "import sys\n"
        "from cascade.cli.main import main\n"
        f"sys.argv = ['cascade', 'run', {str(graph)!r}, 'hello']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('imported', *sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.splitlines()[-1].split()[1:])
    assert "langgraph" in imported  # the list is that of a run
    found = (HEAVY | OF_KIND[kind]) & imported
    assert not found, found


def test_the_benchmark_compares_the_start_with_that_of_langgraph(root: Path) -> None:
    command = [sys.executable, "benchmarks/startup.py", "--rounds", "2", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=True)
    results = {row["command"]: row for row in json.loads(done.stdout)["results"]}
    assert set(results) == {"import langgraph.graph", "import cascade", "cascade run"}
    assert results["import langgraph.graph"]["ratio"] == 1.0
    assert all(row["cpu_seconds"] > 0 for row in results.values())
