"""Fields are learnt from rows, calibrated on rows not seen, and refused with the fix."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade.errors import RequestError
from cascade.formats.schemas import value_problem
from cascade.lab.fitting.fit_fields import FieldRows, FittedField, FittedFields, fit_fields, same_value

COPIED = ("due", "total")


@pytest.fixture(scope="module")
def mails() -> Any:
    path = Path(__file__).parents[3] / "benchmarks/mails.py"
    spec = importlib.util.spec_from_file_location("billing_mails", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["billing_mails"] = module
    spec.loader.exec_module(module)
    return module


def schema_of(mails: Any, names: Sequence[str]) -> dict[str, Any]:
    properties = {name: mails.SCHEMA["properties"][name] for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}


def rows_of(found: Sequence[Any], names: Sequence[str]) -> FieldRows:
    answers = [{name: mail.answer[name] for name in names} for mail in found]
    return FieldRows([mail.text for mail in found], answers, np.arange(len(found)))


def no_head(labels: Sequence[str]) -> FittedField:
    raise AssertionError(labels)


@pytest.fixture(scope="module")
def learnt(mails: Any) -> FittedFields:
    found = mails.mails(100, seed=1, split=0, held_out=False)
    return fit_fields(schema_of(mails, COPIED), rows_of(found, COPIED), no_head, seed=0)


def test_fields_of_mails_that_were_not_seen_are_right(mails: Any, learnt: FittedFields) -> None:
    found = mails.mails(100, seed=2, split=0, held_out=False)
    right = dict.fromkeys(COPIED, 0)
    for mail in found:
        answer = learnt.extractor.answer(None, mail.text).answer
        assert value_problem(learnt.extractor.schema, answer) is None
        for name in COPIED:
            right[name] += same_value(answer[name], mail.answer[name])
    assert min(right.values()) >= 80, right


def test_confidence_is_calibrated_and_tells_right_from_wrong(learnt: FittedFields) -> None:
    for correct, confidence in (*learnt.fields.values(), (learnt.correct, learnt.confidence)):
        assert abs(confidence.mean() - correct.mean()) < 0.03
        if not correct.all():
            assert confidence[correct].mean() > confidence[~correct].mean()


def test_the_same_rows_give_the_same_numbers(mails: Any) -> None:
    rows = rows_of(mails.mails(30, seed=1, split=0, held_out=False), ("total",))
    made = [fit_fields(schema_of(mails, ["total"]), rows, no_head).extractor.stored() for _ in range(2)]
    assert json.dumps(made[0][0]) == json.dumps(made[1][0])
    assert all(np.array_equal(made[0][1][name], made[1][1][name]) for name in made[0][1])


def test_words_that_were_not_learnt_have_no_say(mails: Any) -> None:
    """A text without candidates gets the fallback, and little confidence."""
    rows = rows_of(mails.mails(60, seed=1, split=0, held_out=False), ("total",))
    made = fit_fields(schema_of(mails, ["total"]), rows, no_head).extractor
    nothing = made.answer(None, "no amount at all")
    assert nothing.answer["total"] in [row["total"] for row in rows.answers]
    assert nothing.confidence < 0.5


@pytest.mark.parametrize(
    ("field", "rows", "expected"),
    [
        ({"type": "string"}, [("pay Acme now", "acme")] * 5, "do not stand in their text"),
        ({"type": ["string", "null"]}, [("pay Acme now", None)] * 5, "no value in any row"),
        ({"enum": ["a", "b"]}, [("x", "a")] * 5, "in every row"),
    ],
)
def test_rows_that_cannot_teach_are_refused_with_the_fix(
    field: Any, rows: list[tuple[str, Any]], expected: str
) -> None:
    schema = {"type": "object", "properties": {"f": field}, "required": ["f"]}
    given = FieldRows([text for text, _ in rows], [{"f": value} for _, value in rows], np.arange(len(rows)))
    with pytest.raises(RequestError, match=expected) as caught:
        fit_fields(schema, given, no_head)
    assert "'f'" in str(caught.value)


def test_a_few_values_that_are_not_copied_are_told_and_left_out() -> None:
    rows = [(f"please send {n} boxes by ship", n) for n in range(3, 30)] + [("a dozen, please", 12)]
    schema = {"type": "object", "properties": {"f": {"type": "integer"}}, "required": ["f"]}
    given = FieldRows([text for text, _ in rows], [{"f": value} for _, value in rows], np.arange(len(rows)))
    made = fit_fields(schema, given, no_head)
    assert "1 of 28 values" in made.remarks[0]
    assert made.extractor.answer(None, "please send 77 boxes by ship").answer == {"f": 77}


def test_closed_fields_are_asked_of_their_heads() -> None:
    seen: list[Sequence[str]] = []

    def fit_closed(labels: Sequence[str]) -> FittedField:
        seen.append(labels)
        return FittedField(None, np.ones(len(labels), bool), np.full(len(labels), 0.9))

    schema = {
        "type": "object",
        "properties": {"f": {"enum": ["a", "b", "c"]}, "g": {"const": 1}, "h": {"type": ["boolean", "null"]}},
        "required": ["f", "g", "h"],
    }
    answers: list[dict[str, Any]] = [{"f": "a", "g": 1, "h": True}, {"f": "b", "g": 1, "h": None}] * 3
    made = fit_fields(schema, FieldRows(["x"] * 6, answers, np.arange(6)), fit_closed)
    assert seen == [['"a"', '"b"'] * 3, ["true", "null"] * 3]
    assert set(made.extractor.heads) == {"f", "h"}
    assert '"c"' in made.remarks[0]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (None, None, True),
        ("a  b", "a b", True),
        ("a", "A", False),
        (None, 0, False),
    ],
)
def test_values_are_equal_as_json_is(one: Any, other: Any, same: bool) -> None:
    assert same_value(one, other) is same
