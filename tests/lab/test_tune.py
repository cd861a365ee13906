"""Tuning keeps its goals on rows it never saw, refuses honestly, and leaves a policy that can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from outcome_maker import NAMES, outcomes

from cascade.errors import ConfigError
from cascade.lab.tuning.promise import Refusal
from cascade.lab.tuning.tune import tune
from cascade.policy.apply import apply_policy
from cascade.policy.artifact import Feature, Goal, Policy, read_policy, write_policy
from cascade.policy.features import features_of
from cascade.policy.table import Outcomes

RISK = Goal(kind="max_risk", value=0.08, delta=0.05)
LOSS = Goal(kind="max_loss", value=0.04, delta=0.05)


@pytest.fixture(scope="module")
def train() -> Outcomes:
    return outcomes(1500)


@pytest.fixture(scope="module")
def test_rows() -> Outcomes:
    return outcomes(20_000, seed=1)


def tuned(table: Outcomes, goal: Goal) -> Policy:
    result = tune(table, goal)
    assert isinstance(result, Policy), result
    return result


def test_max_risk_holds_for_every_stage_and_saves_money(train: Outcomes, test_rows: Outcomes) -> None:
    policy = tuned(train, RISK)
    decided = apply_policy(policy, test_rows)
    assert policy.certificates
    for each in policy.certificates:
        taken = decided.answered_by == policy.chain.index(each.stage)
        assert 1 - decided.quality[taken].mean() <= each.bound <= RISK.value
        assert each.rows == policy.certified_rows == 750
    assert decided.cost_usd.mean() < test_rows.models["opus"].cost_usd.mean()


def test_max_loss_holds_for_the_whole_policy(train: Outcomes, test_rows: Outcomes) -> None:
    policy = tuned(train, LOSS)
    decided = apply_policy(policy, test_rows)
    loss = (test_rows.models["opus"].quality - decided.quality).mean()
    (certificate,) = policy.certificates
    assert loss <= certificate.bound <= LOSS.value
    assert decided.cost_usd.mean() < 0.8 * test_rows.models["opus"].cost_usd.mean()


def test_the_certificate_counts_exactly_the_rows_that_fitted_nothing(train: Outcomes) -> None:
    policy = tuned(train, LOSS)
    order = np.random.default_rng(policy.seed).permutation(len(train))
    held_out = train.take(np.sort(order[len(train) // 2 :]))
    decided = apply_policy(policy, held_out)
    top = held_out.models["opus"].quality
    assert policy.certificates[0].errors == int((decided.quality < top).sum())
    assert policy.certificates[0].gains == int((decided.quality > top).sum())


def test_a_budget_is_kept_and_spent_well(train: Outcomes, test_rows: Outcomes) -> None:
    cheap, dear = (tuned(train, Goal(kind="budget", value=usd)) for usd in (0.0005, 0.005))
    result = [apply_policy(policy, test_rows) for policy in (cheap, dear)]
    assert result[0].cost_usd.mean() < 0.0006 < result[1].cost_usd.mean() < 0.006
    assert test_rows.models["haiku"].quality.mean() < result[0].quality.mean() < result[1].quality.mean()


def test_a_higher_price_of_money_spends_less(train: Outcomes) -> None:
    costs = [
        apply_policy(tuned(train, Goal(kind="lambda", value=v)), train).cost_usd.mean() for v in (1, 30, 3000)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[-1]


def test_a_price_of_abstention_lets_it_abstain(train: Outcomes) -> None:
    goal = Goal(kind="lambda", value=20.0, abstention_price=0.6)
    decided = apply_policy(tuned(train, goal), train)
    given_up = decided.answered_by == -1
    assert 0 < given_up.mean() < 0.5
    assert train.models["opus"].quality[given_up].mean() < 0.75
    assert np.isnan(decided.quality[given_up]).all()


def test_the_prompts_alone_can_send_hard_rows_straight_to_the_top(train: Outcomes) -> None:
    models = {
        name: replace(train.models[name], confidence=np.full(1500, np.nan), signals={}, texts=())
        for name in NAMES
    }
    policy = tuned(
        replace(train, models={name: models[name] for name in ("haiku", "opus")}),
        Goal(kind="lambda", value=40.0),
    )
    assert policy.gate is not None
    decided = apply_policy(policy, train)
    skipped = (decided.answered_by == policy.chain.index("opus")) & (decided.cost_usd < 0.0101)
    hard = np.array([prompt.count("x ") for prompt in train.prompts if prompt])
    assert hard[skipped].mean() > hard[~skipped].mean()


@pytest.mark.parametrize(
    "goal", [Goal(kind="max_risk", value=0.01, delta=0.01), Goal(kind="max_loss", value=0.001, delta=0.01)]
)
def test_too_few_rows_are_refused_with_the_number_needed(goal: Goal) -> None:
    result = tune(outcomes(80), goal)
    assert isinstance(result, Refusal)
    assert result.rows is None or result.rows > 80
    assert "80 rows" in result.reason or "no setting" in result.reason


@pytest.mark.parametrize("goal", [RISK, LOSS])
def test_a_table_whose_best_model_is_its_cheapest_has_nothing_to_save(train: Outcomes, goal: Goal) -> None:
    free = replace(train.models["opus"], cost_usd=np.zeros(len(train)))
    result = tune(replace(train, models={**train.models, "opus": free}), goal)
    assert isinstance(result, Refusal)
    assert "opus is the most accurate model, and none is cheaper" in result.reason
    assert "--chain" in result.reason


def test_a_budget_below_the_cheapest_model_buys_nothing(train: Outcomes) -> None:
    result = tune(train, Goal(kind="budget", value=1e-9))
    assert isinstance(result, Refusal)
    assert "cheapest" in result.reason


def test_rows_that_lack_a_model_are_left_out(train: Outcomes) -> None:
    opus = train.models["opus"]
    quality, cost = opus.quality.copy(), opus.cost_usd.copy()
    quality[:100] = cost[:100] = np.nan
    lacking = replace(opus, quality=quality, cost_usd=cost)
    table = replace(train, models={**train.models, "opus": lacking})
    assert tuned(table, RISK).rows == 1400


def test_a_graded_quality_cannot_be_promised(train: Outcomes) -> None:
    graded = replace(train.models["haiku"], quality=np.full(len(train), 0.5))
    table = replace(train, models={**train.models, "haiku": graded})
    with pytest.raises(ConfigError, match=r"row '0': haiku has quality 0\.5.*--budget"):
        tune(table, RISK)
    assert isinstance(tune(table, Goal(kind="lambda", value=1.0)), Policy)


def test_an_unknown_model_names_the_known_ones(train: Outcomes) -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'gpt'.*haiku, sonnet, opus"):
        tune(train, RISK, chain=["gpt", "opus"])


def test_too_few_rows_to_fit_anything_say_how_many(train: Outcomes) -> None:
    with pytest.raises(ConfigError, match="30 complete rows; tuning needs at least 40"):
        tune(train.take(np.arange(30)), RISK)


def test_an_old_policy_is_kept_where_it_still_holds_on_new_rows(train: Outcomes) -> None:
    old = tuned(train, LOSS)
    new = replace(outcomes(3000, seed=2), sha256="1" * 64)
    kept = tune(new, LOSS, old=old)
    assert isinstance(kept, Policy)
    assert kept.stages == old.stages
    assert kept.certified_rows == 3000
    assert kept.certificates[0].delta == LOSS.delta / 2
    assert "kept" in kept.changes[0]


def test_an_old_policy_is_not_certified_on_the_rows_it_was_tuned_on(train: Outcomes) -> None:
    again = tune(train, LOSS, old=tuned(train, LOSS))
    assert isinstance(again, Policy)
    assert again.certified_rows == 750
    assert "fitted anew" in again.changes[-1]


def test_a_written_policy_decides_the_same(train: Outcomes, tmp_path: Path) -> None:
    policy = tuned(train, Goal(kind="lambda", value=20.0))
    write_policy(policy, tmp_path / "p.json")
    before, after = apply_policy(policy, train), apply_policy(read_policy(tmp_path / "p.json"), train)
    assert np.array_equal(before.answered_by, after.answered_by)
    assert np.array_equal(before.cost_usd, after.cost_usd)


def test_the_same_rows_and_seed_give_the_same_policy(train: Outcomes) -> None:
    assert tuned(train, RISK) == tuned(train, RISK)


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_less_than_two_gigabytes() -> None:
    """How long they take is for `benchmarks/tuning_speed.py` to say."""
    import resource

    tuned(outcomes(100_000), LOSS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000


def test_rows_of_a_table_have_the_features_that_they_have_alone(train: Outcomes) -> None:
    rows = np.array([5, 3, 900, 3])
    part = train.take(rows)
    alone = Outcomes(part.ids, part.prompts, part.models)
    for feature in (
        Feature(kind="agreement", model="haiku", other="opus"),
        Feature(kind="votes", model="haiku", among=("sonnet", "opus"), name="against"),
        Feature(kind="text", model="haiku", name="chars"),
        Feature(kind="prompt", name="words"),
    ):
        assert np.array_equal(features_of(part).column(feature), features_of(alone).column(feature))
    for one, other in zip(features_of(part).words(None, 64), features_of(alone).words(None, 64), strict=True):
        assert np.array_equal(one, other)


def failing(table: Outcomes, bad: np.ndarray) -> Outcomes:
    """The table, but haiku's call failed on some rows: it was paid for and said nothing."""
    haiku = table.models["haiku"]
    gone = {
        "quality": np.where(bad, np.nan, haiku.quality),
        "confidence": np.where(bad, np.nan, haiku.confidence),
        "signals": {name: np.where(bad, np.nan, value) for name, value in haiku.signals.items()},
        "texts": [None if bad[row] else text for row, text in enumerate(haiku.texts)],
    }
    models = {**table.models, "haiku": replace(haiku, **gone)}
    return Outcomes(table.ids, table.prompts, models, {}, table.sha256)


@pytest.mark.parametrize(
    "goal",
    [
        Goal(kind="max_loss", value=0.08, delta=0.1),
        Goal(kind="max_risk", value=0.15, delta=0.1),
        Goal(kind="lambda", value=20.0),
    ],
    ids=["loss", "risk", "price"],
)
def test_a_failed_call_is_a_row_that_goes_on_and_is_paid_for(goal: Goal) -> None:
    bad = np.arange(1200) % 5 == 0
    policy = tune(failing(outcomes(1200, seed=4), bad), goal, chain=["haiku", "opus"])
    assert isinstance(policy, Policy)
    assert policy.rows == 1200, "failed rows are rows like others"
    assert policy.stages[0].score is not None, "what haiku says where it answers is used"
    decided = apply_policy(policy, failing(outcomes(1200, seed=5), bad))
    assert (decided.answered_by[bad] == 1).all()
    assert (decided.answered_by[~bad] == 0).any()
    paid = decided.cost_usd[bad]
    assert (np.isclose(paid, 1e-4 + 1e-2) | (np.isclose(paid, 1e-2) & (policy.gate is not None))).all()
    assert all(each.bound <= each.alpha for each in policy.certificates)
