"""The Python interface as an embedding program meets it: its types, misuse, sharing, and cancelled runs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gguf_maker import make_gguf
from pydantic import ValidationError
from scripting import checked, load, scripted, write

import cascade
from cascade import Cascade, CascadeError, ConfigError, Request, RequestError, Result, Step
from cascade.trace import TraceStore

OUTSIDE = """
import asyncio
from typing import assert_type

from cascade import Cascade, CascadeError, Decision, RequestError, Result, Step, TextPiece


async def main() -> None:
    async with Cascade.load("graph.yaml", trace_db="traces.db") as loaded:
        assert_type(loaded, Cascade)
        result = await loaded.ainvoke("hello", local_only=True, metadata={"user": 7})
        assert_type(result, Result)
        assert_type(result.confidence, float | None)
        assert_type(result.trace, tuple[Step, ...])
        assert_type(result.trace[0].decision, Decision)
        assert_type(await loaded.abatch(["a", "b"]), list[Result])
        async for event in loaded.astream("hello"):
            assert_type(event, Step | TextPiece | Result)
    with Cascade.load("graph.yaml") as again:
        assert_type(again.invoke("hello"), Result)
        assert_type(again.batch(["hello"]), list[Result])
    try:
        pass
    except RequestError as error:
        assert_type(error, RequestError)
    assert issubclass(RequestError, CascadeError)


asyncio.run(main())
"""


@pytest.mark.slow
def test_the_public_names_are_typed_for_other_programs(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text(OUTSIDE)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "outside.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout


def test_every_public_name_says_what_it_is() -> None:
    for name in cascade.__all__:
        thing = getattr(cascade, name)
        assert name == "__version__" or (thing.__doc__ and thing.__doc__.strip())
    for name, method in vars(Cascade).items():
        assert name.startswith("_") or name == "Config" or getattr(method, "__doc__", None), name


def test_a_closed_cascade_keeps_no_run_and_says_so(tmp_path: Path) -> None:
    closed = load(tmp_path, {"m": scripted("yes")}, [checked("first", "m")])
    closed.close()
    closed.close()
    with pytest.raises(CascadeError, match="is closed"):
        closed.invoke("hello")
    closed.close()


async def test_two_cascades_share_one_file_of_weights_and_outlive_each_other(tmp_path: Path) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"colours": ["red", "green"]})
    model = {"kind": "llamacpp", "path": "expert.gguf", "task": "colours"}
    path = write(tmp_path, {"m": model}, [checked("first", "m", accept=0.51, by="labels")])
    one, two = Cascade.load(path), Cascade.load(path)
    first = await one.ainvoke("hello")
    assert (await two.ainvoke("hello")).trace[0].calls[0].labels == first.trace[0].calls[0].labels
    await one.aclose()
    assert (await two.ainvoke("hello")).trace[0].calls[0].error is None
    await two.aclose()


def test_many_threads_use_one_cascade(tmp_path: Path) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"colours": ["red", "green"]})
    model = {"kind": "llamacpp", "path": "expert.gguf", "task": "colours"}
    with (
        load(tmp_path, {"m": model}, [checked("first", "m", accept=0.51, by="labels")]) as shared,
        ThreadPoolExecutor(8) as pool,
    ):
        results = list(pool.map(shared.invoke, [f"hello {i % 5}" for i in range(60)]))
    assert len({result.run for result in results}) == 60
    labels = {result.request.text: result.trace[0].calls[0].labels for result in results}
    for result in results:  # company changes the last digits
        assert result.trace[0].calls[0].labels == pytest.approx(labels[result.request.text], abs=1e-3)


async def test_cancelled_runs_neither_wedge_the_engine_nor_leak(tmp_path: Path) -> None:
    make_gguf(tmp_path / "endless.gguf", says="on and", ends=False, n_ctx=4096)
    model = {"kind": "llamacpp", "path": "endless.gguf", "max_tokens": 3000}
    short = {"kind": "llamacpp", "path": "endless.gguf", "max_tokens": 4}
    async with load(tmp_path, {"m": model}, [checked("first", "m", accept=0.1)]) as slow:
        for _ in range(5):
            task = asyncio.create_task(slow.ainvoke("hello"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        threads = threading.active_count()
        async with load(tmp_path, {"m": short}, [checked("first", "m", accept=0.1)]) as after:
            result = await asyncio.wait_for(after.ainvoke("hello"), 30)
        assert result.trace[0].calls[0].error is None
        assert threading.active_count() <= threads + 1


def test_a_file_without_texts_holds_no_text_anywhere(tmp_path: Path) -> None:
    secret = "PELICAN4711"
    models = {"m": scripted(f"the answer is {secret}", confidence=0.3, labels=None)}
    stages = [checked("first", "m", accept=0.8)]
    with load(tmp_path, models, stages, trace={"store_text": False}) as quiet:
        result = quiet.invoke(f"my word is {secret}", metadata={"note": f"also {secret}"})
        assert secret in (result.draft or "")
        files = list(tmp_path.glob("traces.db*"))
        assert any(file.name.endswith("-wal") for file in files)
        assert not [file.name for file in files if secret.encode() in file.read_bytes()]
    assert not [f.name for f in tmp_path.glob("traces.db*") if secret.encode() in f.read_bytes()]
    with TraceStore(str(tmp_path / "traces.db"), create=False) as store:
        assert store.get(result.run).rule == "below_threshold"


def test_a_wrong_file_is_an_error_of_cascade_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text("name: x\nmodels: {m: {kind: scripted}}\nstages: [{name: a, ask: [n], acept: 1}]\n")
    with pytest.raises(ConfigError) as error:
        Cascade.load(path)
    assert error.value.problems
    assert all(problem.startswith(f"{path}:3:") for problem in error.value.problems)


async def test_a_run_does_not_read_its_steps_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"small": scripted("no", confidence=0.3), "large": scripted("yes")}
    stages = [checked("first", "small"), {"name": "last", "ask": ["large"]}]
    async with load(tmp_path, models, stages) as cascade:
        monkeypatch.setattr(Step, "model_validate", None)
        monkeypatch.setattr(Request, "model_validate", None)
        *steps, result = [event async for event in cascade.astream_request(Request(text="hello"))]
        assert isinstance(result, Result)
        assert [step for step in steps if isinstance(step, Step)] == list(result.trace)
        assert [step.stage for step in result.trace] == ["first", "last"]


async def test_the_compiled_graph_reads_and_checks_its_state(tmp_path: Path) -> None:
    async with load(tmp_path, {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}]) as cascade:
        state = await cascade.graph.ainvoke({"request": {"text": "hello"}, "trace": []})
        assert Step.model_validate(state["trace"][0]).decision.rule == "unchecked"
        with pytest.raises(RequestError, match="text is empty"):
            await cascade.graph.ainvoke({"request": {"text": " "}})
        with pytest.raises(ValidationError, match="txt"):
            await cascade.graph.ainvoke({"request": {"txt": "hello"}})
