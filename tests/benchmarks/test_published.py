"""Data sets: the published rows, splits that share no text, and clear errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from published import DESK, OOS, ROWS, TASKS, load

from cascade.errors import RequestError

SCRIPT = str(Path(__file__).resolve().parents[2] / "benchmarks" / "published.py")


@pytest.mark.parametrize("task", TASKS)
def test_each_set_has_its_published_rows_and_labels(task: str, data: Path) -> None:
    """Counts, number of labels, and no label that training never shows."""
    split = load(task, data)
    assert (len(split.train), len(split.val), len(split.test)) == ROWS[task]
    assert len(split.labels) == {"clinc150": 151, "banking77": 77, "tram": 50}[task]
    assert (OOS in split.labels) == (task == "clinc150")
    assert {row.label for row in [*split.val, *split.test]} <= set(split.labels)
    assert all(row.text.strip() for row in [*split.train, *split.val, *split.test])


def test_splits_of_ours_share_no_text(data: Path) -> None:
    """What we cut ourselves never repeats a training text; published splits are kept as they are."""
    banking, tram = load("banking77", data), load("tram", data)
    for train, held in [
        (banking.train, banking.val),
        (tram.train, tram.val),
        (tram.train + tram.val, tram.test),
    ]:
        assert not {row.text for row in train} & {row.text for row in held}


def test_the_published_clinc150_has_1000_out_of_scope_test_rows_last(data: Path) -> None:
    """Benchmarks count wrongly accepted out-of-scope rows among exactly these."""
    labels = [row.label for row in load("clinc150", data).test]
    assert labels.count(OOS) == 1000
    assert set(labels[4500:]) == {OOS}


def test_desk_mixes_all_rows_under_three_labels(data: Path) -> None:
    """The desk's gate is measured on every test row of the three sets."""
    split = load("desk", data)
    assert len(split.test) == sum(counts[2] for counts in ROWS.values())
    assert set(split.labels) == set(DESK.values())


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_file_names_its_source_and_licence(task: str, tmp_path: Path) -> None:
    """The error says which file, where it is from, its licence, and how to point at it."""
    with pytest.raises(RequestError, match=r"github\.com/.*--data or CASCADE_DATA"):
        load(task, tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not the files of"),
        ("[]", "not the files of"),
        ('{"train": 3}', "not the files of"),
        (
            '{"train": [], "val": [], "test": [], "oos_train": [], "oos_val": [], "oos_test": []}',
            "expected",
        ),
    ],
)
def test_a_broken_or_other_file_is_refused(content: str, complaint: str, tmp_path: Path) -> None:
    """Rows other than the published ones would make figures that mean nothing."""
    (tmp_path / "clinc150").mkdir()
    (tmp_path / "clinc150" / "data_full.json").write_text(content)
    with pytest.raises(RequestError, match=complaint):
        load("clinc150", tmp_path)


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match=r"unknown task 'mnist'; known: clinc150.*desk"):
        load("mnist", tmp_path)


def test_the_command_prints_rows_for_calibrate(data: Path) -> None:
    """One object a line, ids unique, to standard output only."""
    command = [sys.executable, SCRIPT, "tram", "val", "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == ROWS["tram"][1]
    assert len({row["id"] for row in rows}) == len(rows)
    assert set(rows[0]) == {"id", "text", "label"}


def test_the_command_reports_missing_data_without_a_traceback(tmp_path: Path) -> None:
    """Exit status 1 and one line on standard error."""
    command = [sys.executable, SCRIPT, "tram", "val", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
