"""Free texts that mean the same count as one answer; a number or a negation always tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.confidence.agreement import AgreementConfidence
from cascade.confidence.meaning import differ_in_sign
from cascade.models.base import Reply
from cascade.records import ToolCall

LISBON = [
    "The capital of Portugal is Lisbon.",
    "Lisbon is the capital of Portugal.",
    "Portugal's capital is Lisbon",
]
PAIRS = [
    ("The order arrives on 5 May.", "The order arrives on 6 May."),
    ("You can return it within 30 days.", "You can return it within thirty one days."),
    ("The fee is two dollars.", "The fee is three dollars."),
    ("The refund is allowed.", "The refund is not allowed."),
    ("You can cancel the order now.", "You can't cancel the order now."),
    ("It is possible to change it.", "It is impossible to change it."),
    ("Prices increase next month.", "Prices decrease next month."),
    ("Yes, the card is blocked.", "No, the card is blocked."),
    ("This works with a contract.", "This works without a contract."),
    ("It is -5 degrees.", "It is 5 degrees."),
    ("It costs $5 a month.", "It costs 5% a month."),
    ("It is the first option.", "It is the second option."),
]


async def agreement(texts: list[str | None], **settings: object) -> float | None:
    config = AgreementConfidence.model_validate({"by": "agreement", "similarity": 0.8} | settings)
    config.prepare(Path())
    found = await config.judge("?", [None if text is None else Reply(text) for text in texts])
    return found[0][1]["agreement"] if found else None


async def test_other_words_for_the_same_answer_agree_and_another_answer_does_not() -> None:
    assert await agreement([*LISBON, "Madrid is the capital of Spain."]) == 0.75
    assert await agreement(["Lisbon", *LISBON[:1], None], similarity=0.99) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_a_number_or_a_negation_is_never_merged(one: str, other: str) -> None:
    assert await agreement([one, other], similarity=0.01) == 0.5
    assert differ_in_sign(one, other)
    assert differ_in_sign(other, one)


def test_a_number_in_words_is_the_one_in_digits() -> None:
    assert not differ_in_sign("it takes two days", "it takes 2 days")


@given(st.text(max_size=40), st.integers(0, 99), st.integers(100, 999))
def test_any_text_with_another_number_differs_and_every_text_equals_itself(
    text: str, one: int, two: int
) -> None:
    assert differ_in_sign(f"{text} {one}", f"{text} {two}")
    assert differ_in_sign(text, f"{text} not")
    assert not differ_in_sign(f"{text} {one}", f"{text} {one}")


async def test_labels_json_and_tool_calls_are_compared_as_ever() -> None:
    config = AgreementConfidence(by="agreement", similarity=0.01)
    config.prepare(Path())
    call = ToolCall(id="a", name="find", arguments="{}")
    drafts = [
        [Reply("card lost", labels={"card lost": 1.0}), Reply("card", labels={"card": 1.0})],
        [Reply('{"city": "Lisbon"}'), Reply('{"city": "Lisboa"}')],
        [Reply("", tool_calls=(call,)), Reply("", tool_calls=(call.model_copy(update={"name": "seek"}),))],
        [Reply("word " * 100), Reply("word " * 101)],
    ]
    for pair in drafts:
        assert (await config.judge("?", pair))[0][1]["agreement"] == 0.5


def test_the_settings_are_checked() -> None:
    wrong = {
        "bundled:tiny": "is no encoder",
        "bundled:encodre": "did you mean 'encoder'",
        "none.gguf": "does not exist",
    }
    for encoder, text in wrong.items():
        config = AgreementConfidence(by="agreement", similarity=0.9, encoder=encoder)
        assert text in next(config.inspect(Path())).text
    idle = AgreementConfidence(by="agreement", encoder="other.gguf")
    assert "without 'similarity'" in next(idle.inspect(Path())).text
    good = AgreementConfidence(by="agreement", similarity=0.9)
    assert not list(good.inspect(Path()))
    assert [access.target for access in good.accesses()] == ["bundled:encoder"]
