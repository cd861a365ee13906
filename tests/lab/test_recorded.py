"""The recorded tables have the published numbers of rows and accuracies, and broken folders are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cascade.errors import RequestError
from cascade.lab.tables.recorded import equations, half, load_table


@pytest.mark.parametrize(
    ("name", "rows", "model", "accuracy"),
    [
        ("routellm-gsm8k", 1307, "gpt-4-1106-preview", 0.858),
        ("routellm-mmlu", 14037, "Mixtral-8x7B-Instruct-v0.1", 0.681),
        ("zeroeval-gsm", 1319, "Phi-3.5-mini-instruct", 0.820),
        ("zeroeval-crux", 800, "gpt-4o-2024-08-06", 0.870),
        ("zeroeval-math", 721, "o1-mini-2024-09-12", 0.893),
    ],
)
def test_a_table_has_its_published_rows_and_accuracy(
    name: str, rows: int, model: str, accuracy: float, data: Path
) -> None:
    table = load_table(name, data)
    assert len(table) == rows
    assert table.models[model].quality.mean() == pytest.approx(accuracy, abs=5e-4)
    costs = [float(each.cost_usd.mean()) for each in table.models.values()]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_halves_are_disjoint_complete_and_always_the_same() -> None:
    ids = [f"row-{index}" for index in range(1000)]
    tuning, testing = half(ids)
    assert sorted([*tuning, *testing]) == list(range(1000))
    assert 400 < len(tuning) < 600
    assert np.array_equal(half(ids)[0], tuning)
    assert not np.array_equal(half(ids, "other")[0], tuning)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 * 4 = 12, then 12 + $1,000 = 1012.", (2, 0)),
        ("so 16 - 3 - 4 = 8 eggs", (1, 1)),
        ("<<48/2=24>>24 and 2 × (3 + 4) = 14", (2, 0)),
        ("x = 5; f(a) = b; 10 / 0 = 3; " + "(" * 500 + "1 = 1", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_sums_in_a_text_are_worked_out(text: str, expected: tuple[int, int]) -> None:
    assert equations(text) == expected


def test_an_unknown_table_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"unknown table 'x'; known: routellm-gsm8k"):
        load_table("x", tmp_path)
    for name in ("routellm-gsm8k", "routellm-mmlu", "zeroeval-crux"):
        with pytest.raises(RequestError, match=r"cannot be read.*github\.com"):
            load_table(name, tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "zeroeval").mkdir()
    (tmp_path / "zeroeval" / "crux.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(RequestError, match="zeroeval-crux"):
        load_table("zeroeval-crux", tmp_path)
