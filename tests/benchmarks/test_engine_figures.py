"""The pure parts of the engine's benchmark: medians of ratios, targets, tables, arrivals, labels, load."""

from __future__ import annotations

import json
import math
import os
import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from engine_sections import load
from engine_sections.arrivals import LENGTHS, LONG, SHORT, Seen, arrivals, latencies
from engine_sections.figures import (
    COLUMNS,
    Round,
    Row,
    at_least,
    at_most,
    cells,
    judge,
    markdown,
    percentiles,
    skipped,
    slope,
)
from engine_sections.labels import distribution, draw_labels
from engine_sections.prefix import reused


def test_the_median_is_of_the_ratios_and_not_the_ratio_of_the_medians() -> None:
    """A machine that slows down between rounds slows both sides of a round."""
    found = judge([Round(10, 20, 0.0), Round(1, 1, 0.0), Round(9, 6, 0.0)])
    assert found.ratio == 1.0
    assert found.ours / found.theirs == 1.5
    assert judge([Round(10, 20, 0.0)], times=True).ratio == 2.0


def test_disturbed_rounds_are_dropped_only_where_three_quiet_ones_are_left() -> None:
    """Otherwise all count and the row says how busy the machine was; an unknown load is a busy one."""
    calm = [Round(1, 2, 0.0), Round(1, 2, 0.01), Round(1, 2, 0.06)]
    assert judge([*calm, Round(9, 1, 0.5)]) == (0.5, 1, 2, 3, 0.06)
    few = judge([*calm[:2], Round(9, 1, 0.5)])
    assert (few.rounds, few.others) == (3, 0.5)
    assert math.isnan(judge([Round(1, 2, math.nan), Round(1, 2, 0.5)]).others)


def test_no_rounds_are_no_verdict_and_a_zero_baseline_is_no_number() -> None:
    """Nothing is invented where nothing was measured."""
    with pytest.raises(ValueError, match="no rounds"):
        judge([])
    assert math.isnan(judge([Round(1.0, 0.0, 0.0)]).ratio)


def test_a_target_is_met_missed_or_without_a_verdict() -> None:
    """NaN and skipped rows have none."""

    def row(value: float | None) -> Row:
        return Row("s", "w", "m", value, target=at_least(0.95))

    assert [row(value).met for value in (0.95, 0.94, math.nan, None)] == [True, False, None, None]
    assert Row("s", "w", "m", 3.0, target=at_most(3.0)).met is True
    assert Row("s", "w", "m", 3.0).met is None
    assert skipped("s", "w", "m", "no server").plain()["note"] == "skipped: no server"


def test_rows_print_value_target_verdict_and_load() -> None:
    """The Markdown table has one line per row, and survives a bar in a text."""
    rows = [
        Row("s", "fast|slow", "tiny", 0.5, target=at_least(0.95), others=0.2, rounds=5).plain(),
        Row("s", "time", "tiny", 12345.6, "µs", at_most(3), others=0.01).plain(),
        Row("s", "close", "tiny", 4.2e-7, "").plain(),
        skipped("s", "gone", "tiny", "not built").plain(),
    ]
    json.dumps(rows)
    assert cells(rows[0])[3:8] == ["0.500×", "≥ 0.95", "NO", "0.20 busy", "5"]
    assert cells(rows[1])[3:7] == ["12,346 µs", "≤ 3", "NO", "0.01"]
    assert cells(rows[2])[3:7] == ["4.2e-07", "", "", "–"]
    assert cells(rows[3])[3] == "–"
    lines = markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(line.replace("\\|", "").count("|") == len(COLUMNS) + 1 for line in lines)


def test_percentiles_and_slope() -> None:
    """Known answers; none from nothing."""
    found = percentiles([float(value) for value in range(101)])
    assert (found["p50"], found["p95"], found["p99"]) == (50.0, 95.0, 99.0)
    assert all(map(math.isnan, percentiles([]).values()))
    assert slope([0, 1, 2], [5, 7, 9]) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="needs two"):
        slope([1], [1])


