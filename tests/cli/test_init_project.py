"""`cascade init … DIR`: a project that runs, or nothing at all."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cascade.cli.main import app
from cascade.config.load import load_graph
from cascade.errors import ConfigError, RequestError

TOPICS = {
    "card": (
        "my card is {} lost",
        "block the {} card",
        "someone stole my {} card",
        "card {} gone, freeze it",
    ),
    "parcel": (
        "where is my {} parcel",
        "track the {} order",
        "the {} delivery is late",
        "parcel {} never came",
    ),
    "refund": ("I want my {} money back", "refund the {} payment", "return {} and refund me", "pay {} back"),
}
WORDS = ("blue", "red", "big", "small", "new", "old", "first", "second", "other", "best", "worst", "north")


def init(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, arguments)], catch_exceptions=False)


def tickets(path: Path) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for label, texts in TOPICS.items():
            table.writerows([text.format(word), label] for word in WORDS for text in texts)
    return path


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return kept | {"PATH": path, "CASCADE_TRACE_DB": f"sqlite:///{folder}/traces.db"}


def test_a_project_around_a_shipped_graph(tmp_path: Path) -> None:
    done = init("support", tmp_path / "desk")
    assert done.exit_code == 0
    files = {
        path.relative_to(tmp_path / "desk").as_posix()
        for path in (tmp_path / "desk").rglob("*")
        if path.is_file()
    }
    assert {"README.md", "evaluate.sh", "service.py", "graphs/support.yaml"} <= files
    assert load_graph(tmp_path / "desk/graphs/support.yaml").graph.name == "support"
    assert os.access(tmp_path / "desk/evaluate.sh", os.X_OK)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "set an alarm for six", "label": "alarm"}\n')
    command = [str(tmp_path / "desk/evaluate.sh"), str(rows)]
    ran = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "alarm" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["support", "{}/full"], "not empty"),
        (["support", "{}/file"], "not empty"),
        (["support", "{}/file/inside"], "can be written"),
        (["nope", "{}/new"], "unknown graph"),
        (["support", "{}/new", "--into", "x"], "exclude each other"),
        (["--data", "{}/none.csv"], "one new folder"),
        (["--data", "{}/none.csv", "{}/new"], "none.csv"),
        (["support", "--label", "x"], "--data"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((RequestError, ConfigError)) as caught:
        init(*(each.format(tmp_path) for each in arguments))
    assert expected in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full/mine").read_text() == "mine"


def test_rows_that_teach_nothing_leave_no_folder(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("text,label\n" + "".join(f"text {n} here,same\n" for n in range(30)))
    with pytest.raises(RequestError):
        init("--data", tmp_path / "one.csv", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    done = init(
        "--data", tickets(folder / "tickets.csv"), folder / "desk", "--max-risk", "0.2", "--size", "head"
    )
    assert done.exit_code == 0, done.output
    assert "promise" in done.output
    return folder / "desk"


@pytest.mark.slow
def test_a_project_of_ones_own_rows_tells_what_was_measured(desk: Path) -> None:
    card = json.loads((desk / "experts/tickets.json").read_text())
    readme = (desk / "README.md").read_text()
    held = [json.loads(line) for line in (desk / "data/test.jsonl").read_text().splitlines()]
    train = [json.loads(line) for line in (desk / "data/train.jsonl").read_text().splitlines()]
    assert len(held) + len(train) == len(WORDS) * 12
    assert not {row["text"] for row in held} & {row["text"] for row in train}
    assert f"{card['data']['train']} rows of tickets.csv" in readme
    assert ("certified" in readme) == (card["promise"]["certificate"] is not None)
    assert load_graph(desk / "graphs/tickets.yaml").graph.name == "tickets"


@pytest.mark.slow
def test_the_evaluation_of_the_project_runs(desk: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [str(desk / "evaluate.sh")], env=environment(tmp_path), capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    assert "right" in ran.stdout


@pytest.mark.slow
def test_the_service_of_the_project_answers_over_http(desk: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(desk / "service.py"), str(port)]
    with subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.DEVNULL) as server:
        try:
            answer = asked(port, "block the purple card")
        finally:
            server.terminate()
    assert answer["choices"][0]["message"]["content"] == "card"
    assert answer["cascade"]["status"] == "accepted"


def asked(port: int, text: str) -> dict[str, dict[str, str]]:
    body = json.dumps({"model": "tickets", "messages": [{"role": "user", "content": text}]}).encode()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    for _ in range(300):
        try:
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                found: dict[str, dict[str, str]] = json.load(response)
                return found
        except ConnectionError:
            time.sleep(0.2)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.2)
    raise AssertionError("the service did not start")
