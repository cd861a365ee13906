"""Only whole answers are judged: what was cut off goes on, and JSON counts without its Markdown fence."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from policies import policy, reported
from policies import stage as policy_stage
from scripting import checked, scripted
from stagewise import plan, run

from cascade.records import Request, Result, Tool
from cascade.spec.schema import Graph

WORDS = st.lists(st.sampled_from(["the", "refund", "is", "20", "euros."]), min_size=1, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4)


def answered(models: dict[str, Any], stages: list[dict[str, Any]], request: Request, **how: Any) -> Result:
    return run(plan(Graph.model_validate({"name": "g", "models": models, "stages": stages}), **how), request)


@settings(max_examples=50)
@given(WORDS, st.integers(1, 8), st.sampled_from(["escalate", "accept"]), st.booleans())
def test_what_was_cut_off_is_judged_by_the_last_stage_only(
    words: list[str], most: int, on_truncated: str, tuned: bool
) -> None:
    models = {"weak": scripted(" ".join(words), max_tokens=most), "strong": scripted("whole")}
    first = checked("first", "weak", on_truncated=on_truncated)
    how = {}
    if tuned:  # a policy has its own thresholds, and no exception
        how = {"policy": policy(policy_stage("weak", 0.5, score=reported("weak")), policy_stage("strong"))}
    result = answered(models, [first, checked("last", "strong")], Request(text="x"), **how)
    cut = len(words) > most
    refused = cut and (tuned or on_truncated == "escalate")
    assert result.trace[0].decision.rule == (
        "truncated" if refused else "policy_accept" if tuned else "confident"
    )
    assert result.text == ("whole" if refused else " ".join(words[:most]))
    alone = answered(models, [checked("last", "weak")], Request(text="x"))
    assert (alone.rule, alone.text) == ("confident", " ".join(words[:most]))
    assert alone.trace[0].calls[0].truncated is cut
    unchecked = answered(models, [{"name": "only", "ask": ["weak"]}], Request(text="x"))
    assert (unchecked.rule, unchecked.text) == ("unchecked", " ".join(words[:most]))


@settings(max_examples=50)
@given(OBJECTS, st.integers(1, 6), st.booleans())
def test_cut_json_is_accepted_by_no_stage(value: dict[str, Any], most: int, check: bool) -> None:
    """Not even where what there is happens to be JSON."""
    text = f"{json.dumps(value)} and more words"
    stage = checked("only", "m") if check else {"name": "only", "ask": ["m"]}
    cut = len(text.split()) > most
    request = Request(text="x", output_schema={"type": "object"})
    result = answered({"m": scripted(text, max_tokens=most)}, [stage], request)
    assert (result.status, result.rule) == ("abstained", "invalid")
    assert ("cut off" in (result.trace[0].calls[0].invalid or "")) is cut


def test_a_call_of_a_tool_that_was_cut_off_is_accepted_by_no_stage() -> None:
    """Also where a later stage is left, and the stage accepts what is cut off."""
    reply = {"text": "I call it now", "calls": [{"arguments": {"x": 1}}]}
    models = {"m": scripted(reply, max_tokens=2), "n": scripted("no tool")}
    stages = [checked("first", "m", on_truncated="accept"), {"name": "last", "ask": ["n"]}]
    request = Request(text="x", tools=(Tool(name="f", parameters={"type": "object"}),))
    result = answered(models, stages, request)
    assert [step.decision.rule for step in result.trace] == ["invalid", "unchecked"]


@settings(max_examples=50)
@given(
    JSON, st.sampled_from(["```json\n{}\n```", "```\n{}\n```\n", "\n~~~JSON\n{}\n~~~", "```json\n{}", "{}"])
)
def test_json_counts_without_the_fence_around_the_whole(value: Any, fence: str) -> None:
    text = json.dumps(value)
    request = Request(text="x", output_schema={})
    for stage in ({"name": "only", "ask": ["m"]}, checked("only", "m")):
        result = answered({"m": scripted(fence.replace("{}", text))}, [stage], request)
        assert (result.status, (result.text or "").strip()) == ("accepted", text)
    words = answered(
        {"m": scripted(fence.replace("{}", text))}, [{"name": "only", "ask": ["m"]}], Request(text="x")
    )
    assert (words.text or "").strip() == fence.replace("{}", text).strip(), "a free text keeps its fence"


@given(OBJECTS)
def test_words_around_a_fence_are_no_json(value: dict[str, Any]) -> None:
    text = f"Here it is:\n```json\n{json.dumps(value)}\n```"
    request = Request(text="x", output_schema={})
    result = answered({"m": scripted(text)}, [{"name": "only", "ask": ["m"]}], request)
    assert result.rule == "invalid"
