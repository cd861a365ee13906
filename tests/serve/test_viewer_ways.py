"""Pages of real runs that went unusual ways: by a policy, cancelled, waiting, through another graph."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from policies import policy as hand_made
from policies import stage as policy_stage
from scripting import checked, scripted, write

from cascade import Cascade
from cascade.config.draw import mermaid
from cascade.config.load import load_graph
from cascade.policy.artifact import write_policy
from cascade.policy.calibrate import Curve
from cascade.serve.app import create_app
from cascade.trace import RunFilter, TraceStore

HERE = "http://127.0.0.1:8765"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        yield store


def shown(store: TraceStore, path: str, *graphs: Path) -> str:
    """The text of a page, asked for with these graph files."""
    app = create_app(store, [load_graph(graph) for graph in graphs])
    with TestClient(app, base_url=HERE) as client:
        answer = client.get(path)
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", answer.text).split())


def by_policy(folder: Path) -> Path:
    half = Curve(method="isotonic", x=(0.0, 1.0), y=(0.05, 0.55))
    stages_of_it = (policy_stage("small", 0.8, confidence=half), policy_stage("large"))
    write_policy(hand_made(*stages_of_it), folder / "policy.json")
    models = {"small": scripted("no", confidence=0.4), "large": scripted("yes")}
    stages = [{"name": "first", "ask": ["small"], "confidence": {"by": "logprob"}}]
    return write(folder, models, [*stages, {"name": "last", "ask": ["large"]}], policy="policy.json")


def test_a_run_by_a_policy_is_drawn_in_its_graph(tmp_path: Path, store: TraceStore) -> None:
    graph = by_policy(tmp_path)
    with Cascade.load(graph) as cascade:
        result = cascade.invoke("hello")
    estimate, run = result.trace[0].estimate, result.run
    assert estimate is not None
    assert estimate.confidence == pytest.approx(0.25)  # the policy's calibration halves and shifts the score
    for files in ((graph,), ()):
        text = shown(store, f"/runs/{run}", *files)
        assert "policy below" in text
        assert "0.4 &lt; 0.8" in text
        assert "Score 0.4, accepted from 0.8" in text
        assert ("answer by policy" in text) == bool(files)


def test_a_graph_with_a_policy_is_drawn(tmp_path: Path) -> None:
    drawn = mermaid(load_graph(by_policy(tmp_path)).graph)
    assert drawn.count('==>|"by policy"|') == 2
    assert '-->|"otherwise"|' in drawn


async def cancelled(graph: Path) -> None:
    async with Cascade.load(graph) as cascade:
        at_work = asyncio.Event()

        async def follow() -> None:
            async for _ in cascade.astream("hello"):
                at_work.set()  # the first stage has decided, and the second is asked next

        task = asyncio.create_task(follow())
        await asyncio.wait_for(at_work.wait(), 30)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_cancelled_run_ends_where_it_was_cancelled(tmp_path: Path, store: TraceStore) -> None:
    models = {"small": scripted("no", confidence=0.1), "slow": scripted("late", delay=600)}
    graph = write(tmp_path, models, [checked("first", "small"), {"name": "last", "ask": ["slow"]}])
    asyncio.run(cancelled(graph))
    (row,) = store.search(RunFilter(status="cancelled"))
    text = shown(store, f"/runs/{row.run}", graph)
    assert "abstain" not in text.partition("Why")[0]
    assert "no (draft)" in shown(store, "/")


def test_a_run_that_waits_says_so_in_the_list(tmp_path: Path, store: TraceStore) -> None:
    models = {"person": {"kind": "human", "tier": "human"}}
    with Cascade.load(write(tmp_path, models, [{"name": "only", "ask": ["person"]}])) as cascade:
        assert cascade.invoke("may I?").status == "waiting"
        assert "may I? asks a person: may I?" in shown(store, "/")


def test_calls_of_another_graph_link_to_its_run_also_where_they_failed(
    tmp_path: Path, store: TraceStore
) -> None:
    for name, model in (("unsure", scripted("hm", confidence=0.1)), ("sure", scripted("yes"))):
        (tmp_path / name).mkdir()
        write(tmp_path / name, {"m": model}, [checked("only", "m")])
    models = {name: {"kind": "cascade", "path": f"{name}/graph.yaml"} for name in ("unsure", "sure")}
    stages = [{"name": name, "ask": [name]} for name in models]
    with Cascade.load(write(tmp_path, models, stages)) as cascade:
        result = cascade.invoke("shall we?")
    failed, good = (step.calls[0] for step in result.trace)
    assert failed.error is not None
    assert store.get(failed.meta["run"]).status == "abstained"
    app = create_app(store)
    with TestClient(app, base_url=HERE) as client:
        page = client.get(f"/runs/{result.run}").text
        for call in (failed, good):
            assert f'<a href="/runs/{call.meta["run"]}">its own run</a>' in page
            assert client.get(f"/runs/{call.meta['run']}").status_code == 200
