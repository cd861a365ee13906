"""A run that waits for a person shows its question, and how to answer it, everywhere a run is shown."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from scripting import checked, scripted, write
from typer.testing import CliRunner

from cascade import Cascade
from cascade.cli.main import app
from cascade.cli.summary import result_row
from cascade.explain import explain, render_text
from cascade.lab.tables.rows import Row
from cascade.records import Request, Result, ToolCall
from cascade.serve.answers import Answers
from cascade.serve.app import create_app
from cascade.trace import RunFilter, TraceStore, export_runs, import_runs, verify

HERE = "http://127.0.0.1"
PERSON = {"kind": "human", "tier": "human", "question": "Dear clerk: {text} Which form?"}
QUESTION = "Dear clerk: I lost <my> card? Which form?"
TEXT = "I lost <my> card?"


def asking(folder: Path, *, first: bool = False, **settings: object) -> Path:
    """A graph whose last stage, or with `first` its only one, is a person."""
    person = {"name": "desk", "ask": ["clerk"]}
    models = {"small": scripted("no", confidence=0.1), "clerk": PERSON}
    if first:
        return write(folder, {"clerk": PERSON}, [person], **settings)
    return write(folder, models, [checked("first", "small"), person], **settings)


def shown(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    waits = arguments[0] == "run" and "--input" not in arguments
    assert done.exit_code == (4 if waits else 0), done.output + str(done.exception)
    return done.output


def wait(path: Path, db: Path, text: str = TEXT) -> Result:
    with Cascade.load(path, trace_db=str(db)) as cascade:
        return cascade.invoke(text)


@pytest.mark.parametrize("first", [False, True])
def test_the_question_is_in_the_result_the_store_and_every_command(tmp_path: Path, first: bool) -> None:
    path, db = asking(tmp_path, first=first), tmp_path / "runs.db"
    result = wait(path, db)
    assert (result.status, result.question, result.text) == ("waiting", QUESTION, None)
    assert (result.stage, result.model, result.tier) == ("desk", "clerk", "human")
    assert len(result.trace) == (0 if first else 1)
    with TraceStore(str(db), create=False) as store:
        assert store.get(result.run) == result
        (row,) = store.runs(status="waiting")
        assert row.question == QUESTION
    assert verify(str(db)).count == 0
    for command in ("explain", "show"):
        text = " ".join(shown("trace", command, "last", "--trace-db", db).split())
        assert QUESTION in text, command
    assert f"cascade resume {result.run}" in shown("trace", "explain", "last", "--trace-db", db)
    assert "Not reached" not in shown("trace", "explain", "last", "--graph", path, "--trace-db", db)
    told = json.loads(shown("trace", "explain", "last", "--json", "--trace-db", db))
    assert (told["question"], told["waits_at"], told["asks"]) == (QUESTION, "desk", "clerk")
    listed = shown("trace", "list", "--status", "waiting", "--trace-db", db)
    assert f"asks: {QUESTION[:20]}" in listed
    assert json.loads(shown("trace", "list", "--json", "--trace-db", db))[0]["question"] == QUESTION


def test_run_prints_the_question_and_a_command_that_answers_it(tmp_path: Path) -> None:
    path, db = asking(tmp_path), tmp_path / "my runs.db"
    out = shown("run", path, TEXT, "--trace-db", db)
    assert QUESTION in out
    command = re.search(r"cascade (resume \S+) 'ANSWER' --trace-db '(.*)'", out)
    assert command is not None, out
    answered = shown(*command[1].split(), "form 7", "--trace-db", command[2])
    assert "form 7" in answered
    assert "asks:" not in answered
    assert json.loads(shown("run", path, TEXT, "--json", "--trace-db", db))["question"] == QUESTION
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"id": "1", "text": TEXT}) + "\n")
    assert "waiting    1 (cascade trace list --status waiting)" in shown(
        "run", path, "--input", rows, "--trace-db", db
    )


@pytest.mark.parametrize("way", ["last", "prefix", "lower", "whole"])
def test_resume_takes_last_and_prefixes(tmp_path: Path, way: str) -> None:
    path, db = asking(tmp_path), tmp_path / "runs.db"
    run = wait(path, db).run
    with Cascade.load(
        write(tmp_path, {"a": scripted("x")}, [{"name": "s", "ask": ["a"]}]), trace_db=str(db)
    ) as c:
        c.invoke("a run that ended later")
    asking(tmp_path)
    name = {"last": "last", "prefix": run[:24], "lower": run[:24].lower(), "whole": run}[way]
    assert "form 7" in shown("resume", name, "form 7", "--trace-db", db)
    with TraceStore(str(db), create=False) as store:
        done = store.get(run)
    assert (done.status, done.text, done.question) == ("accepted", "form 7", None)


def test_what_cannot_be_resumed_is_said_with_the_question(tmp_path: Path) -> None:
    path, db = asking(tmp_path), tmp_path / "runs.db"

    def fails(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["resume", *arguments, "--trace-db", str(db)])
        assert done.exit_code == 1
        return str(done.exception)

    assert "no run is waiting" in fails("last", "x")
    first = wait(path, db).run
    wait(path, db)
    assert "begins several" in fails(first[:8], "x")
    assert f"give the answer to {QUESTION!r}" in fails("last")
    assert "is not waiting" in fails("nonsense", "x")


@pytest.mark.parametrize("first", [False, True])
def test_the_page_has_an_answer_box_that_finishes_the_run(tmp_path: Path, first: bool) -> None:
    path, db = asking(tmp_path, first=first), tmp_path / "runs.db"
    run = wait(path, db).run
    with Cascade.load(path, trace_db=str(db)) as cascade, TraceStore(str(db), create=False) as store:
        viewer = create_app(
            store, [cascade.loaded], answers=Answers([cascade.version], lambda version: cascade)
        )
        http = TestClient(viewer, base_url=HERE, follow_redirects=True)
        assert html.escape(QUESTION) in http.get("/").text
        page = http.get(f"/runs/{run}").text
        assert html.escape(QUESTION) in page
        assert f'action="/runs/{run}/answer"' in page
        assert "Not reached" not in page
        refused = http.post(f"/runs/{run}/answer", data={"answer": " "})
        assert (refused.status_code, 'role="alert"' in refused.text) == (400, True)
        foreign = http.post(
            f"/runs/{run}/answer", data={"answer": "x"}, headers={"Origin": "http://evil.example"}
        )
        assert foreign.status_code == 403
        assert store.get(run).status == "waiting"
        done = http.post(f"/runs/{run}/answer", data={"answer": "form 7\r\nthen 8"})
        assert done.status_code == 200
        assert "form 7\nthen 8" in done.text
        assert f'action="/runs/{run}/answer"' not in done.text
        assert store.get(run).text == "form 7\nthen 8"


def test_a_viewer_without_the_graph_shows_the_question_and_the_command(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    run = wait(asking(tmp_path), db).run
    with TraceStore(str(db), create=False) as store:
        page = TestClient(create_app(store), base_url=HERE).get(f"/runs/{run}").text
    assert html.escape(QUESTION) in page
    assert "<textarea" not in page
    assert f"cascade resume {run}" in page


def test_a_private_graph_stores_no_question_and_asks_at_the_terminal_all_the_same(tmp_path: Path) -> None:
    path, db = asking(tmp_path, trace={"store_text": False}), tmp_path / "runs.db"
    result = wait(path, db)
    assert result.question == QUESTION
    with TraceStore(str(db), create=False) as store:
        kept = store.get(result.run)
    assert kept.question is not None
    assert kept.question.startswith("sha256:")
    assert "card" not in kept.model_dump_json()
    code = "import pty, sys; pty.spawn([sys.executable, '-m', 'cascade.cli.main', *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, "resume", "last", "--trace-db", str(db)],
        input="form 7\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert QUESTION in done.stdout, done.stdout + done.stderr
    with TraceStore(str(db), create=False) as store:
        assert store.get(result.run).status == "accepted"


@settings(max_examples=25, deadline=None)
@given(question=st.none() | st.text(max_size=80), calls=st.booleans(), text=st.none() | st.text(max_size=20))
def test_any_question_survives_the_store_an_export_and_the_terminal(
    tmp_path_factory: pytest.TempPathFactory, question: str | None, calls: bool, text: str | None
) -> None:
    folder = tmp_path_factory.mktemp("questions")
    asked = Result(
        run="01AA", graph="g@1", status="waiting", question=question, draft=text, stage="desk", model="clerk",
        tool_calls=(ToolCall(id="1", name="f", arguments="{}"),) if calls else (),
        request=Request(text="hello"),
    )  # fmt: skip
    with TraceStore(str(folder / "a.db")) as store:
        store.write(asked)
        kept = store.get("01AA")
    assert kept == asked
    export_runs(str(folder / "a.db"), folder / "a.jsonl", RunFilter())
    assert import_runs(str(folder / "b.db"), folder / "a.jsonl").runs == 1
    assert verify(str(folder / "b.db")).count == 0
    written = render_text(explain(kept)).replace("\n", "")
    assert not {unicodedata.category(char) for char in written} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert ("question" in result_row(Row("1", "hello"), kept)) == (question is not None)
