"""Answers are compared by one rule, and drafts by the part of them that is the answer."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scripting import checked, scripted, write
from stagewise import plan, run

from cascade.confidence.agreement import AgreementConfidence, answer_key
from cascade.confidence.same import normalise
from cascade.config.load import load_graph
from cascade.errors import ConfigError
from cascade.models.base import Reply
from cascade.records import Request, ToolCall
from cascade.spec.schema import Graph

NUMBERS = st.decimals(-(10**9), 10**9, places=3, allow_nan=False)


@st.composite
def written(draw: st.DrawFn, value: Decimal) -> str:
    """Write a number in one of the ways that people and models write it."""
    plain = f"{abs(value):f}"
    whole, _, part = plain.partition(".")
    part = part.rstrip("0")
    whole = draw(st.sampled_from([whole, f"{int(whole):,}"]))
    part += draw(st.sampled_from(["", "0", "00"]))
    text = f"{whole}.{part}" if part else whole
    if whole == "0" and part and draw(st.booleans()):
        text = f".{part}"
    text = ("" if value >= 0 else draw(st.sampled_from(["-", "−", "–"]))) + text
    if draw(st.booleans()):
        text = text.translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)})
    return draw(
        st.sampled_from(["{}", "{}.", " {}\n", "**{}**", '"{}"', "({})", "`{}`", "{},", "_{}_", "“{}”"])
    ).format(text)


@settings(max_examples=100)
@given(st.data(), NUMBERS, NUMBERS)
def test_numbers_are_the_same_exactly_if_they_are_equal(
    data: st.DataObject, one: Decimal, two: Decimal
) -> None:
    left = data.draw(written(one))
    assert normalise(left) == normalise(data.draw(written(one)))
    right = data.draw(written(two))
    assert (normalise(left) == normalise(right)) == (one == two or {one, two} == {Decimal("-0"), Decimal(0)})
    unit = data.draw(st.sampled_from(["%", " km", "€"]))
    assert normalise(left.strip("\n ") + unit) != normalise(left)


@given(st.text() | st.text(alphabet="aA1023.,!?'\"*_`()[]-− \n½²٣①ſİ"))
@example("The the a Cat.")
@example("```\n```\nx\n```\n```")
@example("ϓ̈ 1½²")
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert bool(normalise(text)) == bool(text.split())


@given(
    st.lists(st.sampled_from(["paris", "c++", "don't", "x1", "50%", "3,5", "1.2.3"]), min_size=1, max_size=4),
    st.data(),
)
def test_dress_makes_no_difference(words: list[str], data: st.DataObject) -> None:
    plain = " ".join(words)
    dress = st.sampled_from(
        [
            "{}",
            "{}.",
            "**{}**",
            "“{}”",
            " {} ",
            "`{}`",
            "{}…",
            "({})",
            "```\n{}\n```",
            "{},",
            "\u00a0{}",
            "*{}*.",
            "the {}",
            "The {}.",
        ]
    )
    shown = data.draw(dress).format(plain if data.draw(st.booleans()) else plain.upper())
    assert normalise(shown) == normalise(plain)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("C", "C++"), ("C#", "C++"), ("5", "5!"), ("5", "5%"), ("$5", "5"), ("-5", "5"), ("22", "2²"),
        ("1½", "11/2"), ("007", "7"), ("1,5", "15"), ("1.2.0", "1.2"), ("A, B", "B"), ("a 5", "5"),
        ("!", "?"), ("1 000", "1000"), ("x1.0", "x1"),
    ],
)  # fmt: skip
def test_what_stays_different(one: str, two: str) -> None:
    assert normalise(one) != normalise(two)


def agreement(answer: Any, *texts: str) -> dict[str, float]:
    check = AgreementConfidence.model_validate({"by": "agreement", "answer": answer})
    measured = check.measure([Reply(text) for text in texts])
    return dict(measured[0][1]) if measured else {}


@given(st.lists(st.sampled_from(["Paris", "1,000", "Rome"]), min_size=2, max_size=5), st.data())
def test_only_the_part_that_is_the_answer_is_compared(answers: list[str], data: st.DataObject) -> None:
    """Whatever stands around it: the vote is that of the answers alone."""
    prose = st.lists(st.sampled_from(["I think", "so: 7", "maybe", "Answer below"]), max_size=3)
    around = [" ".join(data.draw(prose)) for _ in answers]
    alone = agreement(None, *answers)
    lines = [f"{words}\n{answer}.\n\n" for words, answer in zip(around, answers, strict=True)]
    assert agreement("last_line", *lines) == alone
    marked = [
        f"{words} Answer: Nothing. Answer: {answer}" for words, answer in zip(around, answers, strict=True)
    ]
    assert agreement({"regex": r"Answer: (\S+)"}, *marked) == alone
    pairs = zip(around, answers, strict=True)
    objects = [f"```json\n{json.dumps({'why': words, 'city': answer})}\n```" for words, answer in pairs]
    assert agreement({"json": "city"}, *objects) == alone
    nested = [
        json.dumps({"a/b": [words, {"c": answer}]}) for words, answer in zip(around, answers, strict=True)
    ]
    assert agreement({"json": "/a~1b/1/c"}, *nested) == alone


def test_a_draft_without_that_part_agrees_with_nobody() -> None:
    assert agreement({"regex": "[0-9]+"}, "7", "seven", "it is 7") == {"agreement": 2 / 3, "margin": 2 / 3}
    assert agreement({"json": "x"}, '{"x": 1.0}', "no json", '{"x": 1}', "[1]") == {
        "agreement": 0.5,
        "margin": 0.5,
    }
    assert agreement({"regex": "z"}, "a", "a") == {}


def test_json_and_tool_calls_are_compared_by_value() -> None:
    assert answer_key(Reply('{"a": 1, "b": 2.0}')) == answer_key(Reply('```\n{"b": 2, "a": 1}\n```'))
    assert answer_key(Reply('{"a": "1"}')) != answer_key(Reply('{"a": 1}'))
    one, other = (Reply("", tool_calls=(ToolCall(id=name, name="f", arguments="{}"),)) for name in "ab")
    assert answer_key(one) == answer_key(other)


def test_drafts_that_differ_in_dress_are_accepted_together(tmp_path: Path) -> None:
    graph = {
        "name": "g",
        "models": {
            "m": scripted() | {"default": None, "replies": {"x": ["Paris", "Paris.", "**paris**", "Rome"]}}
        },
        "stages": [
            {"name": "s", "ask": ["m"], "samples": 4, "confidence": {"by": "agreement"}, "accept": 0.7}
        ],
    }
    result = run(plan(Graph.model_validate(graph)), Request(text="x"))
    assert (result.text, result.confidence) == ("Paris", 0.75)


@pytest.mark.parametrize(
    "answer", [{}, {"regex": "a", "json": "b"}, "first_line", {"regex": ""}, {"jsn": "a"}]
)
def test_a_part_that_is_none_is_refused(answer: Any) -> None:
    with pytest.raises(ValidationError):
        AgreementConfidence.model_validate({"by": "agreement", "answer": answer})


def test_a_key_that_is_unknown_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"m": scripted("x"), "n": scripted("x")},
        [
            checked("s", "m", "n", by="agreement")
            | {"confidence": {"by": "agreement", "answer": {"jsn": "a"}}}
        ],
    )
    with pytest.raises(ConfigError, match="unknown key 'jsn'; known: regex, json"):
        load_graph(path)


def test_a_pattern_that_re2_cannot_take_is_a_problem_of_the_graph() -> None:
    check = AgreementConfidence.model_validate({"by": "agreement", "answer": {"regex": "(?=a)("}})
    (problem,) = check.inspect(Path())
    assert problem.loc == ("answer", "regex")
    assert "no pattern of RE2" in problem.text
