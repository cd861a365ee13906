"""The package keeps its layers, its public names, and its light imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cascade

PACKAGE = Path(cascade.__file__).parent

# The rooms from the ground up: each file imports only from its own room or those before it.
ROOMS = [
    "_lazy", "_fork", "errors", "extras", "environment", "openai_fields", "svg", "records", "spec", "files",
    "formats", "requests", "policy",
    "explain", "observers", "langchain", "config", "trace", "engine", "models", "gates", "confidence",
    "graph", "run", "lab.tables", "lab.tuning", "lab.replays", "lab.monitoring", "lab.evaluation",
    "lab.reading", "lab.fitting", "lab.networks", "lab.learning",
    "lab.planning", "lab.inventory", "serve", "cli",
]  # fmt: skip


def room(module: str) -> str:
    """Return the room of a module's dotted name below `cascade`; wings count by their own rooms."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "lab" else parts[0]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cascade":
            names |= {node.module} if node.module != "cascade" else {f"cascade.{a.name}" for a in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "cascade"}
    return names


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_files_import_only_from_their_own_room_and_those_before_it() -> None:
    wrong = []
    for path in modules():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        own = room(".".join(parts))
        if own in ("__init__", "lab.__init__"):
            continue
        for name in imports(path):
            used = room(name.removeprefix("cascade").lstrip("."))
            if used in ROOMS and ROOMS.index(used) > ROOMS.index(own):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_file_is_in_a_room_that_the_list_knows() -> None:
    names = {room(".".join(path.relative_to(PACKAGE).with_suffix("").parts)) for path in modules()}
    assert names - {"__init__", "lab.__init__", "experts"} == set(ROOMS)


def test_no_module_imports_itself_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for path in modules():
        name = "cascade." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        name = name.removesuffix(".__init__")
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
        edges[name] = {
            target
            for node in top
            if node.module and node.module.startswith("cascade")
            for target in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        }
    edges = {name: {t for t in targets if t in edges and t != name} for name, targets in edges.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(edges[start])
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += edges[name]
        return seen

    assert [name for name in edges if name in reached(name)] == []


def test_functions_stay_short() -> None:
    long = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                long += [f"{path.name}: {node.name} has {size} lines"] if size > 60 else []
    assert not long, "\n".join(long)


def test_the_public_names_are_sorted_real_and_at_most_twenty() -> None:
    names = [name for name in cascade.__all__ if not name.startswith("_")]
    assert names == sorted(names)
    assert len(names) <= 20
    assert all(hasattr(cascade, name) for name in names)


@pytest.mark.parametrize(
    "command", [["--help"], ["check", "graphs/support.yaml"], ["schema"], ["draw", "graphs/support.yaml"]]
)
def test_light_commands_import_neither_langgraph_nor_llama_cpp(command: list[str], root: Path) -> None:
    code = (
        "import sys\n"
        "from cascade.cli.main import main\n"
        f"sys.argv = ['cascade', *{command!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'langgraph', 'langchain_core', 'llama_cpp', 'openai', 'numpy', 'sqlalchemy'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
