"""Commands of `cascade.lab.training` that come too early say what is missing and which command makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import ConfigError
from cascade.lab.training import card, steps
from cascade.lab.training.__main__ import parser
from cascade.lab.training.recipes import RECIPES
from cascade.lab.training.report import Log


@pytest.fixture
def workspace(tmp_path: Path) -> steps.Workspace:
    return steps.Workspace(tmp_path / "data", tmp_path / "work", Log("test"))


def test_a_step_before_its_time_names_the_command_that_comes_first(workspace: steps.Workspace) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.pt does not exist; .*lab\.training train tiny, or give"):
        steps.export_expert(workspace, "tiny", workspace.work)
    with pytest.raises(ConfigError, match=r"small\.pt does not exist; .*lab\.training train small"):
        steps.polish_expert(workspace, "small", 1)
    with pytest.raises(ConfigError, match=r"pool_tram\.jsonl does not exist; .*lab\.training teacher"):
        steps.gather(workspace, RECIPES["tiny"], "assistants")


def test_cards_need_every_file_and_say_which_are_missing(workspace: steps.Workspace, tmp_path: Path) -> None:
    (tmp_path / "hunter.gguf").touch()
    with pytest.raises(ConfigError, match=r"has no tiny\.gguf, small\.gguf; .*export NAME"):
        card.write_all(workspace, tmp_path)


@pytest.mark.parametrize("threads", ["0", "-1", "two"])
def test_threads_are_counted_from_one(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["teacher", f"--threads={threads}"])
    assert f"argument --threads: '{threads}' is not a whole number from 1 on" in capsys.readouterr().err
