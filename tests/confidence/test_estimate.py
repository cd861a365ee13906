"""Estimates: bounded, monotone, from measured signals only, and never an exception."""

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade import confidence
from cascade.confidence.agreement import AgreementConfidence
from cascade.confidence.labels import LabelsConfidence
from cascade.confidence.logprob import LogprobConfidence
from cascade.models.base import Reply
from cascade.policy.calibrate import Calibration
from cascade.records import Call, Estimate, Token
from cascade.spec.kinds import ConfidenceSettings

LABELS = LabelsConfidence(by="labels")
LOGPROB = LogprobConfidence(by="logprob")
AGREEMENT = AgreementConfidence(by="agreement")
CONFIGS: tuple[ConfidenceSettings, ...] = (
    *(LabelsConfidence(by="labels", signal=name) for name in ("top1", "margin", "entropy")),
    *(
        LogprobConfidence(by="logprob", signal=name)
        for name in ("mean", "min", "p10", "p25", "p50", "margin", "entropy")
    ),
    AGREEMENT,
)
ANY = st.floats(allow_nan=True, allow_infinity=True)
LABEL = st.sampled_from(["a", "b", "c", "d"])
TOKEN = st.builds(Token, text=st.just("t"), logprob=ANY, margin=st.none() | ANY, entropy=st.none() | ANY)
REPLY = st.none() | st.builds(
    Reply,
    text=st.text(max_size=3) | LABEL,
    labels=st.none() | st.dictionaries(LABEL, ANY),
    tokens=st.lists(TOKEN, max_size=4).map(tuple),
)


def calls(count: int) -> list[Call]:
    """Answer calls of `count` drafts."""
    return [Call(model="m", tier="haiku", sample=index) for index in range(count)]


def estimate(
    config: ConfidenceSettings,
    made: Sequence[Call],
    replies: Sequence[Reply | None],
    calibration: Calibration | None,
) -> Estimate | None:
    """What is measured on the drafts, and the estimate from it."""
    measured = asyncio.run(confidence.judge(config, "prompt", made, replies))
    return confidence.estimate(config, measured, calibration)


def judge(
    config: ConfidenceSettings, *replies: Reply | None, calibration: Calibration | None = None
) -> Estimate:
    """The estimate over drafts that all have what it needs."""
    found = estimate(config, calls(len(replies)), replies, calibration)
    assert found is not None
    return found


def label_reply(text: str, **labels: float) -> Reply:
    """A reply with a label distribution."""
    return Reply(text=text, labels=labels)


def token_reply(*logprobs: float, text: str = "words") -> Reply:
    """A reply whose tokens have these log-probabilities."""
    return Reply(text=text, tokens=tuple(Token(text="t", logprob=value) for value in logprobs))


def calibration(**changes: object) -> Calibration:
    """A calibration of top1 that maps 0.5 to 0.2 and 1 to 0.9."""
    fields: dict[str, object] = {
        "method": "isotonic", "by": "labels", "signal": "top1", "x": (0.5, 1.0), "y": (0.2, 0.9),
        "rows": 100, "accuracy": 0.8, "auroc": 0.9, "ece": 0.02, "brier": 0.1,
        "data_sha256": "a" * 64, "model_fingerprint": "b" * 64, "fitted": "2026-11-21",
    }  # fmt: skip
    return Calibration.model_validate(fields | changes)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.by}-{config.signal_name}")
@given(replies=st.lists(REPLY, max_size=5))
def test_no_reply_makes_an_estimator_raise_or_leave_the_unit_interval(
    config: ConfidenceSettings, replies: list[Reply | None]
) -> None:
    """Whatever a model reports, there is a finite confidence in [0, 1] about a draft that exists, or None."""
    found = estimate(config, calls(len(replies)), replies, None)
    if found is None:
        return
    assert 0.0 <= found.confidence == found.score <= 1.0
    assert not found.calibrated
    assert replies[found.chosen] is not None
    assert all(math.isfinite(value) for value in found.signals.values())
    assert found.score == min(1.0, max(0.0, found.signals[config.signal_name]))


