"""Calibration: the map is honest, monotone, readable and refuses broken files."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from cascade.errors import ConfigError
from cascade.policy.calibrate import (
    Calibration,
    Curve,
    cross_fit,
    fit,
    fit_isotonic,
    fit_platt,
    read_calibration,
    write_calibration,
)

ROWS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)
METHODS = ("isotonic", "platt")


def sample(rows: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Scores whose true P(correct) is the score squared."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=rows)
    return scores.tolist(), (rng.uniform(size=rows) < scores**2).tolist()


def calibration(**changes: object) -> Calibration:
    """A valid calibration with some fields changed."""
    fields: dict[str, object] = {
        "method": "isotonic", "by": "labels", "signal": "top1", "x": (0.2, 0.9), "y": (0.1, 0.97),
        "rows": 100, "accuracy": 0.8, "auroc": 0.9, "ece": 0.02, "brier": 0.1,
        "data_sha256": "a" * 64, "model_fingerprint": "b" * 64, "fitted": "2026-11-21",
    }  # fmt: skip
    return Calibration.model_validate(fields | changes)


@pytest.mark.parametrize("method", METHODS)
@given(rows=ROWS, scores=st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_fitted_map_never_falls_and_never_claims_certainty(
    method: str, rows: list[tuple[float, bool]], scores: list[float]
) -> None:
    """For any rows and any scores, confidence is nondecreasing and strictly inside (0, 1)."""
    curve = fit(method, *zip(*rows, strict=True))
    found = [curve.apply(score) for score in sorted(scores)]
    assert found == sorted(found)
    assert all(0.0 < value < 1.0 for value in found)
    assert curve.lowest <= found[0] <= found[-1] <= curve.highest


@given(rows=ROWS)
def test_an_isotonic_map_agrees_with_numpy_interp_over_its_knots(rows: list[tuple[float, bool]]) -> None:
    """The pure Python interpolation is numpy's, to rounding."""
    curve = fit_isotonic(*zip(*rows, strict=True))
    at = np.linspace(-0.1, 1.1, 50)
    np.testing.assert_allclose(
        [curve.apply(score) for score in at], np.interp(at, curve.x, curve.y), atol=1e-9
    )


@given(rows=ROWS)
def test_an_isotonic_map_does_not_depend_on_the_order_of_its_rows(rows: list[tuple[float, bool]]) -> None:
    """Tied scores are pooled, so any permutation gives the same knots."""
    assert fit_isotonic(*zip(*rows, strict=True)) == fit_isotonic(*zip(*rows[::-1], strict=True))


@pytest.mark.parametrize(("right", "wrong"), [(3, 0), (0, 3), (100, 0), (0, 100)])
def test_rows_of_one_kind_get_the_rule_of_succession(right: int, wrong: int) -> None:
    """n right answers in a row are (n+1)/(n+2), not certainty."""
    rows = right + wrong
    curve = fit_isotonic([0.5] * rows, [True] * right + [False] * wrong)
    assert curve.apply(0.7) == pytest.approx((right + 1) / (rows + 2))


def test_a_lone_right_answer_at_the_top_does_not_lower_the_map() -> None:
    """The last block's honest 2/3 would fall below its neighbour's 0.9, so the neighbour's value stays."""
    curve = fit_isotonic([0.5] * 10 + [0.9], [True] * 9 + [False] + [True])
    assert curve.y == pytest.approx((0.9, 0.9))


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_map_recovers_the_truth_from_many_rows(method: str) -> None:
    """With 20,000 rows both maps come close to the true P(correct)."""
    truth = (lambda s: s**2) if method == "isotonic" else (lambda s: expit(4 * s - 2))
    rng = np.random.default_rng(1)
    scores = rng.uniform(size=20_000)
    curve = fit(method, scores.tolist(), (rng.uniform(size=20_000) < truth(scores)).tolist())
    for score in (0.2, 0.5, 0.8):
        assert curve.apply(score) == pytest.approx(truth(score), abs=0.04)


