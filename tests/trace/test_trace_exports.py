"""The exports of `cascade.trace` exist, are listed, and load on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cascade.trace


def test_all_exports_can_be_imported() -> None:
    assert {name for name in cascade.trace.__all__ if not hasattr(cascade.trace, name)} == set()
    assert set(cascade.trace.__all__) == set(cascade.trace._MODULE_OF)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TraceShop'"):
        _ = cascade.trace.TraceShop


def test_importing_the_package_does_not_import_sqlalchemy() -> None:
    code = "import sys, cascade.trace; assert 'sqlalchemy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
