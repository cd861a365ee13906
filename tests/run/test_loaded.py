"""`Cascade.loaded`: a graph file is read once, and what is shown of it are the thresholds that hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from policies import certificate, policy, stage
from scripting import checked, scripted, write
from starlette.testclient import TestClient
from typer.testing import CliRunner

from cascade import Cascade
from cascade.cli.run import run
from cascade.config import load, load_graph
from cascade.policy.artifact import write_policy
from cascade.policy.tighten import Tightened, state_path, write_state
from cascade.serve.server import create_server
from cascade.trace import TraceStore

MODELS = {"small": scripted("no", confidence=0.9), "large": scripted("yes")}
RAISED = Tightened(
    was=0.8, accept=0.97, alpha=0.1, delta=0.1, bound=0.05, rows=90, errors=1, audited=99, looks=1,
    alarm="01J8", at="2026-11-21T10:00:00Z",
)  # fmt: skip


def drifted(folder: Path) -> Path:
    """A graph whose first stage accepts from 0.8 by its file, and since drift from 0.97."""
    first = checked("first", "small", accept=0.8, on_drift="tighten", audit_rate=0.01)
    path = write(folder, MODELS, [first, {"name": "last", "ask": ["large"]}])
    write_state(state_path(path), "test", {"first": RAISED})
    return path


def text(html: str) -> str:
    return re.sub(r"<[^>]*>", " ", html)


def test_a_loaded_graph_is_used_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, {"small": MODELS["small"]}, [checked("only", "small")])
    loaded = load_graph(path)
    path.unlink()
    with Cascade.load(loaded) as cascade:
        assert cascade.loaded.path == path
        assert cascade.version == loaded.version == f"test@{loaded.digest}"
        assert cascade.config is cascade.loaded.graph
        assert cascade.invoke("hello").text == "no"


def test_the_loaded_graph_has_the_thresholds_that_hold_after_drift(tmp_path: Path) -> None:
    with Cascade.load(drifted(tmp_path)) as cascade:
        assert cascade.loaded.graph.stages[0].accept == 0.97
        assert cascade.invoke("hello").trace[0].decision.threshold == 0.97


def test_a_policy_that_was_tightened_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    write_policy(
        policy(stage("small", 0.8), stage("large"), certificates=[certificate("small", 0.1)]),
        tmp_path / "policy.json",
    )
    first = {"name": "first", "ask": ["small"], "confidence": {"by": "logprob"}}
    first |= {"on_drift": "tighten", "audit_rate": 0.01}
    path = write(tmp_path, MODELS, [first, {"name": "last", "ask": ["large"]}], policy="policy.json")
    write_state(state_path(path), "test", {"first": RAISED})
    with Cascade.load(path) as cascade:
        assert cascade.loaded.policy is not None
        assert cascade.loaded.policy.stages[0].accept == 0.97


def test_the_viewer_shows_the_thresholds_that_hold(tmp_path: Path) -> None:
    database = str(tmp_path / "traces.db")
    with (
        Cascade.load(drifted(tmp_path), trace_db=database) as cascade,
        TraceStore(database, create=False) as store,
    ):
        result = cascade.invoke("hello")
        app = create_server({"test": cascade}, store)
        with TestClient(app, base_url="http://127.0.0.1:8000") as client:
            page = text(client.get(f"/runs/{result.run}").text)
    assert "answer ≥ 0.97" in page
    assert "≥ 0.8" not in page


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The graph files that were read, in order."""
    read: Callable[[Path], bytes] = load.read_bytes
    files: list[Path] = []

    def counted(path: Path) -> bytes:
        files.append(path)
        return read(path)

    monkeypatch.setattr(load, "read_bytes", counted)
    return files


def test_watching_a_run_reads_its_graph_file_once(tmp_path: Path, files_read: list[Path]) -> None:
    path = drifted(tmp_path)
    app = typer.Typer()
    app.command()(run)
    done = CliRunner().invoke(app, [str(path), "hello", "--watch", "--trace-db", str(tmp_path / "t.db")])
    assert done.exit_code == 0, done.output
    assert files_read == [path]
    assert "0.9 < 0.97" in done.stderr
