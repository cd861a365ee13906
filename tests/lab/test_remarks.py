"""Models and calibrations that are worth nothing are said to be, with numbers; good ones are not."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from scripting import write
from typer import Typer
from typer.testing import CliRunner

from cascade.cli.calibrate import calibrate
from cascade.lab.evaluation.remarks import (
    brier_change,
    no_better_than_one_answer,
    table_remarks,
    worse_than_raw,
)
from cascade.lab.tables.outcomes import from_rows

LABELS = ["billing", "shipping", "returns"]


def scored(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that are the probabilities of being right, and whether each row was right."""
    draw = np.random.default_rng(seed)
    score = draw.uniform(0.05, 0.95, rows)
    return score, (draw.uniform(size=rows) < score).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_a_map_away_from_the_truth_is_said_and_one_towards_it_is_not(seed: int) -> None:
    score, right = scored(800, seed)
    bent = score**3
    worse, better = brier_change(bent, score, right), brier_change(score, bent, right)
    assert worse.value == pytest.approx(-better.value)
    assert worse.low > 0
    assert "more than chance explains" in str(worse_than_raw(worse, "these rows"))
    assert worse_than_raw(better, "these rows") is None


def test_the_interval_holds_the_true_change_in_about_95_of_100_samples() -> None:
    score, _ = scored(200_000, 99)
    # Of a score that is the truth, P(right) = s, the map m costs (m − s)² on average.
    truth = float(np.mean((score**2 - score) ** 2))
    held = 0
    for seed in range(200):
        own, right = scored(300, seed)
        change = brier_change(own**2, own, right, seed=seed)
        held += change.low <= truth <= change.high
    assert 180 <= held <= 198  # of 200; a fair interval misses 10, give or take 3


@pytest.mark.parametrize("seed", range(8))
def test_a_model_that_says_one_thing_is_told_from_one_that_reads(seed: int) -> None:
    draw = random.Random(seed)
    labels = draw.choices(LABELS, weights=[5, 3, 2], k=100)
    usual = max(LABELS, key=labels.count)

    def remark(answers: list[str]) -> str | None:
        right = [float(answer.lower() == label) for answer, label in zip(answers, labels, strict=True)]
        return no_better_than_one_answer(answers, labels, right)

    constant = [draw.choice([usual, usual.upper()]) for _ in labels]
    assert f"answers '{usual}' to 100 of 100 rows" in str(remark(constant))
    reader = [label if draw.random() < 0.9 else draw.choice(LABELS) for label in labels]
    assert remark(reader) is None
    guesser = [draw.choice(LABELS[1:]) if label == usual else label for label in labels]
    few = sum(label != usual for label in labels)
    said = remark(guesser)
    assert (said is None) == (few > labels.count(usual))
    assert said is None or f"is right on {few} of 100 rows; always answering '{usual}'" in said


def test_too_few_rows_and_a_single_label_say_nothing() -> None:
    assert no_better_than_one_answer(["a"] * 9, ["a", "b", "c"] * 3, [0.0] * 9) is None
    assert no_better_than_one_answer(["a"] * 50, ["a"] * 50, [1.0] * 50) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_signal_behind_a_tables_confidence_is_found(seed: int) -> None:
    score, right = scored(400, seed)
    other = np.random.default_rng(seed + 50).uniform(size=400)
    rows = [
        {
            "id": str(k),
            "models": {
                "bent": {"correct": int(right[k]), "cost_usd": 0, "confidence": float(score[k] ** 3),
                         "signals": {"noise": float(other[k]), "top1": float(score[k])}},
                "fine": {"correct": int(right[k]), "cost_usd": 0, "confidence": float(score[k]),
                         "signals": {"top1": float(score[k] ** 3)}},
                "none": {"correct": int(right[k]), "cost_usd": 0, "confidence": float(score[k] ** 3),
                         "signals": {"noise": float(other[k])}},
            },
        }
        for k in range(400)
    ]  # fmt: skip
    remarks = list(table_remarks(from_rows(rows).models, ()))
    assert len(remarks) == 1
    assert remarks[0].startswith("bent: the calibrated confidence is worse than the raw score on these rows")


def test_calibrating_says_that_the_map_is_worse_and_that_the_model_reads_nothing(tmp_path: Path) -> None:
    """Agreement that is the probability itself: a map of few rows only adds noise."""
    draw = random.Random(1)
    replies, lines = {}, []
    for number in range(40):
        agreeing = number % 3 + 1
        text, label = f"q{number}", "yes" if draw.random() < agreeing / 3 else "no"
        replies[text] = ["yes"] * agreeing + ["maybe", "perhaps"][: 3 - agreeing]
        lines.append(json.dumps({"text": text, "label": label}) + "\n")
    stage = {
        "name": "first",
        "ask": ["small"],
        "samples": 3,
        "confidence": {"by": "agreement"},
        "accept": 0.5,
    }
    graph = write(tmp_path, {"small": {"kind": "scripted", "replies": replies}}, [stage])
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(lines))
    app = Typer()
    app.command()(calibrate)
    arguments = [
        str(graph),
        "first",
        "--data",
        str(tmp_path / "rows.jsonl"),
        "--out",
        str(tmp_path / "m.json"),
    ]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert "its change (95 %)" in done.stdout
    assert "warning: the calibrated confidence is worse than the raw score on rows that it" in done.stderr
    assert "warning: small answers 'yes' to 40 of 40 rows, whatever they ask" in done.stderr
