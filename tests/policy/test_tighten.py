"""A tightened threshold: the smallest that audited rows support, however often one looks, or none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.errors import ConfigError
from cascade.policy.bounds import risk_upper
from cascade.policy.tighten import REFUSE, Tightened, read_state, share_of, state_path, supported

AUDITS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=200)


@settings(deadline=None)
@given(AUDITS, st.floats(0.05, 0.5), st.floats(0, 0.9))
def test_what_is_supported_keeps_the_bound_and_is_never_below_the_old(
    audits: list[tuple[float, bool]], alpha: float, least: float
) -> None:
    values, wrong = [value for value, _ in audits], [bad for _, bad in audits]
    found = supported(values, wrong, min_accept=least, alpha=alpha, delta=0.1)
    assert found.accept >= least
    taken = [bad for value, bad in audits if value >= found.accept]
    assert (len(taken), sum(taken)) == (found.rows, found.errors)
    if found.accept < REFUSE:
        assert found.bound == risk_upper(found.errors, found.rows, 0.1) <= alpha


def test_good_audits_leave_the_threshold_bad_ones_raise_it_few_refuse() -> None:
    values = [0.5 + 0.005 * step for step in range(100)]
    fine = supported(values, [False] * 100, min_accept=0.5, alpha=0.05, delta=0.1)
    assert (fine.accept, fine.rows) == (0.5, 100)
    raised = supported(values, [value < 0.6 for value in values], min_accept=0.5, alpha=0.05, delta=0.1)
    assert 0.55 < raised.accept <= 0.6
    assert supported(values[:20], [False] * 20, min_accept=0.5, alpha=0.05, delta=0.1).accept == REFUSE


def test_a_refusal_says_how_many_audits_the_next_look_needs() -> None:
    refused = Tightened(
        was=0.8, accept=REFUSE, alpha=0.03, delta=0.05, bound=1.0, rows=0, errors=0, audited=100, looks=1,
        alarm="r", at="2026-01-01",
    )  # fmt: skip
    least = refused.fact.rows_needed or 0
    values = [0.8 + index / 10_000 for index in range(least)]
    for count, supports in ((least, True), (least - 1, False)):
        found = supported(
            values[:count], [False] * count, min_accept=0.8, alpha=0.03, delta=share_of(0.05, 2)
        )
        assert (found.accept < REFUSE) is supports


def test_all_looks_together_break_the_promise_at_most_as_often_as_delta_says() -> None:
    """Looking after every ten audits of a stage that errs a little too often at each threshold."""
    assert sum(share_of(0.1, look) for look in range(1, 10_000)) == pytest.approx(0.1, abs=1e-4)
    broken = 0
    for seed in range(300):
        draw = random.Random(seed)
        audits = [(draw.random(), draw.random() < 0.21) for _ in range(300)]
        looks = (
            supported(
                [value for value, _ in audits[:size]],
                [bad for _, bad in audits[:size]],
                min_accept=0.0,
                alpha=0.2,
                delta=share_of(0.1, look),
            )
            for look, size in enumerate(range(10, 301, 10), start=1)
        )
        broken += any(found.accept < REFUSE for found in looks)
    assert broken / 300 <= 0.1 + 2 * (0.1 * 0.9 / 300) ** 0.5


def test_a_broken_state_file_is_refused_and_a_missing_one_is_none(tmp_path: Path) -> None:
    path = state_path(tmp_path / "graph.yaml")
    assert path.name == "graph.drift.json"
    assert read_state(path) == {}
    path.write_text('{"graph": "g", "stages": {"first": {"accept": "high"}}}')
    with pytest.raises(ConfigError, match=r"drift\.json: stages\.first\.accept.*cascade monitor"):
        read_state(path)
