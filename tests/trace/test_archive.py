"""Runs are exported and imported without loss, and pruning is recorded."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from drawn_records import values
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cascade.cli.trace import app
from cascade.errors import TraceError
from cascade.records import Call, Decision, Request, Result, Step, Token, new_run_id
from cascade.trace import RunFilter, TraceStore, export_runs, import_runs, prune, vacuum, verify

ALL = RunFilter()
KINDS = ["jsonl", "parquet"]


def result(run: str, **fields: Any) -> Result:
    token = Token(text="card", logprob=float("-inf"), margin=0.5)
    call = Call(model="nano", tier="haiku", text="card_arrival", tokens=(token,), meta={"batch": 1})
    step = Step(stage="first", decision=Decision(action="accept", rule="unchecked"), calls=(call,))
    given = {"graph": "g@1", "status": "accepted", "text": "card_arrival", "trace": (step,)}
    started = "2026-01-01T00:00:00.000+00:00"
    return Result.model_validate(
        {"run": run, "request": Request(text="Where?"), "started": started, **given, **fields}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        for index in range(5):
            store.write(result(f"OLD{index}", graph="desk@1" if index == 4 else "g@1"))
        store.grade("OLD1", True, by="Ada")
        store.grade("OLD1", False, note="looked again")
        store.write(result("NEW", started="2099-01-01T00:00:00.000+00:00"))
        store.write(result("TIMELESS", started=""))
    return path


def everything(path: Path) -> list[tuple[Result, Any]]:
    with TraceStore(str(path), create=False) as store:
        return [(store.get(row.run), store.grades(row.run)) for row in store.runs(limit=1000)]


@pytest.mark.parametrize("kind", KINDS)
def test_runs_and_grades_survive_export_and_import(kind: str, path: Path, tmp_path: Path) -> None:
    file, copy = tmp_path / f"runs.{kind}", tmp_path / "copy.db"
    assert export_runs(str(path), file, ALL) == 7
    done = import_runs(str(copy), file)
    assert (done.runs, done.grades, done.present) == (7, 2, 0)
    assert everything(copy) == everything(path)
    again = import_runs(str(copy), file)
    assert (again.runs, again.grades, again.present) == (0, 0, 7)
    assert everything(copy) == everything(path)
    assert verify(str(copy)).count == 0


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.lists(values(Result), min_size=1, max_size=3))
def test_any_result_survives_export_and_import(
    kind: str, tmp_path_factory: pytest.TempPathFactory, drawn: list[Result]
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    with TraceStore(str(folder / "one.db")) as store:
        for one in drawn:
            store.write(plausible(one.model_copy(update={"run": new_run_id()})))
    export_runs(str(folder / "one.db"), folder / f"runs.{kind}", ALL)
    import_runs(str(folder / "two.db"), folder / f"runs.{kind}")
    assert everything(folder / "two.db") == everything(folder / "one.db")
    assert verify(str(folder / "two.db")).count == 0
    assert import_runs(str(folder / "two.db"), folder / f"runs.{kind}").present == len(drawn)


def plausible(drawn: Result) -> Result:
    """Return `drawn` with costs and durations that a run can have, which an import demands."""

    def amount(value: float | None) -> float | None:
        return None if value is None else abs(value) % 1000.0 if math.isfinite(value) else 1.0

    def changed(record: Any, *names: str, **more: Any) -> Any:
        return record.model_copy(update={name: amount(getattr(record, name)) for name in names} | more)

    usage = ("cost_usd", "seconds", "started")
    trace = tuple(
        changed(step, "seconds", "started", calls=tuple(changed(call, *usage) for call in step.calls))
        for step in drawn.trace
    )
    base = drawn.baseline and changed(drawn.baseline, "cost_usd", "low_usd", "high_usd")
    return changed(drawn, "cost_usd", "seconds", trace=trace, baseline=base)


ABSURD: list[tuple[tuple[str | int, ...], str]] = [
    *((("cost_usd",), each) for each in ("NaN", "1e308", "Infinity", "-1", "1" + "0" * 400)),
    *((("seconds",), each) for each in ("NaN", "1e308", "-0.5", "Infinity")),
    *((("started",), each) for each in ('"9999-12-31T23:59:59+00:00"', '"0001-01-01T00:00:00+14:00"')),
    (("confidence",), "NaN"),
    *((("trace", 0, "seconds"), each) for each in ("NaN", "-1")),
    *((("trace", 0, "calls", 0, "tokens_in"), each) for each in ("-1", "1" + "0" * 30, "9" * 4400, "1e30")),
    *((("trace", 0, "calls", 0, "cost_usd"), each) for each in ("NaN", "1e308", "-1e-9")),
    (("trace", 0, "calls", 0, "tokens", 0, "logprob"), "NaN"),
    (("grades", 0, "at"), '"9999-01-01T00:00:00+00:00"'),
]


@pytest.mark.parametrize(("place", "value"), ABSURD, ids=lambda value: str(value)[:40])
def test_numbers_and_times_that_no_run_can_have_are_refused_by_line(
    place: tuple[str | int, ...], value: str, path: Path, tmp_path: Path
) -> None:
    export_runs(str(path), tmp_path / "good.jsonl", ALL)
    lines = (tmp_path / "good.jsonl").read_text().splitlines()
    fields = json.loads(lines[1])
    within = fields
    for name in place[:-1]:
        within = within[name]
    within[place[-1]] = "HERE"
    lines[1] = json.dumps(fields).replace('"HERE"', value)
    file = tmp_path / "runs.jsonl"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(TraceError, match=r"runs\.jsonl:2: "):
        import_runs(str(tmp_path / "copy.db"), file)
    assert [one.run for one, _ in everything(tmp_path / "copy.db")] in ([], ["OLD0"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_different_run_with_the_same_id_is_refused_and_unchanged(
    kind: str, path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    with TraceStore(str(other)) as store:
        store.write(result("OLD2", text="something else"))
    export_runs(str(path), tmp_path / f"runs.{kind}", ALL)
    with pytest.raises(
        TraceError, match=r"run 'OLD2' of the file is another than the run 'OLD2' in .*other\.db"
    ):
        import_runs(str(other), tmp_path / f"runs.{kind}")
    with TraceStore(str(other)) as store:
        assert store.get("OLD2").text == "something else"


def test_only_the_wanted_runs_are_exported_in_the_order_of_commit(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    assert export_runs(str(path), file, RunFilter(graph="g", until="2027")) == 5
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["run"] for line in lines] == ["OLD0", "OLD1", "OLD2", "OLD3", "TIMELESS"]
    assert [grade["correct"] for grade in lines[1]["grades"]] == [True, False]
    assert export_runs(str(tmp_path / "none.db"), tmp_path / "none.jsonl", ALL) == 0


def test_an_export_overwrites_nothing_and_leaves_no_partial_file(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text("mine")
    with pytest.raises(TraceError, match="exists already; give the name of a new file"):
        export_runs(str(path), file, ALL)
    with pytest.raises(TraceError, match=r"ends in '\.csv'; expected \.jsonl or \.parquet"):
        export_runs(str(path), tmp_path / "runs.csv", ALL)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET status = 'surprised' WHERE run = 'NEW'")
    with pytest.raises(TraceError, match="run 'NEW' of the database is damaged"):
        export_runs(str(path), tmp_path / "new.jsonl", ALL)
    assert sorted(item.suffix for item in tmp_path.iterdir() if "runs.db" not in item.name) == [".jsonl"]


BROKEN = [
    (b"{", "runs.jsonl:2: this line is no run"),
    (b"[1]", "runs.jsonl:2: this line is no run"),
    (b'{"run": "A"}', "runs.jsonl:2: this line is no run: .*graph"),
    (b"\xff\xfe", "runs.jsonl:2: this line is no run: .*utf-8"),
    (b"", "runs.jsonl:2: this line is no run"),
    (b"[" * 100_000, "runs.jsonl:2: this line is no run"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN)
def test_a_broken_line_is_named_and_earlier_lines_are_kept(
    line: bytes, message: str, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "runs.jsonl"
    export_runs(str(path), tmp_path / "good.jsonl", ALL)
    good = (tmp_path / "good.jsonl").read_bytes().splitlines()
    file.write_bytes(b"\n".join([good[0], line, *good[1:], b""]))
    with pytest.raises(TraceError, match=message):
        import_runs(str(tmp_path / "copy.db"), file)
    file.write_bytes(b"\n".join([*good, b""]))
    import_runs(str(tmp_path / "copy.db"), file)
    assert everything(tmp_path / "copy.db") == everything(path)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "runs.parquet"
    with pytest.raises(TraceError, match="is no file"):
        import_runs(str(tmp_path / "copy.db"), file)
    file.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(TraceError, match=r"runs\.parquet cannot be read as Parquet"):
        import_runs(str(tmp_path / "copy.db"), file)


def test_a_pruned_store_verifies(path: Path) -> None:
    before = verify(str(path))
    until = RunFilter(until="2027", graph="g")
    assert prune(str(path), until, note="test", dry_run=True).runs == 4
    assert verify(str(path)) == before
    done = prune(str(path), until, note="test")
    assert (done.runs, done.grades) == (4, 2)
    report = verify(str(path), anchor=before.head)
    assert (report.count, report.runs, report.grades, report.pruned) == (0, 3, 0, 6)
    assert [result.run for result, _ in everything(path)] == ["TIMELESS", "NEW", "OLD4"]
    with TraceStore(str(path)) as store:
        store.write(result("OLD1"))  # a run that was pruned can be imported again
    assert prune(str(path), until, note="again").runs == 1
    assert prune(str(path), until, note="nothing").runs == 0
    assert (verify(str(path)).count, verify(str(path)).pruned) == (0, 7)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET pruned = NULL WHERE run = 'OLD0'",
        "UPDATE ledger SET pruned = (SELECT max(pruned) FROM ledger) WHERE run = 'NEW'",
        "UPDATE ledger SET pruned = 99 WHERE run = 'OLD0'",
        "DELETE FROM ledger WHERE kind = 'prune'",
        "UPDATE ledger SET note = 'other' WHERE kind = 'prune'",
    ],
)
def test_a_removal_cannot_pass_for_a_pruning(statement: str, path: Path) -> None:
    prune(str(path), RunFilter(until="2027"), note="test")
    assert verify(str(path)).count == 0
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    assert verify(str(path)).count > 0


def test_pruned_texts_are_gone_after_a_vacuum(path: Path) -> None:
    with TraceStore(str(path)) as store:
        for index in range(30):
            store.write(
                result(f"SECRET{index}", request=Request(text=f"the password is swordfish{index} " * 200))
            )
    prune(str(path), RunFilter(contains="swordfish"), note="test")
    size = vacuum(str(path))
    assert size.before is not None
    assert size.after is not None
    assert size.after < size.before
    assert b"swordfish" not in path.read_bytes()
    assert verify(str(path)).count == 0


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_the_commands_do_it(path: Path, tmp_path: Path) -> None:
    db = ("--trace-db", path)
    assert run("export", tmp_path / "a.jsonl", *db, "--graph", "g", "--until", "2027-01-01").startswith(
        "5 runs written"
    )
    assert run("import", tmp_path / "a.jsonl", "--trace-db", tmp_path / "b.db").startswith(
        "5 runs and 2 grades imp"
    )
    assert "5 runs were stored already" in run(
        "import", tmp_path / "a.jsonl", "--trace-db", tmp_path / "b.db"
    )
    assert run("prune", "--older-than", "30d", "--dry-run", *db).startswith(
        "5 runs and 2 grades would be removed"
    )
    assert run("prune", "--older-than", "4w", "--graph", "desk", *db).startswith(
        "1 runs and 0 grades removed"
    )
    assert run("vacuum", *db).endswith("MB now\n")
    assert run("prune", "--older-than", "1d", "--trace-db", tmp_path / "no.db").startswith("0 runs")
    for age in ("30", "d", "-3d", "1e9d", "3y"):
        with pytest.raises(TraceError, match="is not an age; give hours, days or weeks"):
            run("prune", f"--older-than={age}", *db)
    with pytest.raises(TraceError, match="reaches back before the year 1"):
        run("prune", "--older-than", "999999999w", *db)
    with pytest.raises(TraceError, match="--since is 'soon'; expected a time such as"):
        run("export", tmp_path / "c.jsonl", "--since", "soon", *db)
