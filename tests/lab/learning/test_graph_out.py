"""The graph of a learned expert as text: its paths, its promise, and whether it may be replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cascade.errors import RequestError
from cascade.lab.learning.certify import NEVER, Verdict
from cascade.lab.learning.graph_out import check_replaceable, graph_text
from cascade.lab.learning.settings import LearnSettings, check_settings, task_name
from cascade.lab.tuning.promise import Refusal
from cascade.policy.artifact import Certificate

MADE = Certificate(
    stage="expert", kind="max_risk", alpha=0.02, delta=0.1, bound=0.0199, rows=160, accepted=130, errors=0
)
CERTIFIED = Verdict(0.9312, MADE, None)
REFUSED = Verdict(0.8, None, Refusal("too few", 1234))
CONFIDENCE = {"by": "labels", "signal": "expert"}


def settings(folder: Path, out: str = "experts/x.gguf", graph: str = "graphs/x.yaml") -> LearnSettings:
    return LearnSettings(out=folder / out, graph_out=folder / graph)


@pytest.mark.parametrize(
    ("out", "graph", "path"),
    [
        ("experts/x.gguf", "graphs/x.yaml", "../experts/x.gguf"),
        ("x.gguf", "x.yaml", "x.gguf"),
        ("a/b/x y.gguf", "a/g.yaml", "b/x y.gguf"),
        ('we"ird: #1/x.gguf', "g.yaml", 'we"ird: #1/x.gguf'),
    ],
)
def test_the_experts_path_is_right_from_the_graphs_folder(
    out: str, graph: str, path: str, tmp_path: Path
) -> None:
    text = graph_text(settings(tmp_path, out, graph), "rows.csv", ["a", "b"], CONFIDENCE, CERTIFIED)
    models = yaml.safe_load(text)["models"]
    task = task_name(Path(out))
    assert models["expert"] == {"kind": "llamacpp", "tier": "haiku", "path": path, "task": task}
    assert models["strong"]["labels"] == f"{path}#{task}"


def test_a_certificate_and_a_refusal_stand_above_the_threshold(tmp_path: Path) -> None:
    certified = graph_text(settings(tmp_path), "rows.csv", ["a", "b"], CONFIDENCE, CERTIFIED)
    assert "# Certified: with probability 0.9, at most 2 % of what the expert answers is wrong." in certified
    assert "# It answered 130 of 160 rows that it had not seen, 0 of them wrong: at most 1.99 %." in certified
    first = yaml.safe_load(certified)["stages"][0]
    assert (first["accept"], first["confidence"]) == (0.9312, CONFIDENCE)
    refused = graph_text(settings(tmp_path), "rows.csv", ["a", "b"], CONFIDENCE, REFUSED)
    assert "# Not certified: " in refused
    assert "would need about 1,234 labelled rows" in refused
    never = graph_text(
        settings(tmp_path), "r", ["a", "b"], CONFIDENCE, Verdict(NEVER, None, Refusal("", None))
    )
    assert "so the expert accepts nothing" in never


def test_many_long_labels_raise_the_limit_of_cost(tmp_path: Path) -> None:
    labels = [f"label number {number:04} of a long list" for number in range(2000)]
    text = graph_text(settings(tmp_path), "rows.csv", labels, CONFIDENCE, CERTIFIED)
    assert yaml.safe_load(text)["limits"]["cost_usd"] == pytest.approx(0.2)


def test_a_graph_is_replaced_only_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "graphs" / "x.yaml"
    check_replaceable(path)  # not there
    path.parent.mkdir()
    text = graph_text(settings(tmp_path), "rows.csv", ["a", "b"], CONFIDENCE, CERTIFIED)
    path.write_text(text)
    check_replaceable(path)
    for other in (
        text + "# mine\n",
        text.replace("0.9312", "0.5"),
        "name: x\n",
        text.encode()[:400].decode(),
    ):
        path.write_text(other)
        with pytest.raises(RequestError, match="give another --graph-out"):
            check_replaceable(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="give another --graph-out"):
        check_replaceable(path)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Tickets 2024 (final).csv", "tickets-2024-final"),
        ("ä.csv", "expert"),
        ("a.b.csv", "a-b"),
        ("__x__.csv", "x"),
        ("2024.csv", "task-2024"),
        (f"{'long ' * 30}.csv", "-".join(["long"] * 13)),
    ],
)
def test_a_task_is_called_like_the_file(file: str, name: str) -> None:
    assert task_name(Path(file)) == name


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").mkdir()
    with pytest.raises(RequestError, match="a folder; give a file in it"):
        check_settings(settings(tmp_path, out="x.gguf"))
