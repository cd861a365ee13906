"""`cascade init`: a graph that comes with the package, copied with all that it refers to."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cascade.cli.main import app
from cascade.config.load import load_graph
from cascade.config.shipped import copy_shipped_graph, shipped_graphs
from cascade.errors import ConfigError

NAMES = ["assistant", "banking", "desk", "support", "threats"]


def init(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, arguments)], catch_exceptions=False)


def test_without_a_name_it_lists_the_graphs_with_their_descriptions() -> None:
    done = init()
    assert done.exit_code == 0
    *lines, hint = done.output.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert "Which of 150 intents a customer's message has" in done.output
    assert hint == "Copy one: cascade init NAME"


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_passes_the_check_in_another_folder(name: str, tmp_path: Path, root: Path) -> None:
    done = init(name, "--into", tmp_path / "mine")
    assert done.exit_code == 0
    copy = tmp_path / "mine" / f"{name}.yaml"
    assert copy.read_bytes() == (root / "graphs" / f"{name}.yaml").read_bytes()
    assert (tmp_path / "mine" / "schema.json").is_file()
    loaded, shipped = load_graph(copy), load_graph(root / "graphs" / f"{name}.yaml")
    assert loaded.calibrations == shipped.calibrations


def test_only_what_the_graph_refers_to_is_copied(tmp_path: Path) -> None:
    copied = copy_shipped_graph("support", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in copied] == [
        "support.yaml",
        "calibration/tiny-clinc150.json",
        "calibration/small-clinc150.json",
        "schema.json",
    ]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(copied)


def test_it_prints_the_command_that_runs_the_copy(tmp_path: Path) -> None:
    copied, following = init("support", "--into", tmp_path).output.replace("\n ", " ").splitlines()
    assert copied == f"Copied {tmp_path / 'support.yaml'} and 3 files it refers to."
    assert following.startswith("Next: ")
    command = shlex.split(following.removeprefix("Next: "))
    assert command == [
        "cascade",
        "run",
        str(tmp_path / "support.yaml"),
        "Set an alarm for half past six tomorrow",
    ]


def test_each_graph_has_a_request_of_its_own() -> None:
    requests = [graph.request for graph in shipped_graphs().values()]
    assert "hello" not in requests
    assert len(set(requests)) == len(NAMES)


def test_nothing_is_overwritten_and_nothing_else_is_written_then(tmp_path: Path) -> None:
    mine = tmp_path / "calibration" / "tiny-clinc150.json"
    mine.parent.mkdir()
    mine.write_text(json.dumps("mine"))
    with pytest.raises(ConfigError, match=r"tiny-clinc150\.json: already there with other content"):
        init("support", "--into", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == '"mine"'


def test_graphs_that_share_a_calibration_lie_in_one_folder(tmp_path: Path) -> None:
    init("support", "--into", tmp_path)
    init("desk", "--into", tmp_path)
    assert load_graph(tmp_path / "support.yaml").graph.name == "support"
    assert load_graph(tmp_path / "desk.yaml").graph.name == "desk"


def test_an_unknown_name_and_a_folder_that_is_a_file_are_messages(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown graph 'suport'; .*did you mean 'support'"):
        init("suport", "--into", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file.*; give another --into"):
        init("support", "--into", tmp_path / "file")
