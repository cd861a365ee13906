"""Which texts a person is asked about, by the real encoder: wrong labels and doubts come first."""

from __future__ import annotations

import random

import pytest

from cascade.errors import RequestError
from cascade.lab.learning.ask import find_questions
from cascade.lab.learning.columns import Columns
from cascade.lab.learning.near_duplicates import normal_form
from cascade.lab.learning.row_reading import Place, ReadRows
from cascade.lab.learning.session import Session
from cascade.lab.learning.survey import Survey, survey_rows
from cascade.lab.tables.rows import LabelledRow

pytest.importorskip("llama_cpp")
pytest.importorskip("sklearn")

TOPICS = {
    "weather": [
        "will it rain in {}",
        "how warm is it in {}",
        "forecast for {} please",
        "is there snow in {}",
    ],
    "flight": [
        "book a plane to {}",
        "when do flights leave for {}",
        "cheapest air fare to {}",
        "fly me to {}",
    ],
    "food": [
        "best restaurant in {}",
        "where can i eat pizza in {}",
        "book a table for dinner in {}",
        "cafes in {}",
    ],
}
CITIES = ["rome", "oslo", "paris", "lima", "cairo", "delhi", "kyoto", "quito"]
WRONG = {"will it rain in oslo": "food", "fly me to cairo": "weather"}


def surveyed() -> Survey:
    texts = [
        (form.format(city), label) for label, forms in TOPICS.items() for form in forms for city in CITIES
    ]
    random.Random(0).shuffle(texts)
    rows = [LabelledRow(str(n), text, WRONG.get(text, label)) for n, (text, label) in enumerate(texts)]
    return survey_rows("rows", ReadRows(Columns("text", "label"), rows, [Place(n) for n in range(len(rows))]))


def test_wrong_labels_and_doubts_are_asked_and_answered_texts_never_again() -> None:
    found = surveyed()
    new = ["how do i bake bread at home", "will it rain in cairo tomorrow"]
    questions = find_questions(found, new, 3, Session(5))
    assert {question.text for question in questions[:3]} >= set(WRONG)
    assert questions[2].text == new[0]
    for question in questions[:3]:
        if question.text in WRONG:
            assert question.suggested[0] == WRONG[question.text]
            assert question.suggested[1] == ("weather" if "rain" in question.text else "flight")
    again = find_questions(found, new, 9, Session(5), answered={normal_form(text) for text in WRONG})
    assert not {question.text for question in again} & set(WRONG)
    with pytest.raises(RequestError, match=r"nothing to ask.*--unlabelled FILE"):
        find_questions(found, [], 3, Session(5), answered={normal_form(row.text) for row in found.rows})
