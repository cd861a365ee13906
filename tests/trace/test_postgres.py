"""The store on a real PostgreSQL server, as in the tests of SQLite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_records import values
from hypothesis import HealthCheck, Phase, given, settings
from postgres import Server
from sqlalchemy import create_engine, text

from cascade.errors import TraceError, UnknownRunError
from cascade.records import Call, Decision, Request, Result, Step, Token, new_run_id
from cascade.trace import (
    RunFilter,
    TraceStore,
    export_runs,
    history,
    import_runs,
    max_call_costs,
    prune,
    read_head,
    vacuum,
    verify,
)
from cascade.trace.migrations import upgrade

WRITERS = str(Path(__file__).with_name("writers.py"))

ALL = RunFilter()


def result(run: str, **fields: Any) -> Result:
    token = Token(text="card", logprob=float("-inf"), margin=0.5)
    call = Call(
        model="nano", tier="haiku", text="card_arrival", tokens=(token,), meta={"batch": 1}, cost_usd=0.5
    )
    step = Step(stage="first", decision=Decision(action="accept", rule="unchecked"), calls=(call, call))
    given = {"graph": "g@1", "status": "accepted", "text": "card_arrival", "trace": (step, step)}
    started = "2026-01-01T00:00:00.000+00:00"
    return Result.model_validate(
        {"run": run, "request": Request(text="Where?"), "started": started, **given, **fields}
    )


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.database()


@pytest.fixture(scope="module")
def shared(postgres: Server) -> str:
    return postgres.database()


def change(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount
    engine.dispose()


def everything(url: str) -> list[Any]:
    with TraceStore(url, create=False) as store:
        return [(store.get(row.run), store.grades(row.run)) for row in store.runs(limit=1000)]


@settings(max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(values(Result))
def test_a_result_survives_a_round_trip_except_for_nul(shared: str, drawn: Result) -> None:
    drawn = drawn.model_copy(update={"run": new_run_id()})
    with TraceStore(shared) as store:
        store.write(drawn)
        texts = [one.model_dump_json().replace("\\u0000", "\ufffd") for one in (drawn, store.get(drawn.run))]
        assert texts[0] == texts[1]
    assert verify(shared).count == 0


def test_reading_creates_nothing_and_errors_are_plain(url: str, tmp_path: Path) -> None:
    with TraceStore(url, create=False) as store:
        assert store.runs() == []
        with pytest.raises(UnknownRunError, match="no runs yet"):
            store.get("A")
    with pytest.raises(TraceError, match=r"postgresql\+psycopg://.*nobody"):
        TraceStore(f"postgresql+psycopg://postgres:secret@/nobody?host={tmp_path}")


def test_runs_are_listed_paged_and_found(url: str) -> None:
    with TraceStore(url) as store:
        for index in range(6):
            asked = Request(text=f"50%_off \\ MY Card {index}")
            store.write(
                result(f"RUN{index}", graph=f"g{index % 3}@d{index}", request=asked, confidence=index / 10)
            )
        assert [row.run for row in store.runs(limit=2)] == ["RUN5", "RUN4"]
        assert [row.run for row in store.runs(before="RUN2")] == ["RUN1", "RUN0"]
        assert [row.run for row in store.runs(graph="g1@d4")] == ["RUN4"]
        for piece, count in (("my card 3", 1), ("50%_", 6), ("%", 6), ("\\", 6), ("run2", 1), ("nowhere", 0)):
            assert len(store.search(RunFilter(contains=piece))) == count
        assert len(store.search(RunFilter(confidence_min=0.2, confidence_max=0.4))) == 3
        assert store.get("run3").run == "RUN3"
        assert store.known("graph") == ["g0", "g1", "g2"]
        assert len(store.overview(ALL).figures) == 6
    assert len(list(history(url, ALL))) == 6
    assert max_call_costs(url, ALL) == {"nano": 0.5}


def test_ids_are_used_once_and_runs_that_waited_are_replaced(url: str) -> None:
    with TraceStore(url) as store:
        store.write(result("A", status="waiting", text=None))
        futures = [store.submit(result(name)) for name in ("B", "A", "C", "B")]
        errors = [future.exception(30) for future in futures]
        assert [type(error) for error in errors] == [type(None), type(None), type(None), TraceError]
        assert store.get("A").status == "accepted"
    report = verify(url)
    assert (report.count, report.runs, report.replaced) == (0, 3, 1)


def test_grades_enter_the_ledger_and_edits_are_found(url: str) -> None:
    with TraceStore(url, key=b"0123456789abcdef") as store:
        for name in "ABC":
            store.write(result(name))
        store.grade("B", True, by="Ada\0")
        store.grade("B", False)
        assert [grade.by for grade in store.grades("B")] == ["Ada\ufffd", None]
        assert [row.run for row in store.search(RunFilter(grade="wrong"))] == ["B"]
    assert verify(url, key=b"0123456789abcdef").signed == 5
    for table, column in (("runs", "text"), ("steps", "stage"), ("calls", "model"), ("grades", "at")):
        change(url, f"UPDATE {table} SET {column} = {column} || '!' WHERE run = 'B'")
        assert "'B'" in verify(url).problems[0]
        assert verify(url).problems[0].endswith("was edited")
        change(url, f"UPDATE {table} SET {column} = rtrim({column}, '!') WHERE run = 'B'")
    assert verify(url, anchor=str(read_head(url))).count == 0


def test_several_processes_make_the_tables_and_write_one_chain(url: str) -> None:
    writers = [subprocess.Popen([sys.executable, WRITERS, name, url, "30"]) for name in "XYZ"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    report = verify(url)
    assert (report.count, report.runs, report.grades, report.last) == (0, 90, 9, 99)


def test_runs_move_between_databases_without_loss(url: str, tmp_path: Path) -> None:
    sqlite = str(tmp_path / "runs.db")
    with TraceStore(sqlite) as store:
        for index in range(5):
            store.write(result(f"R{index}", started=f"202{index}-01-01T00:00:00.000+00:00"))
        store.grade("R1", True)
    for number, kind in enumerate(("jsonl", "parquet")):
        export_runs(sqlite, tmp_path / f"there.{kind}", ALL)
        done = import_runs(url, tmp_path / f"there.{kind}")
        assert (done.runs, done.present) == ((5, 0) if number == 0 else (0, 5))
        export_runs(url, tmp_path / f"back.{kind}", ALL)
        assert import_runs(sqlite, tmp_path / f"back.{kind}").present == 5
    assert everything(url) == everything(sqlite)
    assert prune(url, RunFilter(until="2023"), note="test").runs == 3
    assert vacuum(url).before is None
    report = verify(url)
    assert (report.count, report.runs, report.pruned) == (0, 2, 4)


def test_the_revisions_make_the_tables_of_a_new_database(url: str, postgres: Server) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    with TraceStore(url) as store:
        store.write(result("A"))
        assert store.get("A") == result("A")
    other = postgres.database()
    TraceStore(other).close()
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    for query in (columns, indexes):
        assert rows(url, query) == rows(other, query) != []


def rows(url: str, query: str) -> list[Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        result = list(map(tuple, connection.execute(text(query))))
    engine.dispose()
    return result