def test_platt_uses_the_regularised_targets_of_1999() -> None:
    """Without any slope to find, the map is the mean of Platt's targets, here 10 right and 0 wrong: 11/12."""
    assert fit_platt([0.5] * 10, [True] * 10).apply(0.5) == pytest.approx(11 / 12, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_that_falls_with_correctness_gives_one_confidence_for_all(method: str) -> None:
    """A map never rewards a misleading score: it is flat at the accuracy."""
    curve = fit(method, [0.1] * 50 + [0.9] * 50, [True] * 40 + [False] * 10 + [False] * 30 + [True] * 20)
    assert curve.lowest == pytest.approx(curve.highest)
    assert curve.highest == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_cross_fitted_confidence_is_repeatable_and_leaves_each_row_out(method: str) -> None:
    """The same seed gives the same numbers, another seed other folds, and they are not the in-sample ones."""
    scores, correct = sample(200)
    found = cross_fit(method, scores, correct)
    assert found == cross_fit(method, scores, correct)
    assert found != cross_fit(method, scores, correct, seed=1)
    in_sample = fit(method, scores, correct)
    assert found != [in_sample.apply(score) for score in scores]


@pytest.mark.parametrize(
    ("scores", "correct"), [([], []), ([0.1], [True, False]), ([math.nan], [True]), ([math.inf], [False])]
)
def test_rows_that_cannot_be_fitted_are_refused(scores: list[float], correct: list[bool]) -> None:
    """No rows, unequal columns, NaN and infinity are errors, for each way to fit."""
    for method in METHODS:
        with pytest.raises(ValueError, match="score"):
            fit(method, scores, correct)


def test_cross_fitting_needs_a_row_for_each_fold() -> None:
    """Three rows cannot make five folds."""
    with pytest.raises(ValueError, match="3 rows in 5 folds"):
        cross_fit("isotonic", [0.1, 0.2, 0.3], [True, False, True])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_map_refuses_a_score_that_is_no_number(score: float) -> None:
    """NaN is not a confidence."""
    with pytest.raises(ValueError, match="finite"):
        calibration().apply(score)


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_survives_writing_and_reading(method: str, tmp_path) -> None:
    """What is read is what was written, one field a line, and no draft file is left behind."""
    curve = fit(method, *sample(300))
    if method == "platt":
        written = calibration(method="platt", x=(), y=(), a=curve.a, b=curve.b)
    else:
        written = calibration(x=curve.x, y=curve.y)
    path = tmp_path / "new" / "one.json"
    write_calibration(written, path)
    assert read_calibration(path) == written
    assert path.read_text().splitlines()[1] == f'  "method": "{method}",'
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]


def test_writing_where_it_is_impossible_is_a_clear_error(tmp_path) -> None:
    """A file in place of the folder is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"one\.json: calibration file cannot be written"):
        write_calibration(calibration(), tmp_path / "file" / "one.json")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "calibration"),
        (b"not json", "calibration"),
        (b"\xff\xfe", "calibration"),
        (b"[]", "calibration"),
        (b'{"method": "isotonic"}', "rows: Field required"),
        (b"[" * 100_000, "calibration"),
    ],
)
def test_a_broken_calibration_file_is_a_config_error(content: bytes, complaint: str, tmp_path) -> None:
    """The message names the file, what is wrong and the command that writes a new one."""
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_calibration(path)
    assert str(error.value).startswith(str(path))
    assert complaint in str(error.value)
    assert "cascade calibrate" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"x": [0.2, 0.2]}, "x must increase"),
        ({"y": [0.9, 0.1]}, "y must not decrease"),
        ({"y": [0.5]}, "one y for each x"),
        ({"x": [], "y": []}, "one y for each x"),
        ({"y": [0.0, 0.5]}, "greater than 0"),
        ({"y": [0.5, 1.0]}, "less than 1"),
        ({"method": "platt"}, "needs a and b"),
        ({"a": 1.0, "b": 0.0}, "has no a or b"),
        ({"method": "platt", "x": [], "y": [], "a": -1.0, "b": 0.0}, "greater than or equal to 0"),
        ({"method": "magic"}, "isotonic"),
        ({"version": 2}, "version"),
        ({"data_sha256": "short"}, "data_sha256"),
        ({"surprise": 1}, "surprise"),
        ({"auroc": float("nan")}, "auroc"),
    ],
)
def test_a_calibration_file_with_a_wrong_field_is_refused(
    changes: dict[str, object], complaint: str, tmp_path
) -> None:
    """Maps that fall, claim certainty or are incomplete never get into a run."""
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(calibration().model_dump(mode="json", exclude_none=True) | changes))
    with pytest.raises(ConfigError, match=complaint):
        read_calibration(path)


@pytest.mark.parametrize("name", ["absent.json", ".", "nul\0.json"])
def test_a_calibration_file_that_cannot_be_read_is_a_config_error(name: str, tmp_path) -> None:
    """A missing file, a folder and an impossible name are named."""
    with pytest.raises(ConfigError, match="calibration file"):
        read_calibration(tmp_path / name)


def test_a_curve_needs_no_provenance() -> None:
    """A bare curve maps scores; the calibration adds where it comes from."""
    assert Curve(method="platt", a=2.0, b=-1.0).apply(0.5) == 0.5


def test_reading_calibrations_imports_neither_numpy_nor_scipy() -> None:
    """`cascade check` reads calibrations and must stay instant."""
    code = (
        "import sys; import cascade.policy.calibrate;"
        "sys.exit(bool({'numpy', 'scipy', 'langgraph', 'llama_cpp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
