"""Confidence by a function of the user's: of a draft, or of whether two drafts say the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripting import load, scripted, write

from cascade import Cascade
from cascade.confidence.python import PythonConfidence
from cascade.config.load import load_graph
from cascade.errors import ConfigError
from cascade.lab import collect_outcomes
from cascade.models.base import Reply
from cascade.models.function import Caller
from cascade.trace import TraceStore

CODE = """
import asyncio, sys, time

def known(prompt, text): return 0.9 if text in prompt else 0.2
async def slowly(prompt, text):
    await asyncio.sleep(0)
    return known(prompt, text)
def same_number(one, other): return one.split()[0] == other.split()[0]
def number(prompt, text): return 3
def text(prompt, text): return "sure"
def fails(prompt, text): raise KeyError(text)
def leaves(prompt, text): sys.exit(1)
def sleeps(prompt, text): time.sleep(2)
def maybe(one, other): return "yes"
constant = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(CODE, encoding="utf-8")
    return tmp_path


def judged(folder: Path, check: dict[str, Any], replies: Sequence[str], accept: float = 0.5) -> Cascade:
    models = {f"m{index}": scripted(reply) for index, reply in enumerate(replies)}
    models["last"] = scripted("the last word")
    stages = [
        {"name": "first", "ask": list(models)[:-1], "confidence": {"by": "python"} | check, "accept": accept},
        {"name": "second", "ask": ["last"]},
    ]
    return load(folder, models, stages)


@pytest.mark.parametrize("call", ["own.py:known", "own.py:slowly"])
def test_a_function_of_request_and_draft_is_the_confidence(folder: Path, call: str) -> None:
    with judged(folder, {"call": call}, ["blue"]) as cascade:
        sure, unsure = cascade.batch(["is it blue", "is it red"])
    assert (sure.text, sure.rule, sure.confidence) == ("blue", "confident", 0.9)
    assert (unsure.text, unsure.trace[0].decision.rule) == ("the last word", "below_threshold")
    assert unsure.trace[0].estimate is not None
    assert (unsure.trace[0].estimate.by, unsure.trace[0].estimate.score) == ("python", 0.2)


def test_the_best_of_several_drafts_is_chosen(folder: Path) -> None:
    with judged(folder, {"call": "own.py:known"}, ["red", "blue"]) as cascade:
        result = cascade.invoke("is it blue")
    assert (result.text, result.model) == ("blue", "m1")


def test_drafts_are_compared_by_a_function(folder: Path) -> None:
    drafts = ["4 apples", "5 pears", "4 fruits"]
    with judged(folder, {"compare": "own.py:same_number"}, drafts, accept=0.6) as cascade:
        result = cascade.invoke("how many")
    estimate = result.trace[0].estimate
    assert (result.text, result.rule) == ("4 apples", "confident")
    assert estimate is not None
    assert estimate.signals == pytest.approx({"python": 2 / 3, "agreement": 2 / 3, "margin": 1 / 3})


@pytest.mark.parametrize(("check", "reason"), [
    ({"call": "own.py:number"}, "own.py:number returned 3; expected a number from 0 to 1"),
    ({"call": "own.py:text"}, "own.py:text returned 'sure'; expected a number from 0 to 1"),
    ({"call": "own.py:fails"}, "KeyError: 'blue'"),
    ({"call": "own.py:leaves"}, "own.py:leaves raised SystemExit: 1"),
    ({"call": "own.py:sleeps", "timeout": 0.05}, "TimeoutError"),
    ({"compare": "own.py:maybe"}, "own.py:maybe returned 'yes'; expected True or False"),
])  # fmt: skip
def test_a_function_that_fails_fails_closed_and_is_told(folder: Path, check: Any, reason: str) -> None:
    with judged(folder, check, ["blue", "green"], accept=0.6) as cascade:
        result = cascade.invoke("is it blue")
        with TraceStore(cascade.trace_db or "") as store:
            kept = store.get(result.run)
    assert (result.text, kept.trace[0].decision.rule) == ("the last word", "no_estimate")
    assert reason in (kept.trace[0].decision.detail or "")


SAME = {"abc": lambda one, other: one[:1] == other[:1], "none": lambda one, other: False,
        "all": lambda one, other: True}  # fmt: skip


@given(
    st.lists(st.none() | st.sampled_from(["", "a", "ab", "b", "c"]), min_size=1, max_size=6),
    st.sampled_from([*SAME]),
)
async def test_agreement_counts_drafts_that_say_the_same(texts: list[str | None], which: str) -> None:
    check = PythonConfidence(by="python", compare="m:f")
    check._caller = Caller(SAME[which], "m:f")
    measured = await check.judge("x", [None if text is None else Reply(text) for text in texts])
    answered = [text for text in texts if text]
    if len(answered) < 2:
        assert measured == []
        return
    [(chosen, signals)] = measured
    first = texts[chosen] or ""
    agreeing = sum(text == first if which == "none" else SAME[which](first, text) for text in answered)
    expected = 1 if which == "none" else agreeing
    assert signals["python"] == pytest.approx(expected / len(texts))
    assert 0.0 < signals["python"] <= 1.0


@pytest.mark.parametrize(("check", "reason"), [
    ({"call": "own.py:nothing"}, r"stages\.0\.confidence\.call: own\.py defines no 'nothing'"),
    ({"compare": "no.py:f"}, r"stages\.0\.confidence\.compare: Python file 'no\.py' does not exist"),
    ({}, "give one of 'call' and 'compare'"),
    ({"call": "own.py:known", "compare": "own.py:maybe"}, "give one of 'call' and 'compare'"),
    ({"compare": "own.py:maybe"}, "'python' of a single draft says nothing"),
])  # fmt: skip
def test_check_refuses_what_cannot_judge(folder: Path, check: Any, reason: str) -> None:
    stages = [{"name": "s", "ask": ["m"], "confidence": {"by": "python"} | check, "accept": 0.6}]
    with pytest.raises(ConfigError, match=reason):
        load_graph(write(folder, {"m": scripted("x")}, stages))


def test_what_is_no_function_is_refused_when_the_graph_is_loaded(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"own\.py:constant is a int, no function"):
        judged(folder, {"call": "own.py:constant"}, ["x"])


def test_outcome_tables_hold_it(folder: Path) -> None:
    stages = [
        {"name": "s", "ask": ["m"], "confidence": {"by": "python", "call": "own.py:known"}, "accept": 0.6}
    ]
    path = write(folder, {"m": scripted("blue")}, stages)
    (folder / "rows.jsonl").write_text('{"id": "1", "text": "blue?", "label": "blue"}\n', encoding="utf-8")
    table = collect_outcomes(path, folder / "rows.jsonl", folder / "out.jsonl")
    assert list(table.models["m"].confidence) == [0.9]
