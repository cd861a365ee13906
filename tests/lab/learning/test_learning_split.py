"""Which rows are held out: whole groups, no more than the promise needs, none if they cannot help."""

from __future__ import annotations

import numpy as np

from cascade.lab.learning.split import counted, pilot_scores, put_aside, split_rows
from cascade.policy.artifact import Goal

GOAL = Goal(kind="max_risk", value=0.05, delta=0.1)


def clusters(rows: int, labels: int, noise: float, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Unit vectors around one centre a label; the more noise, the harder."""
    random = np.random.default_rng(seed)
    target = np.arange(rows) % labels
    vectors = np.eye(32)[target] + noise * random.normal(size=(rows, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [f"l{each}" for each in target], np.arange(rows)


def test_groups_stay_whole_and_every_label_keeps_half_of_its_rows() -> None:
    labels = ["a"] * 60 + ["b"] * 30 + ["c"] * 5
    groups = np.array([index // 2 for index in range(95)])
    kept, aside = put_aside(labels, groups, 3)
    assert sorted([*kept, *aside]) == list(range(95))
    assert not set(groups[kept]) & set(groups[aside])
    assert 15 <= sum(labels[index] == "a" for index in aside) <= 24
    assert sum(labels[index] == "c" for index in kept) >= 3
    again = put_aside(labels, groups, 3)
    assert again[1].tolist() == aside.tolist()
    assert put_aside(labels, groups, 4)[1].tolist() != aside.tolist()


def test_the_latest_rows_are_held_out_and_those_that_a_person_was_asked_about_never() -> None:
    labels = ["a", "b"] * 30
    groups = np.arange(60)
    groups[59] = 0  # the first text comes again at the end: its family began early
    times = [f"2026-01-01T{index:04}" for index in range(60)]
    asked = [index == 57 for index in range(60)]
    kept, aside = put_aside(labels, groups, 0, times=times, asked=asked)
    assert aside.tolist() == [58, 56, *range(55, 37, -1)]
    assert sorted([*kept, *aside]) == list(range(60))
    _, never = put_aside(labels, groups, 0, asked=[True] * 60)
    assert not len(never)
    _, rare = put_aside(["a"] * 57 + ["b"] * 3, groups, 0, times=times)
    assert rare.tolist() == [58, *range(56, 37, -1)], "a label keeps half of its rows"


def test_rows_with_times_split_by_time_for_the_promise() -> None:
    vectors, labels, groups = clusters(3000, 4, 0.05)
    times = [f"{index:05}" for index in range(3000)]
    split = split_rows(vectors, labels, groups, GOAL, 0, times=times)
    assert split.held_out.tolist() == list(range(3000 - len(split.held_out), 3000))
    assert "the latest ones" in split.reason


def test_an_easy_task_holds_out_what_the_promise_needs_and_no_more() -> None:
    vectors, labels, groups = clusters(3000, 4, 0.05)
    split = split_rows(vectors, labels, groups, GOAL, 0)
    # 45 rows without an error support 5 % at 0.9; luck is allowed for.
    assert 45 <= len(split.held_out) <= 150
    assert len(split.train) + len(split.held_out) == 3000
    assert split_rows(vectors, labels, groups, GOAL, 0).held_out.tolist() == split.held_out.tolist()


def test_rows_that_cannot_support_the_promise_all_train() -> None:
    vectors, labels, groups = clusters(90, 3, 0.05)
    split = split_rows(vectors, labels, groups, GOAL, 0)
    assert (len(split.train), len(split.held_out)) == (90, 0)
    assert "would not support the promise" in split.reason
    few = split_rows(vectors[:20], labels[:20], groups[:20], GOAL, 0)
    assert (len(few.train), few.reason) == (20, "there are too few rows to spare any")


def test_what_was_put_aside_decides_nothing() -> None:
    """Otherwise a bound on the held-out rows would not be exact."""
    vectors, labels, groups = clusters(1500, 4, 0.05)
    _, aside = put_aside(labels, groups, 0)
    before = split_rows(vectors, labels, groups, GOAL, 0)
    vectors[aside] = np.roll(vectors[aside], 1, axis=1)  # now each looks like another label
    after = split_rows(vectors, labels, groups, GOAL, 0)
    assert set(before.held_out) <= set(aside)
    assert after.held_out.tolist() == before.held_out.tolist()


def test_one_row_of_each_family_counts() -> None:
    assert counted(np.array([4, 1, 7, 5]), np.array([0, 1, 1, 2, 2, 2, 3, 3])).tolist() == [4, 1, 7]


def test_the_pilot_orders_rows_by_how_sure_one_may_be() -> None:
    vectors, labels, groups = clusters(600, 6, 0.35)
    pilot = pilot_scores(vectors, labels, groups, 0)
    sure = pilot.confidence >= np.median(pilot.confidence)
    assert 0.5 < pilot.correct.mean() < 1.0
    assert pilot.correct[sure].mean() > pilot.correct[~sure].mean() + 0.1
