"""The ledger reveals edited, removed and reordered rows in every table."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from drawn_records import values
from hypothesis import HealthCheck, Phase, given, settings
from sqlalchemy import create_engine
from typer.testing import CliRunner

from cascade.cli.trace import app
from cascade.errors import TraceError
from cascade.records import Call, Decision, Request, Result, Step, new_run_id
from cascade.trace import TraceStore, read_head, read_key, verify
from cascade.trace._ledger import GENESIS, PendingEntry, hash_run, link, sign
from cascade.trace._rows import raw_rows, select_raw
from cascade.trace._tables import calls, grades, runs, steps

WRITERS = str(Path(__file__).with_name("writers.py"))

KEY, OTHER = b"0123456789abcdef-a-key", b"0123456789abcdef-another"


def result(run: str, **fields: Any) -> Result:
    call = Call(model="nano", tier="haiku", text="card_arrival", labels={"card_arrival": 0.9})
    step = Step(stage="first", decision=Decision(action="accept", rule="unchecked"), calls=(call, call))
    given = {"graph": "g@1", "status": "accepted", "text": "card_arrival", "trace": (step, step)}
    return Result.model_validate({"run": run, "request": Request(text="Where?"), **given, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        for name in ("A", "B", "C"):
            store.write(result(name))
        store.grade("B", True, by="Ada")
        store.write(result("D"))
    return path


def tamper(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount, f"{statement} changed nothing"
        connection.commit()


def problems(path: Path, **options: Any) -> str:
    report = verify(str(path), **options)
    assert report.count == len(report.problems)
    return "\n".join(report.problems)


def test_stored_rows_verify(path: Path) -> None:
    report = verify(str(path))
    assert (report.count, report.entries, report.runs, report.grades, report.last) == (0, 5, 4, 1, 5)
    assert report.head == str(read_head(str(path)))


def test_numbers_that_a_database_changes_have_the_same_hash(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result("N", cost_usd=-0.0, seconds=float("inf"), confidence=float("nan")))
    assert problems(path) == ""


@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(values(Result))
def test_any_result_has_the_same_hash_when_it_is_read_back(tmp_path_factory: Any, drawn: Result) -> None:
    path = tmp_path_factory.mktemp("drawn") / "runs.db"
    with TraceStore(str(path)) as store:
        store.write(drawn.model_copy(update={"run": new_run_id()}))
    assert verify(str(path)).count == 0


COLUMNS = [
    (table.name, column.name)
    for table in (runs, steps, calls, grades)
    for column in table.c
    if column.name not in ("seq", "run", "step", "call")
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_an_edit_of_any_column_is_found(table: str, column: str, path: Path) -> None:
    tamper(path, f"""UPDATE {table} SET "{column}" = coalesce("{column}", '') || '7' WHERE run = 'B'""")
    what = "a grade of run 'B'" if table == "grades" else "run 'B'"
    assert problems(path).startswith(f"{what} (entry ")
    assert problems(path).endswith("was edited")


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM runs WHERE run = 'B'", "run 'B' (entry 2) was removed"),
        ("DELETE FROM steps WHERE run = 'B' AND step = 1", "run 'B' (entry 2) was edited"),
        ("DELETE FROM calls WHERE run = 'B' AND call = 0", "run 'B' (entry 2) was edited"),
        ("DELETE FROM grades", "a grade of run 'B' (entry 4) was removed"),
        ("UPDATE calls SET call = call + 2 WHERE run = 'B'", "run 'B' (entry 2) was edited"),
        ("UPDATE steps SET run = 'E' WHERE run = 'B'", "run 'B' (entry 2) was edited"),
        ("UPDATE runs SET run = 'E' WHERE run = 'B'", "run 'B' (entry 2) was removed"),
        ("UPDATE runs SET seq = 9 WHERE run = 'B'", "run 'B' (entry 2) was reordered: it stands at 9"),
        ("UPDATE grades SET run = 'C'", "a grade of run 'B' (entry 4) was removed"),
        ("INSERT INTO grades SELECT 9, 'A', 1, by, note, at FROM grades", "grades has run 'A' at 9"),
        ("INSERT INTO grades SELECT -1, 'A', 1, by, note, at FROM grades", "grades has run 'A' at -1"),
        ("INSERT INTO steps (run, step, stage, action, rule, seconds) "
         "SELECT 'X', step, stage, action, rule, 0 FROM steps WHERE run = 'A'", "steps has rows of run 'X'"),
        ("DELETE FROM ledger WHERE run = 'C'", "entry 4 of the ledger (grade 'B') does not follow"),
        ("DELETE FROM ledger WHERE seq = 5", "runs has run 'D' at 5, which no entry of the ledger knows"),
        ("UPDATE ledger SET body = x'00' WHERE seq = 2", "run 'B' (entry 2) was edited"),
        ("UPDATE ledger SET link = 'text' WHERE seq = 2", "entry 3 of the ledger (run 'C') does not follow"),
        ("UPDATE ledger SET kind = 'waiting' WHERE seq = 2", "entry 2 of the ledger (waiting 'B') does not"),
        ("UPDATE ledger SET run = 'E' WHERE seq = 2", "entry 2 of the ledger (run 'E') does not follow"),
        ("UPDATE ledger SET note = 'x' WHERE seq = 2", "entry 2 of the ledger (run 'B') does not follow"),
        ("UPDATE ledger SET pruned = 5 WHERE seq = 2", "entry 5 of the ledger, which says what was pruned"),
    ],
)  # fmt: skip
def test_any_other_change_of_rows_is_found(statement: str, problem: str, path: Path) -> None:
    tamper(path, statement)
    assert problem in problems(path)


def test_two_swapped_runs_are_both_named(path: Path) -> None:
    tamper(
        path,
        "UPDATE runs SET seq = 99 WHERE run = 'A'",
        "UPDATE runs SET seq = 1 WHERE run = 'B'",
        "UPDATE runs SET seq = 2 WHERE run = 'A'",
    )
    assert "run 'A' (entry 1) was reordered: it stands at 2" in problems(path)
    assert "run 'B' (entry 2) was reordered: it stands at 1" in problems(path)


def test_an_end_that_was_cut_off_is_found_by_an_anchor(path: Path) -> None:
    anchor = str(read_head(str(path)))
    with TraceStore(str(path)) as store:
        store.write(result("E"))
    assert problems(path, anchor=anchor) == ""
    tamper(path, "DELETE FROM runs WHERE seq >= 5", "DELETE FROM ledger WHERE seq >= 5")
    tamper(path, "DELETE FROM steps WHERE run IN ('D', 'E')", "DELETE FROM calls WHERE run IN ('D', 'E')")
    assert problems(path) == ""  # nothing inside the database can tell
    assert problems(path, anchor=anchor).startswith(f"no entry of the ledger has the anchor {anchor}")


@pytest.mark.parametrize("anchor", ["", "12", "zz" * 32, "0" * 63])
def test_an_invalid_anchor_is_refused(anchor: str, path: Path) -> None:
    with pytest.raises(TraceError, match="is no link; give the 64 hexadecimal digits"):
        verify(str(path), anchor=anchor)


def signed_store(path: Path) -> None:
    with TraceStore(str(path), key=KEY) as store:
        store.write(result("S1"))
        store.write(result("S2"))


def rewrite(path: Path, key: bytes | None = None, *, strip: bool = False) -> None:
    """Change an answer and recompute the whole chain, like an attacker with write access."""
    tamper(path, "UPDATE runs SET text = 'forged' WHERE run = 'B'")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(select_raw(runs)).mappings()]
        hashes = {stored.run["run"]: hash_run(stored) for stored in raw_rows(connection, rows)}
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        before = GENESIS
        for row in connection.execute("SELECT * FROM ledger ORDER BY seq").fetchall():
            body = hashes[row["run"]] if row["kind"] == "run" else row["body"]
            before = link(before, row["seq"], PendingEntry(row["kind"], row["run"], body, row["note"]))
            signed = None if strip else sign(before, key) if key else row["sign"]
            change = "UPDATE ledger SET body = ?, link = ?, sign = ? WHERE seq = ?"
            connection.execute(change, (body, before, signed, row["seq"]))
        connection.commit()


def test_a_recomputed_chain_is_found_only_by_a_key_or_an_anchor(path: Path) -> None:
    signed_store(path)
    anchor = str(read_head(str(path)))
    assert problems(path, key=KEY, anchor=anchor) == ""
    assert verify(str(path), key=KEY).signed == 2
    rewrite(path)
    assert problems(path) == ""  # as documented
    assert "has the anchor" in problems(path, anchor=anchor)
    assert "the signature of entry 6 of the ledger is not by this key" in problems(path, key=KEY)
    rewrite(path, OTHER)
    assert "the signature of entry 6" in problems(path, key=KEY)
    rewrite(path, strip=True)
    assert problems(path, key=KEY) == "no entry of the ledger is signed with this key"


def test_entries_without_a_signature_after_signed_ones_are_found(path: Path) -> None:
    signed_store(path)
    with TraceStore(str(path)) as store:
        store.write(result("E"))
    assert problems(path, key=KEY) == "entry 8 of the ledger is not signed, though entries before it are"
    assert problems(path) == ""


def test_the_key_is_read_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_key() is None
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    monkeypatch.setenv("CASCADE_TRACE_KEY_FILE", str(file))
    assert read_key() == KEY
    monkeypatch.setenv("CASCADE_TRACE_KEY", OTHER.decode())
    assert read_key() == OTHER
    assert read_key(file) == KEY
    with TraceStore(str(tmp_path / "runs.db")) as store:
        store.write(result("A"))
    assert verify(str(tmp_path / "runs.db"), key=OTHER).signed == 1
    monkeypatch.setenv("CASCADE_TRACE_KEY", "short")
    with pytest.raises(
        TraceError, match="the signing key in CASCADE_TRACE_KEY has 5 bytes; expected at least 16"
    ):
        read_key()
    with pytest.raises(TraceError, match=r"key file .*none: No such file"):
        read_key(tmp_path / "none")


def test_a_run_that_waited_and_its_outcome_verify(path: Path) -> None:
    with TraceStore(str(path)) as store:
        store.write(result("W", status="waiting", text=None))
        store.write(result("W", status="waiting", text=None, seconds=3.0))
        store.write(result("V", status="waiting", text=None))
        store.write(result("W", text="here"))
    report = verify(str(path))
    assert (report.count, report.replaced, report.runs) == (0, 2, 6)
    tamper(path, "DELETE FROM runs WHERE run = 'V'", "DELETE FROM steps WHERE run = 'V'")
    tamper(path, "DELETE FROM calls WHERE run = 'V'")
    assert problems(path) == "run 'V' (entry 8), which waited for a person, was removed"


def test_several_processes_write_one_chain(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, WRITERS, name, str(path), "40"]) for name in "XYZ"]
    while any(writer.poll() is None for writer in writers):
        assert verify(str(path)).count == 0  # while they write, too
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    report = verify(str(path))
    assert (report.count, report.runs, report.grades, report.last) == (0, 124, 13, 137)


def test_a_missing_database_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="does not exist; there is nothing to verify"):
        verify(str(tmp_path / "none.db"))
    assert str(read_head(str(tmp_path / "none.db"))) == "00" * 32


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_command_exits_1_and_names_the_run(path: Path, tmp_path: Path) -> None:
    code, anchor = run("head", "--trace-db", path)
    assert (code, len(anchor.strip())) == (0, 64)
    code, output = run("verify", "--trace-db", path, "--anchor", anchor.strip())
    assert code == 0
    assert output.startswith("4 runs and 1 grades checked against 5 entries of the ledger")
    assert "no anchor given" not in output
    tamper(path, "UPDATE steps SET score = 0.5 WHERE run = 'C'")
    code, output = run("verify", "--trace-db", path)
    assert code == 1
    assert output.startswith("run 'C' (entry 3) was edited\n")
    assert "a ledger cut off at its end would go unnoticed" in output
    code, output = run("verify", "--trace-db", path, "--json")
    assert code == 1
    assert '"count": 1' in output
    (tmp_path / "key").write_bytes(KEY)
    code, output = run("verify", "--trace-db", path, "--key-file", tmp_path / "key")
    assert "no entry of the ledger is signed with this key" in output
