"""The figures of a policy: tables small enough to be done by hand, and intervals that keep their level."""

import math
from typing import Any

import numpy as np
import pytest
from policies import certificate, policy, row, stage

from cascade.errors import ConfigError, RequestError
from cascade.lab.evaluation.evaluation import BASIC, CURVE, evaluate
from cascade.lab.evaluation.family import family
from cascade.lab.evaluation.metrics import bootstrap, figure, resampled
from cascade.lab.evaluation.routing import apgr, cpt, sweep
from cascade.lab.tables.outcomes import from_rows
from cascade.policy.artifact import Feature, PromptGate, Score, Term
from cascade.policy.table import Outcomes

TABLE = [
    row("1", "sums", small=(1, 1.0, 0.9), big=(1, 10.0, None)),  # accepted, right
    row("2", "sums", small=(0, 1.0, 0.8), big=(1, 10.0, None)),  # accepted, wrong
    row("3", "words", small=(1, 1.0, 0.2), big=(0, 10.0, None)),  # escalated, wrong
    row("4", "words", small=(0, 1.0, None), big=(1, 10.0, None)),  # no estimate: escalated, right
    row("5", "words", small=(0, 1.0, 0.1), big=None),  # escalated to what nobody recorded
]
PAIR = policy(stage("small", 0.5), stage("big"), certificates=[certificate("small", 0.4)])


def drawn(rows: int, seed: int = 0) -> Outcomes:
    """A table of two models, whose small one knows a little of when it is right."""
    draw = np.random.default_rng(seed)
    right = draw.random((rows, 2)) < (0.6, 0.9)
    sure = np.clip(draw.normal(0.4 + 0.25 * right[:, 0], 0.2), 0, 1).round(2)
    return from_rows(
        row(
            str(k),
            "ab"[k % 2],
            small=(int(right[k, 0]), 1.0, float(sure[k])),
            big=(int(right[k, 1]), 9.0, None),
        )
        for k in range(rows)
    )


def test_every_basic_figure_of_a_small_table_is_right() -> None:
    result = evaluate(PAIR, from_rows(TABLE), resamples=200)
    data = result.as_json()
    assert {name: data[name] for name in BASIC} == pytest.approx(
        {
            "accuracy": 0.5,
            "mean_cost_usd": (1 + 1 + 11 + 11) / 4,
            "mean_seconds": 12.0,
            "coverage": 1.0,
            "selective_risk": 0.5,
            "strong_share": 0.5,
        }
    )
    assert (data["rows"], data["unknown_rows"]) == (4, 1)
    assert data["answered_by"] == {"small": 0.5, "big": 0.5, "nobody": 0.0}
    assert data["accuracy_ci"][0] <= 0.5 <= data["accuracy_ci"][1]
    assert data["coverage_ci"] == [1.0, 1.0]


def test_the_json_has_every_figure_with_its_interval() -> None:
    data = evaluate(PAIR, drawn(200), by=["topic"], resamples=200).as_json()
    for name in (*BASIC, *CURVE):
        low, high = data[f"{name}_ci"]
        assert low <= data[name] <= high, name
    assert data["models"].keys() == {"small", "big"}
    assert {"auroc", "aurc", "ece", "brier"} <= data["models"]["small"].keys()
    assert {"stage", "kind", "alpha", "delta", "bound", "held"} <= data["certificates"][0].keys()
    assert [each["value"] for each in data["slices"]] == ["a", "b"]
    for result in (data["models"]["small"], data["slices"][0]["models"]["small"]):
        for name in ("auroc", "aurc", "ece", "brier"):
            low, high = result[f"{name}_ci"]
            assert low < high, name
        assert result["auroc_ci"][0] <= result["auroc"] <= result["auroc_ci"][1]
    assert data["models"]["big"]["auroc_ci"] is None
    assert (
        data["slices"][0]["models"]["small"]["confidence_rows"] < data["models"]["small"]["confidence_rows"]
    )


