"""A person's answers: chosen by worth, asked at a terminal or an inbox, kept, and joined to the rows."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.cli.asking import check_terminal, find_labels
from cascade.config.load import load_graph
from cascade.errors import RequestError
from cascade.lab.reading.answers import PersonAnswer, add_answer, answers_path, join_answers, read_answers
from cascade.lab.reading.columns import Columns
from cascade.lab.reading.from_traces import TraceOptions, rows_from_traces
from cascade.lab.reading.inbox import has_inbox, put_into_inbox
from cascade.lab.reading.questions import Opinion, most_valuable, open_questions
from cascade.lab.reading.row_reading import Place, ReadRows, RowOptions
from cascade.lab.reading.survey import survey, survey_rows
from cascade.lab.tables.rows import LabelledRow
from cascade.trace import TraceStore


def read_rows(*rows: tuple[str, str]) -> ReadRows:
    labelled = [LabelledRow(str(n), *row) for n, row in enumerate(rows, start=1)]
    return ReadRows(Columns("text", "label"), labelled, [Place(n) for n in range(1, len(rows) + 1)])


def test_answers_are_kept_one_by_one_and_the_newest_counts(tmp_path: Path) -> None:
    path = answers_path(tmp_path / "tickets.csv")
    assert path.name == "tickets.csv.answers.jsonl"
    assert read_answers(path) == {}
    for answer in (PersonAnswer("Where is it?", "card"), PersonAnswer("two\nlines", None),
                   PersonAnswer("where is  it?", "money")):  # fmt: skip
        add_answer(path, answer)
    assert len(path.read_text().splitlines()) == 3
    assert list(read_answers(path).values()) == [("where is  it?", "money"), ("two\nlines", None)]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_file_of_answers_that_somebody_edited_is_read_or_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.answers.jsonl"
    path.write_text('{"text": "a", "label": "x"}')  # without a line end
    add_answer(path, PersonAnswer("b", "y"))
    assert [each.label for each in read_answers(path).values()] == ["x", "y"]
    path.write_text('{"text": "a"}\n{"text": "", "label": "x"}\n{"text": "c", "label": "x\\ny"}\nno\n')
    with pytest.raises(RequestError) as error:
        read_answers(path)
    assert [line.split(": ")[0].rpartition(":")[2] for line in str(error.value).splitlines()] == list("1234")


def test_an_answer_that_cannot_be_stored_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="the answer is not stored"):
        add_answer(tmp_path / "file" / "a.answers.jsonl", PersonAnswer("a", "b"))


def test_a_persons_label_replaces_others_and_new_texts_join() -> None:
    read = read_rows(("one", "x"), ("One ", "y"), ("two", "y"))
    read.unlabelled = ["three", "four"]
    answers = {
        text: PersonAnswer(text, label) for text, label in (("one", "z"), ("three", "x"), ("two", None))
    }
    joined = join_answers(read, answers)
    assert [row[1:] for row in joined.rows] == [("one", "z"), ("One ", "z"), ("two", "y"), ("three", "x")]
    assert [(place.source, place.asked) for place in joined.places] == [
        ("person", False), ("person", False), (None, False), ("person", True)
    ]  # fmt: skip
    assert joined.unlabelled == ["four"]
    assert (
        "2 answers of a person count instead of other labels, 1 of them about other texts"
        in joined.remarks[0]
    )
    assert read.rows[0].label == "x"
    assert join_answers(read, {"two": PersonAnswer("two", None)}) is read


def test_what_is_asked_are_contradictions_disagreements_and_what_nobody_knows() -> None:
    read = read_rows(
        *[(f"sure {n}", "ab"[n % 2]) for n in range(4)], ("both", "a"), ("both", "b"), ("odd", "a")
    )
    read.places[0] = Place(1, source="person")
    read.places[1] = Place(2, source="teacher")
    found = survey_rows("rows", read, RowOptions(min_rows=1))
    opinions = [
        Opinion("b", 0.9),
        Opinion("a", 0.8),
        *[Opinion("ab"[n % 2], 0.9) for n in (2, 3, 0, 1)],
        Opinion("b", 0.3),
    ]
    new = [("new one", Opinion("a", 0.2)), ("asked before", Opinion("a", 0.1))]
    questions = open_questions(found, opinions, new, answered={"asked before"})
    assert [(question.text, round(question.value, 3)) for question in questions] == [
        ("both", 1.0), ("sure 1", 0.9), ("odd", 0.65), ("new one", 0.8)
    ]  # fmt: skip
    assert questions[0].reason == "it has several labels: 'a', 'b'"
    assert questions[1].reason == "the teacher: 'b', the expert: 'a' (confidence 0.80)"
    assert questions[1].suggested == ("b", "a")
    assert questions[2].reason.startswith("the file: 'a', the expert: 'b'")


def test_the_most_valuable_texts_are_unlike_one_another() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0][:3]
    vectors = np.repeat(centres, 10, axis=0) + 0.01 * rng.normal(size=(30, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    values = np.concatenate([np.full(10, 0.9), np.full(10, 0.6), np.full(10, 0.3)]) + 0.001 * rng.random(30)
    chosen = most_valuable(values, vectors, 3)
    assert [index // 10 for index in chosen] == [0, 1, 2]
    assert chosen[0] == int(values[:10].argmax())
    assert sorted(most_valuable(values, vectors, 100)) == list(range(30))
    assert most_valuable(values[:0], vectors[:0], 5) == []


def test_labels_are_found_by_a_piece_of_them() -> None:
    labels = ["card_arrival", "card_lost", "lost_phone", "q", "Card", "card"]
    assert find_labels("lost", labels) == ["lost_phone", "card_lost"]
    assert find_labels("phone lost", labels) == ["lost_phone"]
    assert find_labels("CARD_LOST", labels) == ["card_lost"]
    assert find_labels("Card", labels) == ["Card"]
    assert find_labels("nothing", labels) == []


SESSION = """
import fcntl, sys, termios
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches this process
from pathlib import Path
from cascade.cli.asking import ask_person, check_terminal
from cascade.lab.reading.answers import PersonAnswer, add_answer
from cascade.lab.reading.questions import Question
check_terminal()
labels = ["card", "lost card", "money", "q"]
texts = ["first \\x1b[31mred", "second", "third", "fourth", "fifth", "sixth"]
questions = [Question(text, "the expert is not sure", ("card", "money"), 1.0) for text in texts]
path = Path(sys.argv[1])
keep = lambda text, label: add_answer(path, PersonAnswer(text, label))
print("labelled", ask_person(questions, labels, keep))
"""


def at_a_terminal(answers: Path, keys: list[str], seconds: float = 30.0) -> str:
    """Run the session in a terminal; type each of `keys` when it asks for a label."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION, str(answers)],
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    shown, waiting, deadline = "", list(keys), time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if not select.select([main], [], [], 1.0)[0]:
                continue
            try:
                shown += os.read(main, 4096).decode()
            except OSError:  # the other end is closed
                break
            while waiting and shown.count("label: ") >= len(keys) - len(waiting) + 1:
                os.write(main, waiting.pop(0).encode())
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        assert process.returncode == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(main)
    return shown


