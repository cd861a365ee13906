"""The benchmarks run on a few real rows with the bundled experts, and their figures fit together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benching import benchmark


@pytest.mark.slow
def test_experts_reports_every_task_with_intervals(root: Path, data: Path) -> None:
    """Each bundled expert and task has accuracy inside its interval, and a measured latency."""
    results = benchmark(root, data, "experts", "--rows", "40")["results"]
    measured = {(row["expert"], row["task"]) for row in results}
    assert {("tiny", "clinc150"), ("small", "clinc150"), ("tiny", "banking77")} <= measured
    for row in results:
        low, high = row["accuracy_ci"]
        assert low <= row["accuracy"] <= high
        assert row.get("p50_ms", 1.0) <= row.get("p95_ms", 1.0)
    assert any(row.get("oos_auroc") is not None for row in results)


@pytest.mark.parametrize("graph", ["support", "desk"])
def test_support_compares_the_cascade_with_its_tiers_and_with_chance(
    graph: str, root: Path, data: Path
) -> None:
    """Tiers and abstentions sum to one, nothing was paid, and each alternative is there."""
    (figures,) = benchmark(root, data, "support", "--rows", "60", "--graphs", graph)["graphs"]
    assert sum(figures["tiers"].values()) == pytest.approx(1.0)
    assert figures["cost_usd"] == 0.0
    assert figures["baseline_usd"] > 0.0
    assert set(figures["alone"]) == {"haiku", "sonnet"}
    assert figures["random"]["accuracy"] < figures["accuracy"]
    assert ("gate" in figures) == (graph == "desk")
    assert figures["oos_wrong"] is not None


def test_a_benchmark_without_its_data_says_where_to_get_it(root: Path, tmp_path: Path) -> None:
    """No traceback: the source and its licence are named."""
    command = [sys.executable, "benchmarks/support.py", "--data", str(tmp_path), "--graphs", "support"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "github.com/clinc/oos-eval" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_simulation_of_promotions_passes_good_models_and_few_worse_ones(root: Path) -> None:
    command = [sys.executable, "benchmarks/promotion.py", "--trials", "20", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert all(row["promoted"] <= 0.2 for row in rows if row["better"] - row["worse"] < -0.01)
    assert all(row["promoted"] >= 0.8 for row in rows if row["better"] >= row["worse"])


def test_the_simulation_of_drift_has_few_false_alarms_and_sees_a_collapse(root: Path) -> None:
    """Even five trials tell a threshold that never fires from one that does."""
    command = [sys.executable, "benchmarks/drift.py", "--trials", "5", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert max(figures["false_alarms"].values()) <= 0.4
    assert all(row["seen"] == 1.0 for row in figures["detection"] if row["accepted_now"] < 0.4)