@given(probability=st.floats(0.5, 1.0), larger=st.floats(0.5, 1.0))
def test_confidence_by_labels_grows_with_the_answers_probability(probability: float, larger: float) -> None:
    """For each signal, a likelier answer never has lower confidence."""
    low, high = sorted((probability, larger))
    for config in CONFIGS[:3]:
        before = judge(config, label_reply("a", a=low, b=1 - low))
        after = judge(config, label_reply("a", a=high, b=1 - high))
        assert before.confidence <= after.confidence + 1e-12


@given(
    values=st.lists(st.floats(-20, 0), min_size=1, max_size=9), gain=st.floats(0, 20), place=st.integers(0, 8)
)
def test_confidence_by_logprob_grows_with_each_token(values: list[float], gain: float, place: int) -> None:
    """A likelier token never lowers mean, minimum or quantiles."""
    better = list(values)
    better[place % len(values)] = min(0.0, better[place % len(values)] + gain)
    for config in CONFIGS[3:8]:
        before, after = judge(config, token_reply(*values)), judge(config, token_reply(*better))
        assert before.confidence <= after.confidence + 1e-12


@given(values=st.lists(st.floats(-20, 0), min_size=1, max_size=9), data=st.data())
def test_confidence_by_logprob_does_not_depend_on_token_order(
    values: list[float], data: st.DataObject
) -> None:
    """Quantiles and means are of a set of tokens; and their order is min ≤ p10 ≤ p25 ≤ p50."""
    shuffled = data.draw(st.permutations(values))
    found = judge(LOGPROB, token_reply(*values)).signals
    assert found == pytest.approx(judge(LOGPROB, token_reply(*shuffled)).signals)
    assert found["min"] <= found["p10"] <= found["p25"] <= found["p50"]


@given(answers=st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=2, max_size=8), data=st.data())
def test_agreement_does_not_depend_on_the_order_of_drafts(answers: list[str], data: st.DataObject) -> None:
    """Permuting the drafts keeps the signals, and the chosen draft is always of a largest group."""
    shuffled = data.draw(st.permutations(answers))
    before = estimate(AGREEMENT, calls(len(answers)), [Reply(text=text) for text in answers], None)
    after = estimate(AGREEMENT, calls(len(answers)), [Reply(text=text) for text in shuffled], None)
    assert (before is None) == (after is None)
    if before and after:
        assert before.signals == after.signals
        assert shuffled.count(shuffled[after.chosen]) == answers.count(answers[before.chosen])


@given(values=st.lists(st.floats(0.5, 1.0), min_size=1, max_size=6))
def test_the_most_confident_draft_is_chosen(values: list[float]) -> None:
    """Of several drafts the highest probability wins, the first of equals."""
    found = judge(LABELS, *(label_reply("a", a=value, b=1 - value) for value in values))
    assert found.chosen == values.index(max(values))


def test_label_signals_are_the_ones_of_the_answer() -> None:
    """top1, margin and entropy of a known distribution."""
    found = judge(LABELS, label_reply("a", a=0.7, b=0.2, c=0.1))
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    assert found.signals == pytest.approx({"top1": 0.7, "margin": 0.5, "entropy": 1 - entropy / math.log(3)})
    assert found.score == found.confidence == 0.7


def test_an_answer_that_is_not_the_likeliest_label_gets_its_own_probability() -> None:
    """Confidence is about what is answered, not about what could have been."""
    found = judge(LABELS, label_reply("b", a=0.7, b=0.3))
    assert found.score == 0.3
    assert found.signals["margin"] == pytest.approx(-0.4)
    assert judge(CONFIGS[1], label_reply("b", a=0.7, b=0.3)).confidence == 0.0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="a"),
        label_reply("z", a=0.7, b=0.3),
        label_reply("a", a=1.0),
        label_reply("a", a=math.nan, b=0.3),
        label_reply("a", a=0.7, b=0.7),
        label_reply("a", a=0.0, b=0.0),
        label_reply("a", a=1.5, b=-0.5),
        label_reply("a", a=math.inf, b=0.0),
    ],
)
def test_a_label_distribution_that_is_none_gives_no_estimate(reply: Reply) -> None:
    """No labels, an unknown answer, one label, NaN, a wrong sum, a negative: missing, never a default."""
    assert estimate(LABELS, calls(1), [reply], None) is None


