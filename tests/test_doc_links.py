"""Links between the pages lead somewhere, and the rooms and modules that the architecture names exist."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest
from test_architecture import ROOMS

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in Path(__file__).parents[1].glob("docs/*.md"))]
# Words that the glossary must have, among others.
WORDS = {
    "abstain", "accept", "account", "admission", "audit", "baseline", "breaker", "budget",
    "calibration", "call", "certificate", "confidence", "coverage", "decider", "deployment",
    "draft", "drift", "early exit", "escalate", "expert", "gate", "grade", "hedge", "kind",
    "marginal", "model", "outcome table", "policy", "replay", "reservation", "rule", "run", "score",
    "selective risk", "signal", "stage", "step", "threshold", "tier", "trace",
}  # fmt: skip


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_repository_lead_somewhere(root: Path, page: str) -> None:
    path = root / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_table_of_the_architecture_names_every_room(root: Path) -> None:
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert sorted(named) == sorted(ROOMS)


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(root: Path, page: str) -> None:
    """A path is named from the repository's root, or from the package's."""
    for name in re.findall(r"`([\w.]+(?:/[\w.]+)+\.py)`", (root / page).read_text(encoding="utf-8")):
        assert (root / name).is_file() or (root / "cascade" / name).is_file(), name


def test_the_glossary_has_each_word_once_in_order_and_names_modules_that_exist(root: Path) -> None:
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    glossary = page.split("\n## Glossary\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in glossary.splitlines() if line.startswith("| ")][1:]
    words = [row[0].removeprefix("| ") for row in rows]
    assert words == sorted(set(words))
    assert set(words) >= WORDS
    for word, meaning, module, _ in rows:
        path = root.joinpath("cascade", *module.strip("`").split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), f"{word}: {module}"
        assert len(meaning.split()) >= 4, word


def test_the_names_of_the_api_reference_exist(root: Path) -> None:
    names = re.findall(r"^::: (\S+)$", (root / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name), name