def test_arrivals_are_the_same_for_a_seed_and_keep_rate_and_mix() -> None:
    """In order, within the time, about as many as the rate says, long and short."""
    listed = arrivals(random.Random(1), 100, 20.0, 100.0)
    assert listed == arrivals(random.Random(1), 100, 20.0, 100.0)
    assert all(a.at < b.at for a, b in pairwise(listed))
    assert listed[-1].at < 100.0
    assert abs(len(listed) - 2000) < 5 * math.sqrt(2000)
    lengths = [len(one.prompt) for one in listed]
    assert {SHORT[0] <= n <= SHORT[1] or LONG[0] <= n <= LONG[1] for n in lengths} == {True}
    assert 0.15 < sum(n >= LONG[0] for n in lengths) / len(lengths) < 0.25
    assert {one.tokens for one in listed} == set(LENGTHS)
    with pytest.raises(ValueError, match="more than 0"):
        arrivals(random.Random(1), 100, 0.0, 1.0)


def test_latencies_are_read_off_token_times() -> None:
    """To the first token from the arrival, per token between neighbours."""
    found = latencies([Seen(1.0, [1.5, 1.6, 1.8]), Seen(2.0, [2.5])])
    assert found["first"]["p50"] == pytest.approx(0.5)
    assert found["token"]["p50"] == pytest.approx(0.15)
    assert found["whole"]["p50"] == pytest.approx(0.65)


def test_labels_are_distinct_none_begins_another_and_some_share_beginnings() -> None:
    """150 of one to six words, the same for a seed."""
    made = draw_labels(random.Random(0), 3839, 150)
    assert made == draw_labels(random.Random(0), 3839, 150)
    labels = set(map(tuple, made))
    assert len(labels) == 150
    assert {len(label) for label in labels} == {1, 2, 3, 4, 5, 6}
    assert not any(a != b and b[: len(a)] == a for a in labels for b in labels)
    assert len({label[:2] for label in labels if len(label) > 2}) < sum(len(label) > 2 for label in labels)


def test_a_distribution_of_far_apart_log_probabilities_sums_to_one() -> None:
    """Log-probabilities of long labels are far below what exp can tell from zero."""
    found = distribution([-1000.0, -1000.0, -2000.0])
    assert found.tolist() == [0.5, 0.5, 0.0]


def test_reuse_is_read_from_the_reply_only_where_it_is_a_count() -> None:
    """A reply that says nothing reused nothing."""
    assert reused({"batch": 1}) == 0
    assert reused({"reused": 600, "batch": 1}) == 600


def proc(folder: Path, machine: int, processes: dict[int, tuple[int, int]]) -> None:
    """Write a /proc: ticks of the whole machine, and of each process (its parent, its ticks)."""
    (folder / "stat").write_text(f"cpu {machine} 0 0 99999 99999 0 0 0 0 0\n")
    for pid, (parent, ticks) in processes.items():
        (folder / str(pid)).mkdir(exist_ok=True)
        fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", "0", "0", "20"]
        (folder / str(pid) / "stat").write_text(f"{pid} (a (b) c) {' '.join(fields)}\n")


def test_the_load_check_counts_strangers_but_not_this_process_and_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever this process, a child and a grandchild use is taken off what the machine did."""
    monkeypatch.setattr(load, "_PROC", tmp_path)
    own = os.getpid()
    proc(tmp_path, 1000, {own: (1, 10), own + 1: (own, 5), own + 2: (own + 1, 5), own + 3: (1, 7)})
    watch = load.Watch()
    proc(tmp_path, 1600, {own: (1, 210), own + 1: (own, 205), own + 2: (own + 1, 205), own + 3: (1, 7)})
    assert watch.others() == 0.0
    proc(tmp_path, 2600, {own + 3: (1, 1007)})
    assert watch.others() > 0.0


def test_without_proc_the_load_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On other systems: NaN, never zero."""
    monkeypatch.setattr(load, "_PROC", tmp_path / "none")
    assert math.isnan(load.Watch().others())
    assert math.isnan(load.rss())
