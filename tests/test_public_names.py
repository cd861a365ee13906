"""What is documented is exported: each import that a page or an example shows is in some `__all__`."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cascade

ROOT = Path(__file__).parents[1]
SIMULATION = ROOT / "examples" / "flywheel"  # does by hand what `cascade learn` does
EXAMPLES = [path for path in sorted(ROOT.glob("examples/**/*.py")) if SIMULATION not in path.parents]
SHOWN = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *EXAMPLES]
PACKAGES = [
    "cascade",
    *(f"cascade.{module.name}" for module in pkgutil.iter_modules(cascade.__path__) if module.ispkg),
]


def imported(path: Path) -> set[tuple[str, str]]:
    """Return (module, name) of each import from cascade in a program, or in the Python blocks of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    pattern = r"^\s*from (cascade[\w.]*) import (\([^)]*\)|.+)$"
    return {
        (module, name.split(" as ")[0].strip())
        for module, names in re.findall(pattern, text, re.MULTILINE)
        for name in names.strip("()").split(",")
        if name.strip()
    }


def test_there_are_imports_to_check() -> None:
    assert {("cascade", "Cascade"), ("cascade.trace", "TraceStore")} <= set().union(*map(imported, SHOWN))


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_or_an_example_imports_is_public(path: Path) -> None:
    for module, name in sorted(imported(path)):
        assert name in import_module(module).__all__, f"{path.name}: from {module} import {name}"


@pytest.mark.parametrize("name", PACKAGES)
def test_the_names_that_a_package_lists_are_there(name: str) -> None:
    package = import_module(name)
    listed: list[str] = getattr(package, "__all__", [])
    assert len(set(listed)) == len(listed)
    assert [each for each in listed if not hasattr(package, each)] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_lists_its_public_names_or_says_that_it_is_private(name: str) -> None:
    package = import_module(name)
    private = re.search(r"\bPrivate\b", package.__doc__ or "") is not None
    listed = hasattr(package, "__all__")
    assert listed != private, "expected __all__, or 'Private' in the docstring"


def test_the_public_names_are_known_to_type_checkers_and_completion() -> None:
    """Names that load on first use are imported for type checkers, and `dir` has them."""
    tree = ast.parse(Path(cascade.__file__).read_text(encoding="utf-8"))
    names = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(cascade.__all__) - {"__version__"} <= names
    assert set(cascade.__all__) <= set(dir(cascade))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, cascade\n"
        "heavy = {'langgraph', 'langchain_core', 'llama_cpp', 'openai', 'numpy', 'sqlalchemy', 'fastapi'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from cascade import TraceStore\n"
        "assert 'sqlalchemy' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="module 'cascade' has no attribute 'Cascades'"):
        cascade.Cascades  # noqa: B018
