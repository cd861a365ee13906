"""The benchmarks of tuned policies run on the recorded tables, and their figures fit together."""

from pathlib import Path

from benching import benchmark


def test_tables_beat_agreement_chance_and_length_on_zeroeval(root: Path, data: Path) -> None:
    """The tuned router is above what needs no tuning, and below the oracle."""
    (found,) = benchmark(root, data, "tables", "--tables", "zeroeval-gsm")["tables"]
    ours, length, agreement, oracle = (router["apgr"] for router in found["routers"])
    assert oracle > ours > agreement > length > 0.5
    low, high = found["routers"][0]["apgr_ci"]
    assert low <= ours <= high
    assert abs(found["random_apgr"] - 0.5) < 0.05


def test_certificates_are_broken_less_often_than_plain_tuning(root: Path, data: Path) -> None:
    """Shares lie in their intervals; a certified threshold accepts no more than the oracle's."""
    options = ("--tables", "zeroeval-crux", "--draws", "30")
    (found,) = benchmark(root, data, "certificates", *options)["tables"]
    assert found["certified_broken"] <= found["plain_broken"]
    assert found["certified_coverage"] <= found["oracle_coverage"]
    low, high = found["refused_ci"]
    assert low <= found["refused"] <= high


def test_small_data_compares_both_ways_on_each_size(root: Path, data: Path) -> None:
    """Every size has both areas, their difference, and intervals."""
    results = benchmark(root, data, "small_data", "--tables", "zeroeval-crux", "--draws", "2")["results"]
    assert [row["rows"] for row in results] == [30, 100, 300]
    for row in results:
        assert 0 < row["tuned"] < 1
        assert row["gap_ci"][0] <= row["gap"] <= row["gap_ci"][1]
