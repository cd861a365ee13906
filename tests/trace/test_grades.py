"""Grades: all are kept, and the newest counts."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from cascade.errors import GradeError, TraceError, UnknownRunError
from cascade.records import Request, Result
from cascade.trace import RunFilter, TraceStore


def result(run: str, text: str | None = "card_arrival", **fields: object) -> Result:
    given = {"status": "accepted" if text else "abstained", "text": text, "request": Request(text="Where?")}
    return Result.model_validate({"run": run, "graph": "support@9f2c41ab", **given, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        for run in ("01AA", "01AB", "01BB"):
            store.write(result(run))
        store.write(result("01CC", None))
        store.write(result("01DD", None, draft="lost_card"))
    return path


def test_a_grade_is_kept_and_the_newest_counts(path: Path) -> None:
    with TraceStore(str(path)) as store:
        first = store.grade("01AA", True, by=" Ada ", note="looked it up")
        assert (first.run, first.correct, first.by, first.note) == ("01AA", True, "Ada", "looked it up")
        assert first.at.startswith("20")
        second = store.grade("01AA", False)
        assert store.grades("01AA") == (first, second)
        assert {row.run: row.correct for row in store.runs()} == {
            "01AA": False, "01AB": None, "01BB": None, "01CC": None, "01DD": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("grade", "runs"), [("right", ["01AB"]), ("wrong", ["01AA"]), ("none", ["01DD", "01CC", "01BB"])]
)
def test_runs_are_filtered_by_their_newest_grade(grade: str, runs: list[str], path: Path) -> None:
    with TraceStore(str(path)) as store:
        for run, correct in (("01AA", True), ("01AA", False), ("01AB", True)):
            store.grade(run, correct)
        rows = store.search(RunFilter.model_validate({"grade": grade}))
        assert [row.run for row in rows] == runs


def test_a_prefix_of_the_name_is_enough_and_an_ambiguous_one_is_refused(path: Path) -> None:
    with TraceStore(str(path)) as store:
        assert store.grade("01b", True).run == "01BB"
        with pytest.raises(UnknownRunError, match="begins several"):
            store.grade("01A", True)
        with pytest.raises(UnknownRunError, match="is not in"):
            store.grade("02", True)


def test_a_draft_can_be_graded_but_a_run_without_one_cannot(path: Path) -> None:
    with TraceStore(str(path)) as store:
        assert store.grade("01DD", True).correct
        with pytest.raises(GradeError, match="run '01CC' has neither an answer nor a draft"):
            store.grade("01CC", True)


@pytest.mark.parametrize(("field", "limit"), [("by", 200), ("note", 10_000)])
def test_a_grade_that_is_too_long_is_refused(field: str, limit: int, path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.grade("01AA", True, **{field: "x" * limit})
        with pytest.raises(
            GradeError, match=f"{field} has {limit + 1} characters; a grade takes at most {limit}"
        ):
            store.grade("01AA", True, **{field: "x" * (limit + 1)})
        assert len(store.grades("01AA")) == 1


def test_a_read_only_store_can_grade_and_creates_no_file(path: Path, tmp_path: Path) -> None:
    with TraceStore(str(path), create=False) as store:
        store.grade("01AA", True)
        assert store.grades("01AA")[0].correct
    with TraceStore(str(tmp_path / "none.db"), create=False) as store, pytest.raises(UnknownRunError):
        store.grade("01AA", True)
    assert not (tmp_path / "none.db").exists()


def test_grades_from_many_threads_are_all_kept(path: Path) -> None:
    with TraceStore(str(path)) as store:
        threads = [threading.Thread(target=store.grade, args=("01AA", bool(n % 2))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.grades("01AA")) == 8


def test_a_lone_surrogate_in_a_note_is_stored_as_the_replacement_character(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.grade("01AA", True, note="half \ud83d")
        assert store.grades("01AA")[0].note == "half \ufffd"


def test_a_locked_database_says_so(path: Path) -> None:
    with TraceStore(f"sqlite:///{path}?timeout=0.1") as store:
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TraceError, match="another process has locked it"):
            store.grade("01AA", True)
        other.close()
        assert store.grade("01AA", True).correct
