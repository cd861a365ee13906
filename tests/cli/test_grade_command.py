"""`cascade grade`: right or wrong, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.errors import GradeError, UnknownRunError
from cascade.records import Request, Result
from cascade.trace import TraceStore


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        for run, text in (("01AA", "yes"), ("01BB", "no"), ("01CC", None)):
            status = "accepted" if text else "abstained"
            given = {"run": run, "graph": "g", "status": status, "text": text, "request": Request(text="?")}
            store.write(Result.model_validate(given))
    return path


def call(*arguments: object) -> str:
    given = ["grade", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, given, catch_exceptions=False).output


def test_a_run_is_graded_again_and_again(database: Path) -> None:
    assert call("01a", "right", "--by", "Ada", "--trace-db", database) == "run 01AA is graded right\n"
    again = call("01AA", "wrong", "--note", "it was oos", "--trace-db", database)
    assert again == "run 01AA is graded wrong (1 earlier grade kept)\n"
    with TraceStore(str(database), create=False) as store:
        assert [(g.correct, g.by, g.note) for g in store.grades("01AA")] == [
            (True, "Ada", None),
            (False, None, "it was oos"),
        ]


def test_the_last_run_can_be_named_so(database: Path) -> None:
    with pytest.raises(GradeError, match="run '01CC' has neither an answer nor a draft"):
        call("last", "right", "--trace-db", database)


def test_what_cannot_be_graded_is_an_error(database: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownRunError, match="run '02' is not in"):
        call("02", "right", "--trace-db", database)
    with pytest.raises(UnknownRunError, match=r"run 'last' is not in .*none\.db; it has no runs yet"):
        call("last", "right", "--trace-db", tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    done = CliRunner().invoke(app, ["grade", "01AA", "maybe"])
    assert done.exit_code == 2
    assert "'maybe'" in done.output
