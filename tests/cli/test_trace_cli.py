"""`cascade trace`: what it prints, and what it says when there is nothing to print."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cascade.cli.main import app as whole
from cascade.cli.trace import app
from cascade.errors import TraceError
from cascade.records import Call, Decision, Estimate, Request, Result, Step, Token
from cascade.trace import TraceStore


def result(run: str, **fields: Any) -> Result:
    call = Call(
        model="nano",
        tier="haiku",
        text="card_arrival",
        labels={"card_arrival": 0.9, "oos": 0.1},
        tokens=(Token(text="card", logprob=-0.25),),
        meta={"finish_reason": "stop"},
    )
    estimate = Estimate(
        by="labels", chosen=0, signals={"top1": 0.9}, score=0.9, confidence=0.93, calibrated=True
    )
    decision = Decision(action="accept", rule="confident", threshold=0.9)
    given: dict[str, Any] = {
        "run": run,
        "graph": "support@9f2c41ab",
        "status": "accepted",
        "rule": "confident",
        "text": "card_arrival",
        "confidence": 0.93,
        "stage": "first",
        "model": "nano",
        "tier": "haiku",
        "cost_usd": 0.0004,
        "seconds": 0.012,
        "started": "2026-11-21T03:00:00.000+00:00",
        "request": Request(text="where is [bold]my[/bold] card?\x1b[31m", metadata={"id": 7}),
        "trace": (Step(stage="first", decision=decision, calls=(call,), estimate=estimate),),
    }
    return Result(**(given | fields))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with TraceStore(str(path)) as store:
        store.write(result("01AAAA"))
        store.write(
            result("01BBBB", status="abstained", rule="over_cost", text=None, tier=None, confidence=None)
        )
        store.write(result("01CCCC", graph="desk@1", tier="opus", text="see \x1b[31m[red]there"))
    return path


def call(*arguments: object, columns: int = 160) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_list_prints_a_line_a_run_newest_first(database: Path) -> None:
    lines = call("list", "--trace-db", database).splitlines()
    assert lines[0].split() == [
        "run",
        "started",
        "graph",
        "request",
        "status",
        "tier",
        "rule",
        "conf.",
        "cost",
        "time",
        "answer",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["01CCCC", "01BBBB", "01AAAA"]
    assert "2026-11-21 03:00:00  support@9f2c41ab  where is [bold]my[/bold]" in lines[3]
    assert "accepted   haiku  confident   0.93  $0.0004  12 ms" in lines[3]
    assert "\x1b" not in "".join(lines)
    assert "see ·[31m[red]there" in lines[1]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (40, ["run", "request", "status"]),
        (60, ["run", "request", "status", "tier", "answer"]),
        (90, ["run", "request", "status", "tier", "rule", "conf.", "cost", "answer"]),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns_and_whole_run_ids(
    columns: int, shown: list[str], database: Path
) -> None:
    with TraceStore(str(database)) as store:
        store.write(result("01DDDD", text="long " * 30))
    lines = call("list", "--trace-db", database, columns=columns).splitlines()
    assert sorted(lines[0].split()) == sorted(shown)
    assert [line.split()[0] for line in lines[1:]] == ["01DDDD", "01CCCC", "01BBBB", "01AAAA"]
    assert all("where is [bold]m" in line for line in lines[1:])
    assert max(map(len, lines)) <= columns


def test_list_filters(database: Path) -> None:
    def listed(*options: object) -> list[str]:
        rows = json.loads(call("list", "--json", "--trace-db", database, *options))
        return [row["run"] for row in rows]

    assert listed() == ["01CCCC", "01BBBB", "01AAAA"]
    assert listed("--graph", "support") == ["01BBBB", "01AAAA"]
    assert listed("--status", "abstained") == ["01BBBB"]
    assert listed("--tier", "opus") == ["01CCCC"]
    assert listed("--rule", "over_cost", "--graph", "support@9f2c41ab") == ["01BBBB"]
    assert listed("--limit", "1") == ["01CCCC"]
    assert listed("--text", "THERE") == ["01CCCC"]
    assert listed("--text", "where is", "--status", "abstained") == ["01BBBB"]
    assert listed("--text", "nowhere") == []
    assert "matches; `cascade" in call("list", "--text", "nowhere", "--trace-db", database)
    assert "matches; `cascade trace list` shows all" in call("list", "--tier", "none", "--trace-db", database)


@pytest.mark.parametrize("since", ["2h", "90m", "0.5d", "1w", "hour"])
def test_list_takes_ages_and_dates(since: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ages = {"01OLD": timedelta(days=30), "01NEW": timedelta(minutes=5)}
    with TraceStore(str(tmp_path / "runs.db")) as store:
        for name, age in ages.items():
            store.write(result(name, started=(now - age).isoformat(timespec="milliseconds")))
    given = (now - timedelta(hours=1)).isoformat() if since == "hour" else since
    options = ("list", "--json", "--trace-db", tmp_path / "runs.db", "--since")
    assert [row["run"] for row in json.loads(call(*options, given))] == ["01NEW"]
    day = (now - timedelta(days=40)).date().isoformat()
    assert len(json.loads(call(*options, day))) == 2


@pytest.mark.parametrize("since", ["yesterday", "2x", "-3h", "", "9" * 12 + "w", "h", "1e3h", "٣h", "nanh"])
def test_a_time_that_is_none_is_refused_by_name(since: str, database: Path) -> None:
    if since == "":
        assert len(json.loads(call("list", "--json", "--trace-db", database, "--since", since))) == 3
        return
    with pytest.raises(TraceError, match=r"--since is .*; expected a time such as .* or an age such as 2h"):
        call("list", "--trace-db", database, "--since", since)


def test_list_shows_a_private_request_as_it_is_stored(tmp_path: Path) -> None:
    with TraceStore(str(tmp_path / "runs.db"), store_text=False) as store:
        store.write(result("01AAAA"))
    lines = call("list", "--trace-db", tmp_path / "runs.db").splitlines()
    assert "sha256:" in lines[1]
    assert "where is" not in lines[1]


def test_list_as_json_is_an_array_of_objects(database: Path) -> None:
    row = json.loads(call("list", "--json", "--limit", 1, "--trace-db", database))[0]
    assert {name: row[name] for name in ("run", "graph", "status", "tier", "cost_usd", "started")} == {
        "run": "01CCCC",
        "graph": "desk@1",
        "status": "accepted",
        "tier": "opus",
        "cost_usd": 0.0004,
        "started": "2026-11-21T03:00:00.000+00:00",
    }


@pytest.mark.parametrize("option", [("--status", "done"), ("--rule", "sure"), ("--limit", "0")])
def test_a_filter_that_cannot_match_is_refused(option: tuple[str, str], database: Path) -> None:
    done = CliRunner().invoke(app, ["list", *option, "--trace-db", str(database)])
    assert done.exit_code == 2
    assert option[0] in done.output


def test_an_absent_database_has_no_runs_and_stays_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "none.db"
    monkeypatch.setenv("CASCADE_TRACE_DB", str(path))
    assert call("list") == f"no runs yet in {path}; run `cascade run GRAPH TEXT`\n"
    assert json.loads(call("list", "--json")) == []
    with pytest.raises(TraceError, match=r"run 'A' is not in .*none\.db; it has no runs yet"):
        call("show", "A")
    assert not path.exists()


def test_show_prints_all_that_is_stored(database: Path) -> None:
    text = call("show", "01A", "--trace-db", database, columns=200)
    for piece in (
        "run 01AAAA", "graph support@9f2c41ab", 'request "where is [bold]my[/bold] card?\\u001b[31m"',
        "metadata id 7",
        "call nano", "labels card_arrival 0.9, oos 0.1", "tokens [[card, -0.25]]", "meta finish_reason stop",
        "estimate labels", "signals top1 0.9", "decision accept", "threshold 0.9",
    ):  # fmt: skip
        assert piece in text
    assert "\x1b" not in text


def test_show_as_json_is_the_result(database: Path) -> None:
    assert Result.model_validate_json(call("show", "01AAAA", "--json", "--trace-db", database)) == result(
        "01AAAA"
    )


def test_json_has_no_infinity(tmp_path: Path) -> None:
    call_ = Call(model="m", tier="t", tokens=(Token(text="x", logprob=float("-inf")),))
    step = Step(stage="s", decision=Decision(action="abstain", rule="no_estimate"), calls=(call_,))
    with TraceStore(str(tmp_path / "runs.db")) as store:
        store.write(result("A", trace=(step,)))
    shown = json.loads(call("show", "A", "--json", "--trace-db", tmp_path / "runs.db"))
    assert shown["trace"][0]["calls"][0]["tokens"][0]["logprob"] is None


def test_explain_says_why(database: Path) -> None:
    text = call("explain", "01a", "--trace-db", database)
    assert "Confidence 0.93 reaches the 0.9 that this stage asks for (accept)." in text
    assert "\x1b" not in text


def test_explain_prints_its_records(database: Path) -> None:
    explained = json.loads(call("explain", "01a", "--json", "--trace-db", database))
    compared = explained["steps"][-1]["comparison"]
    assert compared == {"measure": "confidence", "value": 0.93, "threshold": 0.9}
    assert explained["run"].startswith("01A")


def test_the_last_run_can_be_named_so_and_its_graph_file_names_the_stages_ahead(
    database: Path, root: Path
) -> None:
    assert "Run 01CCCC" in call("explain", "last", "--trace-db", database)
    graph = root / "graphs" / "support.yaml"
    assert "second" in call("explain", "01A", "--graph", graph, "--trace-db", database)


def test_an_unknown_run_is_answered_with_the_nearest(database: Path) -> None:
    for command in ("show", "explain"):
        with pytest.raises(TraceError, match=r"run '01AAAB' is not in .*runs\.db; nearest: 01AAAA"):
            call(command, "01AAAB", "--trace-db", database)


def test_asking_for_help_loads_no_database_library() -> None:
    code = (
        "import sys, cascade.cli.trace; print([m for m in sys.modules if m in ('sqlalchemy', 'rich.table')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_command_says_the_same_of_trace_db() -> None:
    def help_texts(command: Any) -> list[str]:
        inner = [text for one in getattr(command, "commands", {}).values() for text in help_texts(one)]
        return inner + [param.help for param in command.params if "--trace-db" in param.opts]

    helps = help_texts(get_command(whole))
    assert len(helps) > 15
    assert len(set(helps)) == 1
