"""The distribution's name, licence and install advice agree everywhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import cascade
from cascade.extras import DISTRIBUTION, install_command, require

# `cascade` on the package index is another project, so no install advice may name it.
OTHER_PROJECT = re.compile(r"(?<![\w.-])cascade\[[a-z]+[\],]|pip install (-\w+ )*['\"]?cascade(?![\w-])")
ADVICE = re.compile(r"pip install ['\"]cascade-moe\[([a-z,]+)\]")


@pytest.fixture
def project(root: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return table


def texts(root: Path) -> dict[str, str]:
    """Every text file of the repository but this one."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [
        name for name in listed.stdout.split("\0") if name and not name.endswith((".bin", ".gguf", ".png"))
    ]
    return {
        name: (root / name).read_text(encoding="utf-8")
        for name in names
        if name != "tests/test_packaging.py" and (root / name).is_file()
    }


def test_no_install_advice_names_the_other_project_cascade(root: Path) -> None:
    wrong = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts(root).items()
        for number, line in enumerate(text.splitlines(), start=1)
        if OTHER_PROJECT.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "line",
    ["pip install 'cascade[serve]'", 'pip install "cascade"', "pip install cascade", "needs cascade[train]"],
)
def test_the_old_advice_would_be_found(line: str) -> None:
    assert OTHER_PROJECT.search(line)


def test_all_install_advice_names_extras_that_exist(root: Path, project: dict[str, Any]) -> None:
    named = {
        extra
        for text in texts(root).values()
        for match in ADVICE.finditer(text)
        for extra in match[1].split(",")
    }
    assert {"serve", "otel", "parquet", "postgres"} <= named
    assert named <= set(project["optional-dependencies"])


def test_the_readmes_install_line_is_right(root: Path, project: dict[str, Any]) -> None:
    lines = [line for line in (root / "README.md").read_text().splitlines() if line.startswith("pip ")]
    assert lines
    for line in lines:
        command = shlex.split(line, comments=True)
        assert command[:2] == ["pip", "install"]
        for asked in map(Requirement, command[2:]):
            assert asked.name == project["name"]
            assert asked.extras <= set(project["optional-dependencies"])
    # The example that follows runs local models.
    assert "local" in Requirement(shlex.split(lines[0], comments=True)[2]).extras


def test_the_code_names_the_distribution_as_the_project_file_does(project: dict[str, Any]) -> None:
    assert project["name"] == DISTRIBUTION
    assert project["version"] == cascade.__version__
    assert project["scripts"] == {"cascade": "cascade.cli.main:main"}


def test_the_licence_is_apache_2_and_the_notice_names_every_source(
    root: Path, project: dict[str, Any]
) -> None:
    assert project["license"] == "Apache-2.0"
    licence = (root / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    notice = (root / "NOTICE").read_text()
    for card in sorted((root / "cascade" / "experts").glob("*.json")):
        for source in re.findall(r"github\.com/[\w./-]*\w", card.read_text()):
            assert f"https://{source}" in notice
    assert "https://attack.mitre.org/resources/terms-of-use/" in notice
    assert "all-MiniLM-L6-v2" in notice


def test_a_missing_package_is_an_error_with_the_command_to_run() -> None:
    require("json", "this test", "serve")
    with pytest.raises(cascade.ConfigError) as error:
        require("cascade_no_such_package", "a local model", "local")
    assert str(error.value) == f"a local model needs cascade_no_such_package; {install_command('local')}"
    assert install_command("local") == "pip install 'cascade-moe[local]'"
