"""Gates: scores are a distribution over the candidates, or None."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.gates.classifier import ClassifierGate
from cascade.gates.keywords import KeywordsGate
from cascade.models.base import Reply

WORD = st.text(max_size=8)
NAME = st.sampled_from(["bank", "chat", "threat"])


async def never(model: str) -> Reply | None:
    """A keywords gate asks no model."""
    raise AssertionError(model)


def keywords(**rules: list[str]) -> KeywordsGate:
    """A keywords gate with these rules."""
    return KeywordsGate(by="keywords", rules=rules)


async def classify(reply: Reply | None, *candidates: str) -> dict[str, float] | None:
    """Score candidates by a classifier that gives `reply`."""
    asked: list[str] = []

    async def ask(model: str) -> Reply | None:
        asked.append(model)
        return reply

    found = await ClassifierGate(by="classifier", model="router").score(candidates, "text", ask)
    assert asked == ["router"]
    return found


@given(rules=st.dictionaries(NAME, st.lists(WORD, max_size=4)), text=st.text(max_size=200))
async def test_keyword_scores_are_a_distribution_for_any_text(rules: dict[str, list[str]], text: str) -> None:
    """Any rules and any text give shares that sum to 1 over exactly the candidates."""
    found = await keywords(**rules).score(["bank", "chat"], text, never)
    assert found is not None
    assert list(found) == ["bank", "chat"]
    assert all(0.0 <= value <= 1.0 for value in found.values())
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "bank"),
    [
        ("My CARD was swallowed", 1.0),
        ("a discarded cardigan", 0.5),
        ("card card joke", 2 / 3),
        ("now for a joke", 0.0),
        ("is my direct   debit late?", 1.0),
        ("ÜBERWEISUNG oder überweisung", 1.0),
        ("in der HAUPTSTRASSE", 1.0),
        ("", 0.5),
    ],
)
async def test_keywords_match_whole_words_in_any_case(text: str, bank: float) -> None:
    """Parts of words do not count, case and white space do not matter, no match leaves all equal."""
    gate = keywords(bank=["card", "direct debit", "Überweisung", "Hauptstraße"], chat=["joke", "a joke"])
    found = await gate.score(["bank", "chat"], text, never)
    assert found is not None
    assert found["bank"] == pytest.approx(bank)


async def test_an_overlapping_phrase_counts_once() -> None:
    """The longest phrase of a candidate wins at a place, so listing its words too is no double vote."""
    found = await keywords(a=["direct debit", "direct"], b=["debit"]).score(["a", "b"], "direct debit", never)
    assert found == {"a": 0.5, "b": 0.5}


async def test_words_with_signs_are_matched_literally() -> None:
    """C++ is no pattern."""
    assert await keywords(a=["c++"], b=["c."]).score(["a", "b"], "I know C++, cx", never) == {
        "a": 1.0,
        "b": 0.0,
    }


async def test_a_megabyte_of_text_is_scored_quickly() -> None:
    """Matching is linear in the text."""
    found = await keywords(a=["a b"], b=["b"]).score(["a", "b"], "a " * 500_000, never)
    assert found == {"a": 0.5, "b": 0.5}


async def test_classifier_scores_are_the_candidates_share() -> None:
    """Labels that are no candidates are left out and the rest sums to 1."""
    reply = Reply(text="x", labels={"x": 0.5, "y": 0.3, "z": 0.2})
    assert await classify(reply, "y", "z") == pytest.approx({"y": 0.6, "z": 0.4})


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(text="x"),
        Reply(text="x", labels={"x": 1.0}),
        Reply(text="x", labels={"x": 0.0, "y": 0.0}),
        Reply(text="x", labels={"x": math.nan, "y": 1.0}),
        Reply(text="x", labels={"x": -0.5, "y": 1.5}),
        Reply(text="x", labels={"x": math.inf, "y": 0.0}),
    ],
)
async def test_a_classifier_without_an_answer_gives_no_scores(reply: Reply | None) -> None:
    """A failed call, no labels, a missing candidate and numbers that are none are None, never a guess."""
    assert await classify(reply, "x", "y") is None


async def test_no_candidates_give_no_scores() -> None:
    """There is nothing to choose from."""
    assert await keywords(a=["b"]).score([], "b", never) is None
    assert await classify(Reply(text="x", labels={"x": 1.0})) is None
