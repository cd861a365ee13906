"""Labelled rows for tests of `cascade learn`: the example of a helpdesk, as many as a test needs."""

from __future__ import annotations

import csv
import random
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "helpdesk.csv"
_STARTS = {"card": "My card", "loan": "The loan"}
_ENDS = {
    "card": ["was stolen", "is broken", "does not work", "has expired", "was swallowed", "is bent"],
    "loan": ["is too dear", "runs out", "was refused", "needs a form", "is paid back", "is late"],
}
_TAILS = [
    "since Monday",
    "again",
    "as of today",
    "and I am upset",
    "in Lisbon",
    "abroad",
    "for my mother",
    "twice",
]
_WORDS = ["red", "old", "blue", "new", "small", "round", "cheap", "plain", "thick", "soft", "grey", "quick"]


def example(folder: Path, labels: int = 8, name: str = "desk.csv") -> Path:
    """Write the example's rows of its first `labels` labels."""
    with EXAMPLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = list(dict.fromkeys(row["queue"] for row in rows))[:labels]
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["queue"] in kept)
    return path


def many(folder: Path, rows: int, name: str = "many.csv") -> Path:
    """Write `rows` easy rows of two labels, no two of which are alike."""
    chance = random.Random(0)
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            label = ["card", "loan"][number % 2]
            text = f"{_STARTS[label]} {chance.choice(_ENDS[label])} {chance.choice(_TAILS)}"
            writer.writerow([f"{text}: {' '.join(chance.choices(_WORDS, k=6))} {number}", label])
    return path