@pytest.mark.parametrize("values", [(), (math.nan,), (-math.inf,), (-0.1, math.nan), (0.5,)])
def test_tokens_without_valid_logprobs_give_no_estimate(values: tuple[float, ...]) -> None:
    """No tokens, NaN, minus infinity and probabilities above 1 are missing signals."""
    assert estimate(LOGPROB, calls(1), [token_reply(*values)], None) is None


def test_logprob_signals_are_probabilities() -> None:
    """A known answer of three tokens with margins and entropies."""
    tokens = tuple(
        Token(text="t", logprob=math.log(p), margin=margin, entropy=entropy)
        for p, margin, entropy in [(0.5, 1.0, 0.2), (0.8, 2.0, 0.4), (0.9, 3.0, 0.6)]
    )
    found = judge(LOGPROB, Reply(text="x", tokens=tokens)).signals
    assert found["min"] == pytest.approx(0.5)
    assert found["p50"] == pytest.approx(0.8)
    assert found["mean"] == pytest.approx((0.5 * 0.8 * 0.9) ** (1 / 3))
    assert found["p10"] == pytest.approx(0.5 * (0.8 / 0.5) ** 0.2)
    assert found["margin"] == pytest.approx(1 - math.exp(-2.0))
    assert found["entropy"] == pytest.approx(math.exp(-0.4))


def test_margin_is_missing_where_one_token_lacks_it() -> None:
    """A mean over some of the tokens would be a made-up number."""
    tokens = (Token(text="a", logprob=-0.1, margin=2.0, entropy=0.1), Token(text="b", logprob=-0.1))
    for signal in ("margin", "entropy"):
        config = LogprobConfidence(by="logprob", signal=signal)
        assert estimate(config, calls(1), [Reply(text="x", tokens=tokens)], None) is None
    assert set(judge(LOGPROB, Reply(text="x", tokens=tokens)).signals) == {"mean", "min", "p10", "p25", "p50"}


def test_agreement_is_the_share_of_all_asked_drafts() -> None:
    """Case and white space do not matter; a failed draft agrees with nobody."""
    replies = [Reply(text="Paris"), None, Reply(text="Rome"), Reply(text=" paris\n")]
    found = judge(AGREEMENT, *replies)
    assert found.chosen == 0
    assert found.signals == {"agreement": 0.5, "margin": 0.25}


@pytest.mark.parametrize(
    "replies", [[], [Reply(text="a")], [Reply(text="a"), None], [Reply(text="  "), Reply(text="")]]
)
def test_one_answer_alone_is_no_agreement(replies: list[Reply | None]) -> None:
    """Agreement needs two answers; less is a missing signal."""
    assert estimate(AGREEMENT, calls(len(replies)), replies, None) is None


def test_gate_and_failed_calls_are_not_drafts() -> None:
    """The chosen index counts over all calls, and skips a gate's and a failed one."""
    made = [
        Call(model="g", tier="haiku", role="gate"),
        Call(model="m", tier="haiku", error="timed out"),
        Call(model="m", tier="haiku", sample=1),
    ]
    sure = label_reply("a", a=0.99, b=0.01)
    found = estimate(LABELS, made, [sure, sure, label_reply("a", a=0.6, b=0.4)], None)
    assert found is not None
    assert (found.chosen, found.score) == (2, 0.6)


def test_a_calibration_turns_the_score_into_confidence() -> None:
    """The raw score stays, confidence is the mapped one, and it says so."""
    found = judge(LABELS, label_reply("a", a=0.75, b=0.25), calibration=calibration())
    assert (found.score, found.calibrated) == (0.75, True)
    assert found.confidence == pytest.approx(0.55)


@pytest.mark.parametrize("changes", [{"signal": "margin"}, {"by": "logprob"}])
def test_a_calibration_of_another_signal_gives_no_estimate(changes: dict[str, object]) -> None:
    """A map fitted for margins says nothing about top1: the check fails closed."""
    reply = label_reply("a", a=0.75, b=0.25)
    assert estimate(LABELS, calls(1), [reply], calibration(**changes)) is None
