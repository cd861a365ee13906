"""Which texts a person is asked about, by the real encoder: wrong labels and doubts come first."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scripting import checked, scripted, write

from cascade import Cascade, lab
from cascade.errors import RequestError
from cascade.lab.learning.ask import find_questions
from cascade.lab.learning.session import Session, StoppedError
from cascade.lab.reading.columns import Columns
from cascade.lab.reading.from_traces import TraceOptions, rows_from_traces
from cascade.lab.reading.inbox import put_into_inbox
from cascade.lab.reading.near_duplicates import normal_form
from cascade.lab.reading.row_reading import Place, ReadRows
from cascade.lab.reading.survey import Survey, survey_rows
from cascade.lab.tables.rows import LabelledRow
from cascade.trace import TraceStore

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


def taught(folder: Path, *, person: bool = False) -> tuple[Path, str]:
    """A graph whose strong model labels all texts, two of them wrongly, and its stored runs."""
    labels = sorted(TOPICS)
    answers = {row.text: row.label for row in surveyed().rows}
    models = {
        "nano": scripted(labels[0], confidence=0.1, labels=labels),
        "strong": scripted(replies=answers),
        "desk": {"kind": "human", "tier": "human"},
    }
    last = {"name": "last", "ask": ["strong"]} if not person else checked("last", "strong", accept=0.5)
    stages = [checked("first", "nano", accept=0.5), last]
    if person:
        stages.append({"name": "desk", "ask": ["desk"]})
    else:
        models.pop("desk")
    graph, db = write(folder, models, stages), str(folder / "traces.db")
    with Cascade.load(graph, trace_db=db) as cascade:
        cascade.batch(list(answers))
    return graph, db


def test_stored_runs_make_an_expert_and_its_card_says_who_made_the_labels(tmp_path: Path) -> None:
    graph, db = taught(tmp_path)
    with TraceStore(db) as store:
        for summary in store.runs(limit=10):
            store.grade(summary.run, correct=True)
    places = {"out": tmp_path / "x.gguf", "graph_out": tmp_path / "x.yaml"}
    learned = lab.learn(graph, traces=lab.TraceOptions(trace_db=db), max_risk=0.3, minutes=5, **places)
    data = learned.card["data"]
    assert data["labels_by"] == {"teacher": 86, "grade": 10}
    assert data["teacher_share"] == pytest.approx(86 / 96, abs=1e-4)
    assert data["teacher_right"]["right"] == data["teacher_right"]["runs"] == 10
    assert data["held_out"] > 0
    assert "the latest ones" in data["split"]
    assert [part["value"] for part in learned.card["slices"]] == ["teacher", "grade"]
    assert "# Of the labels: models made 90% of the labels" in learned.graph.read_text()


@pytest.mark.slow
def test_answers_are_kept_and_skipped_texts_come_no_more(tmp_path: Path) -> None:
    graph, db = taught(tmp_path)
    traces = TraceOptions(trace_db=db)
    picked = lab.pick_questions(graph, 2, traces=traces)
    assert picked.labels == sorted(TOPICS)
    assert not picked.inbox
    assert {question.text for question in picked.questions} == set(WRONG)
    assert picked.questions[0].reason.startswith("the teacher: ")
    picked.keep(picked.questions[0].text, "weather")
    picked.keep(picked.questions[1].text, None)
    assert picked.answers.name == "graph.yaml.answers.jsonl"
    read = rows_from_traces(graph, traces)
    assert sum(place.source == "person" for place in read.places) == 1
    with pytest.raises(RequestError, match="nothing to ask"):
        lab.pick_questions(graph, 2, traces=traces)


@pytest.mark.slow
def test_a_graph_with_a_person_asks_in_its_inbox(tmp_path: Path) -> None:
    graph, db = taught(tmp_path, person=True)
    traces = TraceOptions(trace_db=db)
    picked = lab.pick_questions(graph, 2, traces=traces)
    assert picked.inbox
    texts = [question.text for question in picked.questions]
    path, runs = put_into_inbox(graph, texts, picked.labels, db, private=False)
    with Cascade.load(path, trace_db=db) as cascade:
        for run in runs:
            cascade.resume(run, "weather")
    read = rows_from_traces(graph, traces)
    rows = zip(read.rows, read.places, strict=True)
    assert {row.text: row.label for row, place in rows if place.source == "person"} == dict.fromkeys(
        WRONG, "weather"
    )
    with pytest.raises(RequestError, match="nothing to ask"):
        lab.pick_questions(graph, 2, traces=traces)


def test_ctrl_c_ends_the_search_before_a_question() -> None:
    with pytest.raises(StoppedError):
        find_questions(surveyed(), [], 3, Session(5, stopped=lambda: True))
