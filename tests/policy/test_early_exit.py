"""A draft that early exit stops could never have been accepted, whatever came next."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.confidence import logprob
from cascade.models.base import Reply
from cascade.policy.calibrate import Curve
from cascade.policy.early_exit import BOUNDED, EarlyExit, best_score
from cascade.records import Token


class Running:
    """What the engine measures: exact statistics, the quantile without interpolation."""

    def __init__(self, tokens: list[tuple[float, float]]) -> None:
        self.count = len(tokens)
        self._values = {"logprob": sorted(t[0] for t in tokens), "entropy": sorted(t[1] for t in tokens)}

    def mean(self, name: str = "logprob") -> float:
        return math.fsum(self._values[name]) / self.count

    def quantile(self, share: float, name: str = "logprob") -> float:
        values = self._values[name]
        return values[max(0, math.ceil(share * len(values)) - 1)]


def score(signal: str, tokens: list[tuple[float, float]]) -> float:
    made = tuple(Token(text="x", logprob=value, entropy=entropy) for value, entropy in tokens)
    return logprob.signals(Reply(text="x", tokens=made))[signal]


token = st.tuples(st.floats(-20.0, 0.0) | st.just(0.0), st.floats(0.0, 8.0) | st.just(0.0))
curve = st.sampled_from(
    [
        None,
        Curve(method="isotonic", x=(0.2, 0.4, 0.9), y=(0.1, 0.5, 0.97)),
        Curve(method="platt", a=9.0, b=-4.0),
        Curve(method="platt", a=0.0, b=1.0),
    ]
)


@settings(max_examples=400)
@given(
    signal=st.sampled_from(BOUNDED),
    begun=st.lists(token, min_size=1, max_size=30),
    rest=st.lists(token, max_size=30),
    spare=st.integers(0, 40),
    accept=st.floats(0.0, 1.0),
    shape=curve,
)
def test_a_stopped_draft_could_never_have_been_accepted(
    signal: str,
    begun: list[tuple[float, float]],
    rest: list[tuple[float, float]],
    spare: int,
    accept: float,
    shape: Curve | None,
) -> None:
    most = len(begun) + len(rest) + spare
    finished = score(signal, begun + rest)
    assert finished <= best_score(signal, Running(begun), most)
    if EarlyExit(signal=signal, accept=accept, calibration=shape, max_tokens=most)(Running(begun)):
        confidence = shape.apply(finished) if shape is not None else finished
        assert confidence < accept


@pytest.mark.parametrize("signal", BOUNDED)
@given(begun=st.lists(token, min_size=1, max_size=12), more=st.integers(0, 12))
def test_the_bound_is_reached_by_a_draft_that_is_sure_from_there_on(
    signal: str, begun: list[tuple[float, float]], more: int
) -> None:
    bound = best_score(signal, Running(begun), len(begun) + more)
    assert bound == pytest.approx(score(signal, begun + [(0.0, 0.0)] * more), abs=1e-8)


def test_a_margin_is_never_hopeless() -> None:
    assert not EarlyExit(signal="margin", accept=1.0, max_tokens=1)(Running([(-20.0, 8.0)]))


def test_before_the_first_token_there_is_hope() -> None:
    assert not EarlyExit(signal="min", accept=1.0, max_tokens=10)(Running([]))