def test_a_person_labels_skips_searches_and_stops_at_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.answers.jsonl"
    shown = at_a_terminal(path, ["2\n", "\n", "lost\n", "1\n", "nonsense\n", "=q\n", "Money\n", "q\n"])
    assert [(each.text, each.label) for each in read_answers(path).values()] == [
        ("first \x1b[31mred", "money"), ("second", None), ("third", "lost card"), ("fourth", "q"),
        ("fifth", "money"),
    ]  # fmt: skip
    assert "1/6  the expert is not sure" in shown
    assert "1 card   2 money" in shown
    assert "no label holds 'nonsense'" in shown
    assert "\x1b[31m" not in shown
    assert "labelled 4" in shown


@pytest.mark.parametrize("key", ["\x04", "\x03"])
def test_end_of_file_and_ctrl_c_stop_and_keep_what_was_answered(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.answers.jsonl"
    shown = at_a_terminal(path, ["1\n", key])
    assert [each.label for each in read_answers(path).values()] == ["card"]
    assert "labelled 1" in shown


def test_without_a_terminal_nobody_is_asked() -> None:
    done = subprocess.run([sys.executable, "-c", SESSION, "x"], input="1\n", capture_output=True, text=True)
    assert done.returncode == 1
    assert "--ask needs a person at a terminal" in done.stderr
    with pytest.raises(RequestError, match="model of kind human"):
        check_terminal()


def test_the_inbox_of_a_graph_asks_once_and_its_answers_are_a_persons_labels(tmp_path: Path) -> None:
    labels = ["card", "refund"]
    models = {
        "nano": scripted("card", confidence=0.1, labels=labels),
        "strong": scripted("card"),
        "desk": {"kind": "human", "tier": "human"},
    }
    stages = [
        checked("first", "nano", accept=0.5), checked("second", "strong", accept=0.5, by="logprob"),
        {"name": "desk", "ask": ["desk"]},
    ]  # fmt: skip
    path, db = write(tmp_path, models, stages), str(tmp_path / "t.db")
    assert has_inbox(load_graph(path))
    with Cascade.load(path, trace_db=db) as cascade:
        cascade.invoke("where is my money")
    assert [(row.text, row.label) for row in rows_from_traces(path, TraceOptions(trace_db=db)).rows] == [
        ("where is my money", "card")
    ]  # fmt: skip
    asking, runs = put_into_inbox(path, ["where is my money", "another text"], labels, db, private=False)
    assert put_into_inbox(path, ["Where is my  money"], labels, db, private=False)[1] == []
    with TraceStore(db, create=False) as store:
        waiting = [store.get(run) for run in runs]
    assert all(result.status == "waiting" for result in waiting)
    assert "where is my money" in (waiting[0].question or "")
    assert (waiting[0].question or "").endswith("card\nrefund")
    with Cascade.load(asking, trace_db=db) as cascade:
        cascade.resume(runs[0], "Refund")
        cascade.resume(runs[1], "neither")
    read = rows_from_traces(path, TraceOptions(trace_db=db))
    found = [(row.text, row.label, place.source) for row, place in zip(read.rows, read.places, strict=True)]
    assert found == [
        ("where is my money", "refund", "person")
    ]  # fmt: skip
    assert any("1 overruled" in each and "1 answered with no label" in each for each in read.remarks)
    assert json.loads(json.dumps(read.remarks))


def test_answers_beside_a_file_and_a_graph_join_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"my text number {n},{'ab'[n % 2]}\n" for n in range(12)))
    add_answer(answers_path(path), PersonAnswer("my text number 0", "b"))
    add_answer(answers_path(path), PersonAnswer("quite another", "a"))
    found = survey(path)
    assert found.counts == {"b": 7, "a": 6}
    assert found.sources == {"person": 2}
    assert found.asked == [False] * 12 + [True]
    assert found.times is None
    graph, db = (
        write(tmp_path, {"strong": scripted("a")}, [{"name": "s", "ask": ["strong"]}]),
        tmp_path / "t.db",
    )
    with Cascade.load(graph, trace_db=str(db)) as cascade:
        cascade.invoke("one")
        cascade.invoke("two")
    add_answer(answers_path(graph), PersonAnswer("two", "b"))
    add_answer(answers_path(graph), PersonAnswer("three", "b"))
    read = rows_from_traces(graph, TraceOptions(trace_db=str(db)))
    labels = [(row.label, place.source) for row, place in zip(read.rows, read.places, strict=True)]
    assert labels == [("a", "teacher"), ("b", "person"), ("b", "person")]
    assert read.remarks[0] == "labels: 2 answered by a person, 1 answered by the top tier"
    assert "models made 33% of the labels" in read.remarks[1]
    assert survey_rows("runs", read, RowOptions(min_rows=1)).times == [
        *(p.time or "" for p in read.places[:2]),
        "",
    ]