def test_an_abstention_is_not_right_and_counts_against_coverage() -> None:
    cautious = policy(stage("small", 0.5), stage("big", "never"))
    data = evaluate(cautious, from_rows(TABLE[:4]), resamples=50).as_json()
    assert (data["accuracy"], data["coverage"], data["selective_risk"]) == (0.25, 0.5, 0.5)
    assert data["answered_by"]["nobody"] == 0.5


def test_what_nobody_answers_has_no_risk() -> None:
    silent = policy(stage("small", "never"))
    data = evaluate(silent, from_rows(TABLE), resamples=50).as_json()
    assert (data["coverage"], data["selective_risk"], data["selective_risk_ci"]) == (0.0, None, None)
    assert [data[name] for name in CURVE] == [None] * 4


def test_routing_figures_of_a_pair_are_routellms() -> None:
    table = drawn(300)
    data = evaluate(PAIR, table, resamples=50).as_json()
    weak, strong = table.models["small"].quality, table.models["big"].quality
    need = -table.models["small"].confidence
    assert data["apgr"] == pytest.approx(apgr(need, weak, strong))
    assert data["cpt50"] == pytest.approx(cpt(need, weak, strong, 0.5))
    assert data["cpt80"] == pytest.approx(cpt(need, weak, strong, 0.8))
    share, quality = sweep(need, weak, strong)
    assert [point["accuracy"] for point in data["curve"]] == pytest.approx(quality)
    assert [point["mean_cost_usd"] for point in data["curve"]] == pytest.approx(1 + 9 * share)


def test_a_chain_of_three_runs_from_the_first_model_to_the_last() -> None:
    rows = [
        row(str(k), "x", a=(k % 2, 1.0, k / 10), b=(int(k % 3 > 0), 2.0, 1 - k / 10), c=(1, 5.0, None))
        for k in range(10)
    ]
    three = policy(stage("a", 0.7), stage("b", 0.7), stage("c"))
    moved = family(three, from_rows(rows), gated=False)
    assert moved is not None
    assert moved.cost_usd.shape == (10, 21)
    assert moved.cost_usd[:, 0].tolist() == [1.0] * 10
    assert moved.cost_usd[:, -1].tolist() == [8.0] * 10
    assert (np.diff(moved.cost_usd, axis=1) >= 0).all()
    assert moved.quality[:, 0].tolist() == [k % 2 for k in range(10)]
    assert moved.strong[:, -1].all()


def test_a_gate_saves_the_first_call_on_the_cost_curve_only() -> None:
    long = Score(bias=-5.0, terms=(Term(feature=Feature(kind="prompt", name="chars"), weight=1.0),))
    gate = PromptGate(score=long, skip_at=0.0, to="big")
    table = drawn(60)
    gated = evaluate(policy(stage("small", 0.5), stage("big"), gate=gate), table, resamples=20)
    plain = evaluate(PAIR, table, resamples=20)
    assert gated.figures["apgr"] == plain.figures["apgr"]
    assert gated.curve[0] == pytest.approx((9.0, float(table.models["big"].quality.mean())))
    assert gated.figures["strong_share"].value == 1.0


def test_a_gate_alone_is_moved_itself() -> None:
    length = Score(bias=0.0, terms=(Term(feature=Feature(kind="prompt", name="chars"), weight=1.0),))
    gate = PromptGate(score=length, skip_at=0.99, to="big")
    table = drawn(120)
    result = evaluate(policy(stage("small"), stage("big"), gate=gate), table, resamples=20)
    chars = [len(prompt or "") for prompt in table.prompts]
    expected = apgr(chars, table.models["small"].quality, table.models["big"].quality)
    assert result.figures["apgr"].value == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "held"), [(0.4, False), (0.5, True)])
def test_a_certificate_held_if_the_rows_are_within_it(alpha: float, held: bool) -> None:
    promised = policy(stage("small", 0.5), stage("big"), certificates=[certificate("small", alpha)])
    result = evaluate(promised, from_rows(TABLE[:4]), resamples=20).certificates[0]
    assert (result["held"], result["observed"], result["observed_rows"]) == (held, 0.5, 2)
    assert result["p_value"] == pytest.approx(1 - (1 - alpha) ** 2)


