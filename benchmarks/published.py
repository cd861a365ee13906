"""The published data sets that the bundled experts are made from and measured on, and how each is split.

    clinc150   its own train, val and test, each followed by its out-of-scope rows with label `oos`
    banking77  its own test (6 of its texts repeat a training text except for white space); val is cut from
               train by the hash of the text
    tram       test and val are whole documents, by the hash of the title, without texts seen in training
    desk       all rows of the three, labelled with the assistant that should get them

No row is ever stored in this repository. `python benchmarks/published.py TASK SPLIT --data DIR`
prints rows as JSONL, for `cascade calibrate` and `cascade run`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import RequestError

OOS = "oos"
TASKS = ("clinc150", "banking77", "tram")
DESK = {"clinc150": "assistant", "banking77": "banking", "tram": "threat"}
LICENCES = {
    "clinc150": "CC BY 3.0, github.com/clinc/oos-eval",
    "banking77": "CC BY 4.0, github.com/PolyAI-LDN/task-specific-datasets",
    "tram": "Apache-2.0, github.com/center-for-threat-informed-defense/tram; MITRE ATT&CK terms of use apply",
}
ROWS = {  # train, val and test of the published files; other counts mean other rows
    "clinc150": (15_100, 3_100, 5_500),
    "banking77": (9_144, 859, 3_080),
    "tram": (3_690, 318, 1_015),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled sentence."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Split:
    """One task's rows: train to fit, val to choose and calibrate, test to report."""

    task: str
    train: list[Row]
    val: list[Row]
    test: list[Row]

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted({row.label for row in self.train})


def default_dir() -> Path:
    """Return the data folder: CASCADE_DATA, else ../shared/data."""
    return Path(os.environ.get("CASCADE_DATA", "../shared/data"))


def bucket(text: str, buckets: int) -> int:
    """Return a stable pseudo-random bucket of a string."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % buckets


def load(task: str, root: Path) -> Split:
    """Read the rows of `task` from `root/<task>`.

    Raises:
        ValueError: there is no such task.
        RequestError: a file is missing or broken, or does not hold the published rows.
    """
    if task == "desk":
        return _desk(root)
    if task not in _READERS:
        raise ValueError(f"unknown task {task!r}; known: {', '.join([*_READERS, 'desk'])}")
    folder = root / task
    try:
        split = _READERS[task](folder)
    except OSError as error:
        raise RequestError(
            f"{error.filename or folder}: {error.strerror}; get the files ({LICENCES[task]}) "
            "and give the folder above them with --data or CASCADE_DATA"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{folder}: not the files of {task} ({LICENCES[task]}): {error!r}") from error
    counts = (len(split.train), len(split.val), len(split.test))
    if counts != ROWS[task]:
        raise RequestError(
            f"{folder}: {counts} rows in train, val and test, expected {ROWS[task]}; "
            f"download the files again ({LICENCES[task]})"
        )
    return split


def _clinc(folder: Path) -> Split:
    data = _json(folder / "data_full.json")

    def rows(*names: str) -> list[Row]:
        return [Row(text.strip(), label) for name in names for text, label in data[name]]

    return Split("clinc150", rows("train", "oos_train"), rows("val", "oos_val"), rows("test", "oos_test"))


def _banking(folder: Path) -> Split:
    def rows(name: str) -> list[Row]:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return [Row(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]

    fit, val = _cut(rows("train.csv"), lambda row: bucket(row.text, 12) == 0)
    return Split("banking77", fit, val, rows("test.csv"))


def _tram(folder: Path) -> Split:
    documents = [
        (item["doc_title"], Row(item["text"], item["label"])) for item in _json(folder / "single_label.json")
    ]
    known = [(title, row) for title, row in documents if bucket(title, 5) != 0]
    test = [row for title, row in documents if bucket(title, 5) == 0]
    fit = [row for title, row in known if bucket(title + "#val", 10) != 0]
    val = [row for title, row in known if bucket(title + "#val", 10) == 0]
    return Split("tram", fit, _unseen(val, fit), _unseen(test, (row for _, row in known)))


def _desk(root: Path) -> Split:
    splits = [load(task, root) for task in TASKS]

    def rows(pick: Callable[[Split], list[Row]]) -> list[Row]:
        return [Row(row.text, DESK[split.task]) for split in splits for row in pick(split)]

    return Split("desk", rows(lambda s: s.train), rows(lambda s: s.val), rows(lambda s: s.test))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _cut(rows: list[Row], held_out: Callable[[Row], bool]) -> tuple[list[Row], list[Row]]:
    keep = [row for row in rows if not held_out(row)]
    return keep, _unseen((row for row in rows if held_out(row)), keep)


def _unseen(rows: Iterable[Row], known: Iterable[Row]) -> list[Row]:
    texts = {row.text for row in known}
    return [row for row in rows if row.text not in texts]


_READERS: dict[str, Callable[[Path], Split]] = {"clinc150": _clinc, "banking77": _banking, "tram": _tram}


def main() -> int:
    """Print the rows of one split as JSONL: `{"id", "text", "label"}`."""
    parser = argparse.ArgumentParser(prog="python benchmarks/published.py", description=main.__doc__)
    parser.add_argument("task", choices=[*TASKS, "desk"])
    parser.add_argument("split", choices=["train", "val", "test"])
    parser.add_argument("--data", type=Path, default=default_dir(), help="folder of the data sets")
    args = parser.parse_args()
    try:
        split = load(args.task, args.data)
    except RequestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for number, row in enumerate(getattr(split, args.split), start=1):
        line = {"id": f"{args.task}-{args.split}-{number}", "text": row.text, "label": row.label}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
