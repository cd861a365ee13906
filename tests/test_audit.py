"""The audit of `make check` knows every locked package and objects to a licence that binds ours."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def audit(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(root)
    spec = importlib.util.spec_from_file_location("audit", root / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_lock_is_read(audit: ModuleType, root: Path) -> None:
    locked = audit.locked()
    for lock in root.glob("requirements*.lock"):
        names = [line.split("==")[0] for line in lock.read_text().splitlines() if "==" in line[:60]]
        assert len(names) > 3
        assert set(names) <= set(locked), lock


@pytest.mark.parametrize(("licence", "refused"), [
    ("MIT", False), ("LGPL-3.0-only", False), ("GNU Lesser General Public License v3", False),
    ("GPL-3.0-only", True), ("MIT; GNU General Public License", True), ("AGPL-3.0", True), ("none", True),
])  # fmt: skip
def test_what_binds_ours_is_refused(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, licence: str, refused: bool
) -> None:
    monkeypatch.setattr(audit, "locked", lambda: {"some-package": "1"})
    monkeypatch.setattr(audit, "licence", lambda name: licence)
    assert bool(audit.licence_problems()) is refused
