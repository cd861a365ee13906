"""The exports of `cascade.trace` exist, are listed, and load on first use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cascade.trace


def test_all_exports_can_be_imported() -> None:
    assert {name for name in cascade.trace.__all__ if not hasattr(cascade.trace, name)} == set()
    tree = ast.parse(Path(cascade.trace.__file__).read_text(encoding="utf-8"))
    (typed,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    assert {alias.name for node in typed.body for alias in node.names} == set(cascade.trace.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TraceShop'"):
        _ = cascade.trace.TraceShop


def test_importing_the_package_does_not_import_sqlalchemy() -> None:
    code = "import sys, cascade.trace; assert 'sqlalchemy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
