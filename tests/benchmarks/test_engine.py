"""The engine's benchmark on real files: its models, its baselines, and the command."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loopback import Answer, Loopback, status

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from engine import MODULES
from engine_sections.asking import close, model, timed
from engine_sections.labels import distribution
from engine_sections.models import TINY, Words, model_file
from engine_sections.reference import reference
from engine_sections.server import stream
from engine_sections.tools import build_tools, find_tools

from cascade.errors import ConfigError

SMALL = replace(TINY, name="small", vocab=1024, layers=1, width=64, ffn=128)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("models"), SMALL)


async def test_a_prompt_has_as_many_tokens_as_words_and_an_answer_its_full_length(small: Path) -> None:
    """The rates count on both; each token also shows as a piece of text, which times it."""
    source = Words(SMALL.vocab)
    asked = model(small, 1, n_ctx=128, max_tokens=20)
    _, reply = await timed(asked, source.text(source.draw(random.Random(0), 50)))
    await close(asked)
    assert (reply.tokens_in, reply.tokens_out) == (50, 20)
    assert all(token.text for token in reply.tokens)


def test_a_model_is_written_once_and_again_when_its_shape_or_the_file_changes(small: Path) -> None:
    """A file that was cut off, or made from another shape, is not measured by accident."""
    written = small.stat().st_mtime_ns
    assert model_file(small.parent, SMALL).stat().st_mtime_ns == written
    whole = small.read_bytes()
    model_file(small.parent, replace(SMALL, seed=1))
    assert small.read_bytes() != whole
    small.write_bytes(whole[:100])
    model_file(small.parent, SMALL)
    assert small.read_bytes() == whole


async def test_the_bare_baseline_scores_labels_like_the_engine(small: Path) -> None:
    """Both sides of the comparison compute the same thing: Q8_0 weights, so to 1e-3."""
    source = Words(SMALL.vocab)
    listed = [[1, 2, 3], [1, 2, 4], [5], [6, 7]]
    prompt = source.draw(random.Random(0), 30)
    named = [source.text(label).strip() for label in listed]
    asked = model(small, 1, n_ctx=128, labels=named)
    _, reply = await timed(asked, source.text(prompt))
    await close(asked)
    async with reference() as other:
        await other.do("open_bare", path=str(small), threads=1, n_ctx=128)
        task = {"prompt": source.tokens(prompt), "labels": [source.tokens(label) for label in listed]}
        found = await other.do("labels", **task)
        naive = await other.do("naive", **task)
    assert reply.labels is not None
    np.testing.assert_allclose(
        [reply.labels[name] for name in named], distribution(found["logprobs"]), atol=1e-3
    )
    assert found["prompt"] > 0 < naive["seconds"]


async def test_the_lock_answers_every_arrival_with_its_tokens(small: Path) -> None:
    """`Llama` behind a lock, asked by several threads, streams each answer in full."""
    source = Words(SMALL.vocab)
    arrivals = [(0.0, source.tokens([1, 2, 3]), 8), (0.0, source.tokens([4, 5]), 5)]
    async with reference() as other:
        await other.do("open_locked", path=str(small), threads=1, n_ctx=128, warm=source.tokens([0]))
        answer = await other.do("mixed", arrivals=arrivals, workers=2)
    assert [len(tokens) for tokens in answer["tokens"]] == [8, 5]


async def test_a_reference_that_fails_is_an_error(small: Path) -> None:
    """No figures are made up when the other process dies."""
    async with reference() as other:
        with pytest.raises(RuntimeError, match="ended during 'open_bare'"):
            await other.do("open_bare", path=str(small) + ".gone", threads=1, n_ctx=128)


async def test_streamed_tokens_are_counted_until_the_server_stops() -> None:
    """One time for each event with text; the closing event is no token."""
    events = [
        {"content": " a", "stop": False},
        {"content": " b", "stop": False},
        {"content": "", "stop": True},
    ]
    chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    with Loopback() as server:
        server.answers = [Answer(200, {"Content-Type": "text/event-stream"}, chunks)]
        times = await stream(int(server.url.rsplit(":", 1)[1].split("/")[0]), [1, 2], 2)
        assert server.requests[0].json["ignore_eos"] is True
    assert times == sorted(times)
    assert len(times) == 2


async def test_a_server_that_refuses_is_an_error() -> None:
    """An overloaded server's answer is not mistaken for a fast one."""
    with Loopback() as server:
        server.answers = [status(503, "loading")]
        with pytest.raises(ConfigError, match="streamed no tokens"):
            await stream(int(server.url.rsplit(":", 1)[1].split("/")[0]), [1, 2], 2)


def test_sources_without_the_programs_say_what_to_do(tmp_path: Path) -> None:
    """A release without tools/ is named, with its version, before anything is compiled."""
    from importlib.metadata import version

    folder = tmp_path / f"llama_cpp_python-{version('llama-cpp-python')}" / "vendor" / "llama.cpp"
    folder.mkdir(parents=True)
    assert find_tools(tmp_path) is None
    with pytest.raises(ConfigError, match=r"no tools/batched-bench.*checkout"):
        build_tools(tmp_path, 1)


@pytest.mark.slow
def test_the_command_measures_every_section_of_a_small_model_without_the_programs(
    root: Path, tmp_path: Path
) -> None:
    """Rows have values or say why not; what needs llama.cpp's programs is skipped, not invented."""
    report = tmp_path / "report.json"
    command = [
        sys.executable, "benchmarks/engine.py", "--quick", "--no-build", "--models", "tiny", "--threads", "1",
        "--work", str(tmp_path), "--json", str(report), "--markdown",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    sections = {row["section"] for row in found["rows"]}
    assert sections == set(MODULES)
    for row in found["rows"]:
        assert row["value"] is not None or row["note"].startswith("skipped: ")
        assert row["value"] is None or "batched-bench" not in row["what"]
        assert row["met"] in (None, True, False)
    assert "| throughput |" in done.stdout
