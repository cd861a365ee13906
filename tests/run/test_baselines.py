"""What a run would have cost at the strongest model alone: live, stored, and on every page."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from scripting import checked, scripted, write
from typer.testing import CliRunner

from cascade import Cascade
from cascade.cli.main import app
from cascade.policy.savings import savings
from cascade.serve.app import create_app
from cascade.trace import RunFilter, TraceStore, export_runs, import_runs, verify

PRICE = {"input": 1.0, "output": 3.0}
WORDS = ("please", "tell", "me", "about", "my", "latest", "invoice", "and", "delivery", "date")
HARD = "hard"


def texts(seed: int, count: int, hard: float) -> list[str]:
    """Requests of 2 to 40 words; the share `hard` of them goes on to the strong model."""
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(2, 40))) for _ in range(count)]
    return [f"{HARD if draw.random() < hard else 'easy'} {index} {line}" for index, line in enumerate(lines)]


def graph_of(folder: Path, asked: list[str], **settings: object) -> Path:
    """A small free model that is unsure of hard texts, then a strong one with answers of 1 to 7 words."""
    answers = {text: " ".join(["word"] * (len(text.split()) % 7 + 1)) for text in asked}
    hard = {text: f"{HARD} to say" for text in asked if text.startswith(HARD)}
    small = {"kind": "python", "call": "small.py:answer", "labels": ["yes", "no"], "tier": "haiku"}
    (folder / "small.py").write_text(
        "def answer(text):\n"
        f"    sure = 0.55 if text.startswith({HARD!r}) else 0.99\n"
        "    return {'yes': sure, 'no': 1 - sure}\n"
    )
    assert set(hard) <= set(answers)
    strong = scripted(replies=answers, confidence=0.95, tier="opus", price=PRICE, local=False)
    stages = [checked("first", "small", accept=0.85, by="labels"), {"name": "last", "ask": ["strong"]}]
    return write(folder, {"small": {**small, "local": True}, "strong": strong}, stages, **settings)


def truth_of(asked: list[str]) -> float:
    words = [len(text.split()) for text in asked]
    return sum(PRICE["input"] * each + PRICE["output"] * (each % 7 + 1) for each in words) / 1e6


@pytest.mark.parametrize("store_text", [True, False])
def test_a_store_in_which_most_asked_the_strong_model_shows_what_they_saved(
    tmp_path: Path, store_text: bool
) -> None:
    asked = texts(5, 60, 0.62)
    path, db = graph_of(tmp_path, asked, trace={"store_text": store_text}), str(tmp_path / "runs.db")
    with Cascade.load(path, trace_db=db) as cascade:
        results = cascade.batch(asked)
    spent = sum(result.cost_usd for result in results)
    with TraceStore(db, create=False) as store:
        figures = store.overview(RunFilter()).figures
        found = savings([run for row in figures if (run := row.priced) is not None])
        assert found is not None
        assert found.low_usd <= truth_of(asked) <= found.high_usd
        assert found.share == pytest.approx(1 - spent / truth_of(asked), abs=0.08)
        assert found.asked == sum(result.model == "strong" for result in results)
        assert found.calls == found.asked
        text = TestClient(create_app(store), base_url="http://127.0.0.1").get("/dashboard").text
    words = re.sub(r"<[^>]+>", "", text)
    assert re.search(r"\d+% less \(\d+% (less|more) to \d+% less\)", words), words
    assert re.search(r"strong alone \$[\d.]+ \(\$[\d.]+ to \$[\d.]+\)", words)
    assert f"estimated by prompt length from {found.calls} recorded calls" in words


def test_a_later_process_estimates_from_the_calls_of_earlier_ones(tmp_path: Path) -> None:
    asked = texts(6, 40, 0.5)
    path, db = graph_of(tmp_path, asked), str(tmp_path / "runs.db")
    easy = next(text for text in asked if not text.startswith(HARD))
    with Cascade.load(path, trace_db=db) as cascade:
        first = cascade.invoke(easy)
        cascade.batch([text for text in asked if text.startswith(HARD)])
    with Cascade.load(path, trace_db=db) as cascade:
        later = cascade.invoke(easy)
        calls = len(cascade.baseline_calls)
    assert first.baseline is not None
    assert later.baseline is not None
    assert (first.baseline.by, later.baseline.by, later.baseline.calls) == ("text", "calls", calls)
    for baseline in (first.baseline, later.baseline):
        assert baseline.low_usd is not None
        assert baseline.high_usd is not None
        assert baseline.low_usd <= truth_of([easy]) <= baseline.high_usd
    with TraceStore(db, create=False) as store:
        assert store.get(later.run).baseline == later.baseline
        page = TestClient(create_app(store), base_url="http://127.0.0.1").get(f"/runs/{later.run}").text
    assert re.search(r"strong alone: \$[\d.]+ \(\$[\d.]+ to \$[\d.]+\)", page)
    told = CliRunner().invoke(app, ["trace", "explain", later.run, "--trace-db", db]).output
    assert re.search(r"would have cost \$[\d.]+\s\(\$[\d.]+ to", told), told
    assert f"{calls} recorded calls" in " ".join(told.split())


def test_a_batch_shows_the_interval_and_what_it_stands_on(tmp_path: Path) -> None:
    asked = texts(7, 30, 0.6)
    path, rows = graph_of(tmp_path, asked), tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(asked)))
    command = ["run", str(path), "--input", str(rows), "--trace-db", str(tmp_path / "runs.db")]
    shown = CliRunner().invoke(app, command).output
    assert re.search(
        r"strong alone: \$\S+ \(\$\S+ to \$\S+\) for the answered requests; they cost \d+% less", shown
    )
    assert "recorded calls (95 % interval)" in shown
    summary = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["summary"]
    saved = summary["savings"]
    assert saved["low_usd"] <= truth_of(asked) <= saved["high_usd"]
    assert summary["baseline_usd"] == saved["cost_usd"]
    assert (saved["runs"], saved["by_text"]) == (30, 0)


def test_how_a_baseline_was_found_survives_export_import_and_verify(tmp_path: Path) -> None:
    asked = texts(8, 20, 0.5)
    db, other = str(tmp_path / "runs.db"), str(tmp_path / "other.db")
    with Cascade.load(graph_of(tmp_path, asked), trace_db=db) as cascade:
        results = cascade.batch(asked)
    export_runs(db, tmp_path / "runs.jsonl", RunFilter())
    assert import_runs(other, tmp_path / "runs.jsonl").runs == 20
    assert import_runs(db, tmp_path / "runs.jsonl").present == 20
    assert verify(other).count == 0
    with TraceStore(other, create=False) as store:
        assert [store.get(result.run).baseline for result in results] == [each.baseline for each in results]
