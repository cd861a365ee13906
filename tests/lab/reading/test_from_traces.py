"""Rows from stored runs of real cascades: who made each label, and what stays out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.errors import RequestError
from cascade.lab.reading.from_traces import TraceOptions, rows_from_traces
from cascade.lab.reading.row_reading import RowOptions
from cascade.lab.reading.survey import survey_rows
from cascade.trace import TraceStore

TEXTS = {
    "agreed": ("refund", "refund", "no use"),
    "disagreed": ("refund", "card", "no use"),
    "taught": ("refund", "card", "Card."),
    "off the set": ("refund", "card", "who knows"),
}
LABELS = ["card", "refund", "top up"]


def graph(folder: Path, **changes: Any) -> Path:
    """Two small models that are never sure together, and a strong one that is asked where they hand over."""
    replies = [{text: answers[index] for text, answers in TEXTS.items()} for index in range(3)]
    small = [scripted("refund", replies=each, confidence=0.1, labels=LABELS) for each in replies[:2]]
    models = {"nano": small[0], "small": small[1], "strong": scripted("card", replies=replies[2])}
    stages = [
        checked("first", "nano", accept=0.5),
        checked("second", "small", accept=0.05 if changes.pop("stop", False) else 0.5),
        {"name": "last", "ask": ["strong"]},
    ]
    return write(folder, models, stages, **changes)


def ask(path: Path, db: Path, *texts: str, **options: Any) -> list[str]:
    with Cascade.load(path, trace_db=str(db)) as cascade:
        return [cascade.invoke(text, **options).run for text in texts]


def rows(path: Path, db: Path, **options: Any) -> dict[str, tuple[str, str | None]]:
    read = rows_from_traces(path, TraceOptions(trace_db=str(db), **options))
    return {
        row.text: (row.label, place.source) for row, place in zip(read.rows, read.places, strict=True)
    }  # fmt: skip


def grade(db: Path, run: str, correct: bool) -> None:
    with TraceStore(str(db)) as store:
        store.grade(run, correct)


def test_the_top_tier_teaches_and_its_answers_become_labels_of_the_set(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    ask(path, db, "taught", "off the set")
    assert rows(path, db) == {"taught": ("card", "teacher")}
    read = rows_from_traces(path, TraceOptions(trace_db=str(db)))
    assert any("1 answered with no label" in each for each in read.remarks)


def test_tiers_that_agree_make_a_label_and_one_alone_makes_none(tmp_path: Path) -> None:
    path, db = graph(tmp_path, stop=True), tmp_path / "t.db"
    ask(path, db, "agreed", "disagreed")
    assert rows(path, db) == {"agreed": ("refund", "agreement")}
    read = rows_from_traces(path, TraceOptions(trace_db=str(db)))
    assert read.remarks[:2] == ("labels: 1 on which tiers agree", "left out: 1 on which models disagree")
    assert "models made 100% of the labels" in read.remarks[2]
    assert "no grade tells how good the teacher is" in read.remarks[2]


def test_a_grade_counts_more_than_any_model(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    right, wrong, again = ask(path, db, "taught", "something else", "taught")
    grade(db, right, correct=True)
    grade(db, wrong, correct=False)
    read = rows_from_traces(path, TraceOptions(trace_db=str(db)))
    assert [(row.id, row.label) for row in read.rows] == [(right, "card")]
    assert read.places[0].source == "grade"
    remark = next(each for each in read.remarks if each.startswith("left out"))
    assert "1 graded wrong" in remark
    assert "1 overruled by a person or a grade" in remark
    assert again not in {row.id for row in read.rows}


def test_what_the_teacher_is_worth_is_said_with_an_interval(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    runs = ask(path, db, *(f"question {n}" for n in range(10)))
    for number, run in enumerate(runs[:8]):
        grade(db, run, correct=number > 1)
    read = rows_from_traces(path, TraceOptions(trace_db=str(db)))
    assert read.remarks[-1].startswith("models made 25% of the labels")
    assert "the teacher was right in 6 of 8 graded runs (35% to 97%)" in read.remarks[-1]


def test_private_requests_stay_out_unless_they_are_allowed(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    ask(path, db, "taught", local_only=True)
    with pytest.raises(RequestError, match=r"left out: 1 private \(local_only; --allow-private takes them\)"):
        rows_from_traces(path, TraceOptions(trace_db=str(db)))
    assert list(rows(path, db, allow_private=True)) == ["taught"]


def test_runs_without_texts_and_conversations_stay_out(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    ask(path, db, "taught")
    talk = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    with Cascade.load(path, trace_db=str(db)) as cascade:
        cascade.invoke(talk)
    hidden = graph(tmp_path, trace={"store_text": False})
    ask(hidden, db, "agreed")
    read = rows_from_traces(hidden, TraceOptions(trace_db=str(db)))
    assert [row.text for row in read.rows] == ["taught"]
    left_out = next(each for each in read.remarks if each.startswith("left out"))
    assert "1 stored without their text" in left_out
    assert "1 conversations" in left_out


def test_a_person_s_answer_is_a_label_of_its_own_kind(tmp_path: Path) -> None:
    models = {
        "nano": scripted("card", confidence=0.1, labels=LABELS),
        "desk": {"kind": "human", "tier": "human"},
    }
    path = write(tmp_path, models, [checked("first", "nano", accept=0.5), {"name": "last", "ask": ["desk"]}])
    db = tmp_path / "t.db"
    with Cascade.load(path, trace_db=str(db)) as cascade:
        run = cascade.invoke("where is my money").run
        assert cascade.resume(run, "Refund").text == "Refund"
    assert rows(path, db) == {"where is my money": ("refund", "person")}


def test_only_runs_since_a_time_count_and_the_oldest_come_first(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    runs = ask(path, db, "one", "two", "three")
    read = rows_from_traces(path, TraceOptions(trace_db=str(db), since="1h"))
    assert [row.id for row in read.rows] == runs
    times = [place.time or "" for place in read.places]
    assert times == sorted(times)
    with pytest.raises(RequestError, match=r"no run of test in .*; run the graph"):
        rows_from_traces(path, TraceOptions(trace_db=str(db), since="2099-01-01"))
    with pytest.raises(RequestError, match="--since: 'soon' is no time"):
        rows_from_traces(path, TraceOptions(trace_db=str(db), since="soon"))
    with pytest.raises(RequestError, match="no run of test"):
        rows_from_traces(path, TraceOptions(trace_db=str(tmp_path / "none.db")))


def test_models_without_a_closed_set_make_one(tmp_path: Path) -> None:
    models = {"strong": scripted("x", replies={"a": "Card", "b": "card.", "c": "two\nlines", "d": "Refund"})}
    path, db = write(tmp_path, models, [{"name": "last", "ask": ["strong"]}]), tmp_path / "t.db"
    ask(path, db, "a", "b", "c", "d")
    labels = {text: label for text, (label, _) in rows(path, db).items()}
    assert labels == {"a": "Card", "b": "Card", "c": "two lines", "d": "Refund"}


def test_the_survey_of_stored_runs_names_runs_sources_and_times(tmp_path: Path) -> None:
    path, db = graph(tmp_path), tmp_path / "t.db"
    runs = ask(path, db, *(f"please tell me what {n} means" for n in range(3)), "taught", "taught")
    grade(db, runs[0], correct=True)
    read = rows_from_traces(path, TraceOptions(trace_db=str(db)))
    read.rows = [row._replace(label="refund") if n % 2 else row for n, row in enumerate(read.rows)]
    found = survey_rows("traces", read, RowOptions(min_rows=2))
    assert found.sources == {"teacher": 4, "grade": 1}
    assert found.times == [place.time for place in read.places]
    line = next(each for each in found.lines() if each.startswith("contradiction: 'taught'"))
    assert f"in run {runs[3]}" in line
    assert f"in run {runs[4]}" in line
    assert found.sha256 == rows_from_traces(path, TraceOptions(trace_db=str(db))).sha256
