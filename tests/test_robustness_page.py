"""The tests that docs/robustness.md names exist."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_that_the_page_names_exists(root: Path) -> None:
    page = (root / "docs" / "robustness.md").read_text()
    rows = re.findall(r"`(tests/[\w/]+\.py)`(?: `(test_\w+)`)?", page)
    assert len(rows) > 20
    for file, name in rows:
        assert f"def {name}" in (root / file).read_text(), f"{file} has no {name}"
