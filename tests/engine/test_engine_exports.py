"""The names that the engine exports exist, and importing the package loads neither llama.cpp nor NumPy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cascade.engine


def test_every_exported_name_can_be_imported() -> None:
    assert all(getattr(cascade.engine, name) is not None for name in cascade.engine.__all__)
    assert cascade.engine.Session.__module__ == "cascade.engine.session"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'cascade.engine' has no attribute 'Sessions'"):
        getattr(cascade.engine, "Sessions")  # noqa: B009  # a type checker refuses the plain attribute


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys\n"
        "from cascade.engine import MAX_WAITING, available_cores, decode_worker, default_threads\n"
        "assert not {'llama_cpp', 'numpy'} & set(sys.modules)\n"
        "from cascade.engine import RunningStats\n"
        "assert 'llama_cpp' not in sys.modules\n"
        "assert 'numpy' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
