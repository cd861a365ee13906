"""`cascade calibrate`: real stages over scripted drafts, honest refusals, a file that the graph accepts."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.config.load import load_graph
from cascade.policy.calibrate import read_calibration

GRAPH = """\
name: quiz
models:
  small: {{kind: scripted, replies: {replies}}}
stages:
  - name: first
    ask: [small]
    samples: 3
    confidence: {{by: agreement{calibration}}}
    accept: 0.5
"""


def rows(count: int) -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """Replies and labelled rows: drafts that agree are right more often, by a fixed seed."""
    chance = random.Random(0)
    replies, labelled = {}, []
    for number in range(count):
        text, agreeing = f"question {number}", number % 3 + 1
        answer = "right" if chance.random() < agreeing / 3.3 else "wrong"
        replies[text] = [answer] * agreeing + ["other", "another"][: 3 - agreeing]
        labelled.append({"id": str(number), "text": text, "label": "Right"})
    return replies, labelled


def write(folder: Path, count: int = 120, calibration: str = "") -> tuple[Path, Path]:
    """Write a graph and its labelled rows."""
    replies, labelled = rows(count)
    graph, data = folder / "quiz.yaml", folder / "rows.jsonl"
    graph.write_text(GRAPH.format(replies=json.dumps(replies), calibration=calibration))
    data.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    return graph, data


def cascade(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "cascade.cli.main", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def refused(*arguments: object) -> str:
    """The error message of a command that must fail without a traceback."""
    done = cascade(*arguments)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_stage_is_calibrated_and_its_graph_then_loads(method: str, tmp_path: Path) -> None:
    """The file goes where the stage says, carries its provenance, and passes the graph's own checks."""
    graph, data = write(tmp_path, calibration=", calibration: maps/first.json")
    done = cascade("calibrate", graph, "first", "--data", data, "--method", method)
    assert done.returncode == 0, done.stderr
    assert "calibration error" in done.stdout
    written = read_calibration(tmp_path / "maps" / "first.json")
    assert (written.method, written.by, written.signal, written.rows) == (
        method,
        "agreement",
        "agreement",
        120,
    )
    assert written.auroc > 0.6
    assert written.ece < 0.15
    assert written.apply(1 / 3) < written.apply(2 / 3) < written.apply(1.0)
    assert load_graph(graph).calibrations == {"first": written}


def test_the_same_rows_give_the_same_file(tmp_path: Path) -> None:
    """Calibration is deterministic, whatever the concurrency."""
    graph, data = write(tmp_path)
    for name, slots in [("a.json", 1), ("b.json", 16)]:
        options = ["--data", data, "--out", tmp_path / name, "--concurrency", slots]
        assert cascade("calibrate", graph, "first", *options).returncode == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_changed_model_makes_its_calibration_stale(tmp_path: Path) -> None:
    """A map belongs to the very model that it was fitted for."""
    graph, data = write(tmp_path, calibration=", calibration: first.json")
    assert cascade("calibrate", graph, "first", "--data", data).returncode == 0
    graph.write_text(graph.read_text().replace("kind: scripted", "kind: scripted, delay: 0.001"))
    assert "stale" in refused("check", graph)


def test_too_few_rows_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    """Twenty rows cannot calibrate; nothing is written."""
    graph, data = write(tmp_path, count=20)
    message = refused("calibrate", graph, "first", "--data", data, "--out", tmp_path / "x.json")
    assert "20 rows have a score, a calibration needs 30" in message
    assert not (tmp_path / "x.json").exists()


def test_rows_that_are_all_right_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    """Without wrong answers nobody knows where they begin."""
    graph, data = write(tmp_path)
    always = json.dumps({f"question {number}": ["right"] * 3 for number in range(120)})
    graph.write_text(GRAPH.format(replies=always, calibration=""))
    message = refused("calibrate", graph, "first", "--data", data, "--out", tmp_path / "x.json")
    assert "0 of 120 answers are wrong, a calibration needs 5" in message


def test_failed_calls_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    """Rows without a score are no evidence; if too few are left, the reason is shown."""
    graph, data = write(tmp_path)
    graph.write_text(GRAPH.format(replies="{}", calibration=""))
    message = refused("calibrate", graph, "first", "--data", data, "--out", tmp_path / "x.json")
    assert "0 rows have a score" in message
    assert "120 more have no score, the first: model 'small' has no reply for 'question 0'" in message


@pytest.mark.parametrize(
    ("change", "stage", "complaint"),
    [
        (("", ""), "frist", "unknown stage 'frist'; known: first"),
        (("    confidence: {by: agreement}\n    accept: 0.5\n", ""), "first", "no 'confidence'"),
        (("ask: [small]", "ask: [small, twin]"), "first", "belongs to one model"),
        (("samples: 3", "samples: three"), "first", "quiz.yaml:7"),
    ],
)
def test_a_stage_that_cannot_be_calibrated_is_refused(
    change: tuple[str, str], stage: str, complaint: str, tmp_path: Path
) -> None:
    """Unknown, unchecked and many-headed stages, and broken graphs, are named."""
    graph, data = write(tmp_path)
    twin = "models:\n  twin: {kind: scripted, default: x}" if "twin" in change[1] else "models:"
    graph.write_text(graph.read_text().replace(*change).replace("models:", twin))
    assert complaint in refused("calibrate", graph, stage, "--data", data, "--out", tmp_path / "x.json")


def test_a_file_to_write_must_be_known(tmp_path: Path) -> None:
    """Without --out the stage must name its calibration."""
    graph, data = write(tmp_path)
    assert "give --out" in refused("calibrate", graph, "first", "--data", data)


def test_rows_without_a_label_are_refused(tmp_path: Path) -> None:
    """The right answer cannot be guessed."""
    graph, _ = write(tmp_path)
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"id": "7", "text": "question 7"}\n')
    assert "row '7' has no 'label'" in refused("calibrate", graph, "first", "--data", bare, "--out", "x.json")