def test_a_promise_about_answers_that_nobody_gave_is_not_broken() -> None:
    promised = policy(stage("small", 0.99), stage("big"), certificates=[certificate("small", 0.01)])
    result = evaluate(promised, from_rows(TABLE[:4]), resamples=20).certificates[0]
    assert (result["held"], result["observed"], result["p_value"]) == (True, None, None)


def test_loss_is_measured_against_the_top_model() -> None:
    promised = policy(stage("small", 0.5), stage("big"), certificates=[certificate("big", 0.2, "max_loss")])
    result = evaluate(promised, from_rows(TABLE[:4]), resamples=20).certificates[0]
    assert (result["held"], result["observed"], result["observed_rows"]) == (False, 0.25, 4)


def test_confidences_of_policy_and_table_are_both_measured() -> None:
    small = evaluate(PAIR, drawn(200), resamples=20).as_json()["models"]["small"]
    assert (small["confidence"], small["reported"]["confidence"]) == ("policy", "table")
    assert small["auroc"] == pytest.approx(small["reported"]["auroc"])
    assert small["ece"] != small["reported"]["ece"]


def test_a_model_without_confidence_has_none_made_up() -> None:
    big = evaluate(PAIR, drawn(50), resamples=20).as_json()["models"]["big"]
    assert [big[name] for name in ("confidence", "auroc", "aurc", "ece", "brier")] == [None] * 5


def test_slices_hold_the_figures_of_their_own_rows() -> None:
    sums, words = evaluate(PAIR, from_rows(TABLE[:4]), by=["topic"], resamples=50).slices
    assert (sums["field"], sums["value"], sums["rows"], sums["mean_cost_usd"]) == ("topic", "sums", 2, 1.0)
    assert (words["value"], words["strong_share"], words["accuracy"]) == ("words", 1.0, 0.5)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    table = drawn(100)
    one, two, other = (evaluate(PAIR, table, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert one.figures == two.figures
    assert one.figures["accuracy"].value == other.figures["accuracy"].value
    assert one.figures["accuracy"] != other.figures["accuracy"]


def test_the_vectorised_bootstrap_agrees_with_the_plain_one() -> None:
    column = np.random.default_rng(3).random(80)
    quick = figure(lambda m: m["x"], resampled({"x": column}, resamples=4000))
    plain = bootstrap(lambda x: float(x.mean()), column, resamples=4000, seed=9)
    assert (quick.low, quick.high) == pytest.approx(plain, abs=0.005)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    draw, hits = np.random.default_rng(0), 0
    for seed in range(200):
        column = (draw.random(150) < 0.3).astype(float)
        result = figure(lambda m: m["x"], resampled({"x": column}, resamples=200, seed=seed))
        hits += result.low <= 0.3 <= result.high
    assert 180 <= hits <= 200


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"policy": policy(stage("tiny"))}, ConfigError, "asks tiny, which the outcome table lacks"),
        (
            {"policy": PAIR.model_copy(update={"certificates": (certificate("tiny", 0.1),)})},
            ConfigError,
            "certificate of unknown stage 'tiny'; known: small, big",
        ),
        ({"by": ["colour"]}, RequestError, "no field 'colour' .* known: topic"),
        ({"outcomes": from_rows([*TABLE[4:], row("6", "x", big=(1, 1.0, None))])}, RequestError, "none of 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: Any, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        evaluate(**{"policy": PAIR, "outcomes": from_rows(TABLE), **change})


def test_untimed_rows_are_left_out_of_the_mean_time() -> None:
    rows = [dict(each) for each in TABLE[:2]]
    rows[1]["models"] = {
        name: {key: value for key, value in entry.items() if key != "seconds"}
        for name, entry in rows[1]["models"].items()
    }
    result = evaluate(PAIR, from_rows(rows), resamples=50)
    assert result.figures["mean_seconds"].value == 2.0
    assert not math.isnan(result.figures["mean_seconds"].low)
