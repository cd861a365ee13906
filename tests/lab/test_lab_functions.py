"""`cascade.lab` from a program: the snippets of the pages run, and the functions do what the commands do."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripting import REMOTE, checked, scripted, write

from cascade import Cascade, ConfigError, RequestError, lab
from cascade.policy.artifact import read_policy
from cascade.policy.calibrate import read_calibration
from cascade.trace import TraceStore, default_url

ROOT = Path(__file__).parents[2]
PAGES = ("evaluation", "graph", "replay", "tuning")
ANSWERS = [["yes"] * 3, ["yes", "yes", "no"], ["yes", "no", "perhaps"]]  # agreement 1, 2/3, 1/3


def snippets() -> Iterator[tuple[str, str]]:
    """Yield (page, Python block) of each block that imports from `cascade.lab`."""
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if "from cascade.lab import" in block:
                yield page, block


SNIPPETS = list(snippets())


def labelled(count: int) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """Return three drafts per question, and labelled rows; answers that agree are right more often."""
    chance = random.Random(0)
    replies, rows = {}, []
    for number in range(count):
        text, drafts = f"question {number}", chance.choices(ANSWERS, [6, 3, 1])[0]
        right = chance.random() < [0, 0.1, 0.7, 0.99][drafts.count("yes")]
        replies[text] = drafts
        label = "yes" if right else "no"
        rows.append({"id": str(number), "text": text, "label": label, "topic": f"topic {number % 2}"})
    return replies, rows


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the snippets name: a graph, its runs, rows, tables and a policy."""
    monkeypatch.chdir(tmp_path)
    replies, rows = labelled(200)
    models = {"small": {"kind": "scripted", "replies": replies}, "large": scripted("yes", **REMOTE)}
    stages = [checked("first", "small", by="agreement", samples=3, accept=0.5), checked("second", "large")]
    write(tmp_path, models, stages, name="support").rename("support.yaml")
    Path("labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, offset in (("train.jsonl", 0), ("test.jsonl", 1)):
        lab.write_outcomes([outcome(row + offset) for row in range(400)], name)
    with Cascade.load("support.yaml") as cascade:
        results = cascade.batch([row["text"] for row in rows[:20]])
    with TraceStore(default_url()) as store:
        store.grade(results[0].run, correct=True)
    return tmp_path


def outcome(row: int) -> dict[str, Any]:
    """A row of a table: a cheap model that is right where it is sure, and a dear one."""
    sure = row % 4 > 0
    small = {"correct": int(sure), "cost_usd": 0.001, "confidence": 0.95 if sure else 0.3}
    large = {"correct": int(row % 50 > 0), "cost_usd": 0.1}
    return {"id": str(row), "prompt": f"question {row % 7}", "topic": f"topic {row % 2}",
            "models": {"small": small, "large": large}}  # fmt: skip


def test_each_function_is_shown_on_a_page() -> None:
    shown = {name for _, block in SNIPPETS for name in re.findall(r"\w+", block)}
    assert {
        "calibrate",
        "collect_outcomes",
        "evaluate",
        "monitor",
        "outcomes_from_traces",
        "replay",
        "tune",
    } <= shown


@pytest.mark.parametrize(
    ("page", "block"), SNIPPETS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(SNIPPETS)]
)
def test_the_snippets_of_the_pages_run(
    page: str, block: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "evaluate(" in block:
        lab.tune("train.jsonl", lab.Goal(kind="max_risk", value=0.05, delta=0.1), out="policy.json")
    exec(compile(block, f"{page}.md", "exec"), {})
    assert capsys.readouterr().out


def test_calibrate_writes_what_it_returns(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    fitted = lab.calibrate(
        "support.yaml", "first", "labelled.jsonl", out="first.json",
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert fitted.calibration == read_calibration("first.json")
    assert seen == [(done, 200) for done in range(1, 201)]
    with pytest.raises(ConfigError, match="unknown stage 'third'; known: first, second"):
        lab.calibrate("support.yaml", "third", "labelled.jsonl", out="first.json")


def test_rows_may_be_given_as_objects(folder: Path) -> None:
    rows = [lab.LabelledRow(str(number), f"question {number}", "yes") for number in range(3)]
    notes: list[str] = []
    table = lab.collect_outcomes("support.yaml", rows[:2], "table.jsonl")
    assert (list(table.ids), set(table.models)) == (["0", "1"], {"small", "large"})
    whole = lab.collect_outcomes("support.yaml", rows, "table.jsonl", on_note=notes.append)
    assert (list(whole.ids), notes) == (["0", "1", "2"], [])
    assert whole.models["large"].quality.tolist() == [1.0, 1.0, 1.0]


def test_it_works_where_an_event_loop_runs_already(folder: Path) -> None:
    async def notebook() -> lab.Outcomes:
        return lab.collect_outcomes("support.yaml", "labelled.jsonl", "table.jsonl")

    assert len(asyncio.run(notebook())) == 200


def test_tune_returns_the_policy_that_it_writes_and_writes_no_refusal(folder: Path) -> None:
    goal = lab.Goal(kind="max_risk", value=0.05, delta=0.1)
    policy = lab.tune("train.jsonl", goal, out="policy.json", graph="support.yaml")
    assert isinstance(policy, lab.Policy)
    assert policy == read_policy("policy.json")
    assert set(policy.setups) == {"small", "large"}
    refused = lab.tune("train.jsonl", goal.model_copy(update={"value": 1e-4}), out="other.json")
    assert isinstance(refused, lab.Refusal)
    assert not Path("other.json").exists()
    with pytest.raises(ConfigError, match="max_risk is a promise; give 'delta'"):
        lab.tune("train.jsonl", lab.Goal(kind="max_risk", value=0.05))


def test_evaluate_reads_files_and_takes_objects_alike(folder: Path) -> None:
    policy = lab.tune("train.jsonl", lab.Goal(kind="lambda", value=1.0), out="policy.json")
    assert isinstance(policy, lab.Policy)
    from_files = lab.evaluate("policy.json", "test.jsonl", resamples=20)
    from_objects = lab.evaluate(policy, lab.read_outcomes("test.jsonl"), resamples=20)
    assert from_files.as_json() == from_objects.as_json()


def test_replay_and_monitor_return_records(folder: Path) -> None:
    report = lab.replay("support.yaml", changes=["first.accept=0.9"])
    assert (report.comparison.runs, report.runs_of) == (20, "support")
    assert report.as_json()["runs"] == 20
    watched = lab.monitor("support.yaml", write_reference="reference.json")
    assert (watched.stages[0].runs, watched.stages[0].reference) == (20, None)
    again = lab.monitor("support.yaml", reference="reference.json")
    assert again.stages[0].reference == pytest.approx(again.stages[0].live)  # the same runs
    assert not again.drifted
    assert lab.reset_thresholds("support.yaml") is False
    with pytest.raises(RequestError, match="'yesterday' is no time"):
        lab.monitor("support.yaml", since="yesterday")


def test_graded_runs_become_a_table(folder: Path) -> None:
    table = lab.outcomes_from_traces("graded.csv")
    assert len(table) == 1
    assert len(lab.read_outcomes("graded.csv")) == 1


def test_importing_the_functions_imports_nothing_heavy_and_unknown_names_are_errors() -> None:
    code = "import sys, cascade.lab\nassert not {'numpy', 'sqlalchemy', 'langgraph'} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match=r"module 'cascade.lab' has no attribute 'tunes'"):
        lab.tunes  # noqa: B018
