"""A policy decides rows as it says, live and in tables; broken files and impossible policies are refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outcome_maker import outcomes

from cascade.errors import ConfigError
from cascade.policy.apply import apply_policy, curve_values, routing_score, score_values
from cascade.policy.artifact import Feature, Policy, Score, Term, read_policy, write_policy
from cascade.policy.calibrate import Curve
from cascade.policy.features import Features
from cascade.policy.table import ModelOutcomes, Outcomes


def score(kind: str, weight: float, **fields: str) -> dict[str, Any]:
    return {"bias": 0.0, "terms": [{"feature": {"kind": kind, **fields}, "weight": weight}]}


AHEAD = score("text", 1.0, model="b", name="chars")
LENGTH = score("prompt", 1.0, name="chars")


def made(**changes: Any) -> Policy:
    """Accept haiku where its p10 is high, give up where it is very low, else ask opus."""
    fields: dict[str, Any] = {
        "goal": {"kind": "lambda", "value": 1.0},
        "stages": [
            {
                "model": "haiku", "accept": 0.65, "abstain_below": 0.51,
                "score": score("signal", 1.0, model="haiku", name="p10"),
            },
            {"model": "opus", "accept": "always"},
        ],
        "rows": 10, "fitted_rows": 10, "certified_rows": 0,
        "data_sha256": "", "seed": 0, "fitted": "2026-01-01",
    }  # fmt: skip
    return Policy.model_validate(fields | changes)


def test_rows_are_accepted_given_up_and_escalated_by_the_score() -> None:
    table = outcomes(500)
    decided = apply_policy(made(), table)
    p10 = 1 / (1 + np.exp(-table.models["haiku"].signals["p10"]))
    expected = np.where(p10 >= 0.65, 0, np.where(p10 < 0.51, -1, 1))
    assert np.array_equal(decided.answered_by, expected)
    assert set(expected) == {-1, 0, 1}
    assert decided.cost_usd[expected == 0] == pytest.approx(1e-4)
    assert decided.cost_usd[expected == 1] == pytest.approx(1e-4 + 1e-2)
    assert decided.cost_usd[expected == -1] == pytest.approx(1e-4)


def test_a_missing_signal_escalates_and_never_accepts() -> None:
    table = outcomes(3)
    haiku = table.models["haiku"]
    bare = ModelOutcomes(haiku.quality, haiku.cost_usd, haiku.seconds, haiku.confidence)
    decided = apply_policy(made(), Outcomes(table.ids, table.prompts, {**table.models, "haiku": bare}))
    assert decided.answered_by.tolist() == [1, 1, 1]


def test_a_row_without_the_outcome_of_an_asked_model_cannot_be_known() -> None:
    table = outcomes(200)
    opus = table.models["opus"]
    gone = ModelOutcomes(*(np.full(200, np.nan),) * 4)
    decided = apply_policy(made(), Outcomes(table.ids, table.prompts, {**table.models, "opus": gone}))
    known = apply_policy(made(), table)
    assert np.array_equal(decided.answered_by == -2, known.answered_by == 1)
    assert np.isnan(decided.cost_usd[decided.answered_by == -2]).all()
    assert opus.quality.sum() > 0


def test_a_gate_skips_the_cheap_model() -> None:
    gate = {"score": score("prompt", 1.0, name="chars"), "skip_at": 0.95, "to": "opus"}
    policy = made(gate=gate)
    table = outcomes(300)
    decided = apply_policy(policy, table)
    assert policy.gate is not None
    skips = score_values(policy.gate.score, Features(table), 300) >= 0.95
    assert decided.cost_usd[skips] == pytest.approx(1e-2)
    assert not np.isclose(decided.cost_usd[~skips], 1e-2).any()
    assert 0 < skips.sum() < 300


def test_what_the_gate_passed_over_tells_nothing() -> None:
    """Live, the skipped model has no answer; a table has one all the same."""
    gate = {"score": score("prompt", 1.0, name="chars"), "skip_at": 0.95, "to": "sonnet"}
    stages = [
        {"model": "haiku", "accept": "never"},
        {"model": "sonnet", "accept": 0.1, "score": score("signal", 1.0, model="haiku", name="p10")},
        {"model": "opus", "accept": "always"},
    ]
    table = outcomes(300)
    decided = apply_policy(made(gate=gate, stages=stages), table)
    skipped = np.array([len(prompt or "") for prompt in table.prompts]) >= np.expm1(np.log(0.95 / 0.05))
    assert np.array_equal(decided.answered_by, np.where(skipped, 2, 1))
    assert 0 < skipped.sum() < 300


def test_a_failed_call_is_paid_for_and_escalates() -> None:
    table = outcomes(40)
    haiku, bad = table.models["haiku"], np.arange(40) < 10
    broken = replace(
        haiku,
        quality=np.where(bad, np.nan, haiku.quality),
        texts=[None if bad[row] else text for row, text in enumerate(haiku.texts)],
    )
    changed = Outcomes(table.ids, table.prompts, {**table.models, "haiku": broken})
    for accept in (0.65, "always"):
        stages = [
            made().stages[0].model_dump() | {"accept": accept, "abstain_below": None},
            {"model": "opus", "accept": "always"},
        ]
        decided = apply_policy(made(stages=stages), changed)
        assert decided.answered_by[bad].tolist() == [1] * 10
        assert decided.cost_usd[bad] == pytest.approx(1e-4 + 1e-2)


def test_the_routing_score_is_the_last_check_or_the_gate() -> None:
    table = outcomes(50)
    assert routing_score(made(), table).min() > 0
    with pytest.raises(ConfigError, match="same way"):
        routing_score(made(stages=[{"model": "opus", "accept": "always"}]), table)


@pytest.mark.parametrize(
    "curve",
    [Curve(method="isotonic", x=(0.2, 0.5, 0.9), y=(0.1, 0.4, 0.8)), Curve(method="platt", a=3.0, b=-1.0)],
)
def test_a_curve_maps_columns_like_single_scores(curve: Curve) -> None:
    column = np.linspace(0, 1, 23)
    assert curve_values(curve, column) == pytest.approx([curve.apply(float(at)) for at in column])
    assert np.isnan(curve_values(curve, np.array([np.nan]))).all()


def test_a_blank_answer_agrees_with_nobody() -> None:
    empty = np.zeros(4)
    models = {
        name: ModelOutcomes(empty, empty, empty, empty, texts=texts)
        for name, texts in (("a", ["Yes ", "", None, "no"]), ("b", ["yes", " ", "x", "maybe"]))
    }
    column = Features(Outcomes(list("1234"), [None] * 4, models)).column(
        Feature(kind="agreement", model="a", other="b")
    )
    assert column[[0, 1, 3]].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(column[2])


def voting(*answers: list[str | None]) -> Features:
    """A table whose models a, b, … gave these answers."""
    empty = np.zeros(len(answers[0]))
    models = {
        name: ModelOutcomes(empty, empty, empty, empty, texts=texts)
        for name, texts in zip("abcde", answers, strict=False)
    }
    return Features(Outcomes([str(row) for row in range(len(empty))], [None] * len(empty), models))


@given(
    st.lists(st.tuples(*[st.sampled_from(["yes", "no", "perhaps", ""])] * 4), min_size=1, max_size=20),
)
def test_votes_are_those_that_counting_finds(rows: list[tuple[str, ...]]) -> None:
    features = voting(*(list(column) for column in zip(*rows, strict=True)))
    votes = {
        name: features.column(Feature(kind="votes", model="a", among=("b", "c", "d"), name=name))
        for name in ("for", "against", "answers")
    }
    for index, answers in enumerate(rows):
        own, *others = [text or f"blank of {place}" for place, text in enumerate(answers)]
        against = Counter(text for text in others if text != own)
        assert votes["for"][index] == others.count(own)
        assert votes["against"][index] == max(against.values(), default=0)
        assert votes["answers"][index] == len({own, *others})


def test_a_vote_of_a_model_that_did_not_answer_is_missing() -> None:
    features = voting(["yes", "yes", None], ["yes", None, "yes"], ["no", "no", "no"])
    for name in ("for", "against", "answers"):
        column = features.column(Feature(kind="votes", model="a", among=("b", "c"), name=name))
        assert np.isfinite(column).tolist() == [True, False, False]


def test_a_term_above_a_knot_weighs_only_what_exceeds_it() -> None:
    features = voting(["a", "abcd", "abcdefgh"])
    length = Feature(kind="text", model="a", name="chars")
    at = float(np.log1p(4))
    score = Score(bias=0.0, terms=(Term(feature=length, weight=2.0, above=at),))
    found = score_values(score, features, 3)
    assert found.tolist() == pytest.approx([0.5, 0.5, 1 / (1 + np.exp(-2 * (np.log1p(8) - at)))])


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        ({"kind": "votes", "model": "a", "name": "for"}, "only votes are counted among models"),
        ({"kind": "votes", "model": "a", "name": "most", "among": ["b"]}, "votes are for, against, answers"),
        ({"kind": "signal", "model": "a", "name": "x", "among": ["b"]}, "only votes"),
    ],
)
def test_impossible_votes_are_refused(feature: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Feature(**feature)


def test_a_table_without_a_model_of_the_policy_is_refused() -> None:
    table = outcomes(5)
    with pytest.raises(ConfigError, match=r"asks opus.*known: haiku"):
        apply_policy(made(), Outcomes(table.ids, table.prompts, {"haiku": table.models["haiku"]}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"stages": []}, "at least 1"),
        ({"stages": [{"model": "a", "accept": 0.5}]}, "needs a 'score'"),
        ({"stages": [{"model": "a", "accept": "always"}] * 2}, "asked once"),
        ({"stages": [{"model": "a", "accept": 0.5, "score": AHEAD}]}, "has not been asked"),
        ({"gate": {"score": LENGTH, "skip_at": 0.5, "to": "haiku"}}, "gate.to is 'haiku'"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)  # fmt: skip
def test_impossible_policies_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        made(**changes)


@pytest.mark.parametrize("content", ["", "{", '{"version": 2}', "[]", "\0"])
def test_a_broken_file_is_named_with_the_way_out(content: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"policy\.json.*cascade tune"):
        read_policy(path)


def test_a_missing_file_and_an_impossible_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        read_policy(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_policy(made(), tmp_path / "file" / "policy.json")
