"""Shadows and canaries: who is asked, what it costs, and that the request never notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from scripting import REMOTE, checked, load, scripted

from cascade import Cascade, Result, TextPiece
from cascade.explain import explain, render_text
from cascade.policy.decide import lot
from cascade.records import Trial, new_run_id
from cascade.trace import BudgetBook, TraceStore, default_url

ALL = {"model": "new", "share": 1.0}
PRICED = {"price": {"input": 1.0, "output": 2.0}}
LAST = {"name": "last", "ask": ["large"]}


def models(**new: Any) -> dict[str, Any]:
    return {"small": scripted("old answer"), "new": scripted("new answer", **new), "large": scripted("large")}


def trials(result: Result, stage: int = 0) -> list[Trial]:
    return [fact for fact in result.trace[stage].decision.facts if isinstance(fact, Trial)]


def roles(result: Result, stage: int = 0) -> list[tuple[str, str]]:
    return [(call.model, call.role) for call in result.trace[stage].calls]


async def test_a_shadow_is_traced_priced_and_never_used(tmp_path: Path) -> None:
    stages = [checked("first", "small", shadow=ALL), LAST]
    async with load(tmp_path, models(**PRICED), stages) as cascade:
        result = await cascade.ainvoke("hello there")
    assert (result.text, result.model) == ("old answer", "small")
    assert roles(result) == [("small", "answer"), ("new", "shadow")]
    shadow = result.trace[0].calls[1]
    assert (shadow.text, shadow.cost_usd) == ("new answer", pytest.approx(6e-6))
    assert result.cost_usd == shadow.cost_usd
    assert trials(result) == [Trial(part="shadow", model="new", share=1.0)]
    with TraceStore(default_url(), create=False) as store:
        assert store.get(result.run) == result
    said = render_text(explain(result, cascade.config), width=200)
    assert "The shadow, " in said
    assert "its answer is not used" in said


async def test_the_share_is_drawn_by_the_run_id_and_audits_come_first(tmp_path: Path) -> None:
    stages = [checked("first", "small", shadow={"model": "new", "share": 0.5}, audit_rate=0.3), LAST]
    async with load(tmp_path, models(), stages) as cascade:
        results = await cascade.abatch(["hello"] * 60)
    drawn = [len(step.calls) == 2 for step in (result.trace[0] for result in results)]
    assert drawn == [lot(result.run, "first") < 0.5 for result in results]
    assert 0 < sum(drawn) < 60
    audits = [index for index, each in enumerate(results) if each.trace[0].decision.rule == "audit"]
    assert audits
    assert all(drawn[index] for index in audits)


async def test_a_slow_shadow_delays_neither_the_next_stage_nor_the_text_that_streams(tmp_path: Path) -> None:
    """The shadow waits until the text has been delivered, so the order of events says who waited."""
    stages = [checked("first", "small", accept=1.0, shadow=ALL), LAST]
    unsure = {**models(delay=0.3), "small": scripted("old answer", confidence=0.5)}
    async with load(tmp_path, unsure, stages) as cascade:
        events = [event async for event in cascade.astream("hello")]
    result = events[-1]
    assert isinstance(result, Result)
    assert [event.text for event in events if isinstance(event, TextPiece)] == ["large"]
    shadow, large = result.trace[0].calls[1], result.trace[1].calls[0]
    assert large.started < shadow.started + shadow.seconds
    assert result.trace[0].seconds < shadow.seconds
    assert roles(result) == [("small", "answer"), ("new", "shadow")]


@pytest.mark.parametrize("new", [{"fail": "broken"}, {"delay": 5.0}])
async def test_a_shadow_that_fails_or_takes_too_long_is_a_failed_call(tmp_path: Path, new: dict) -> None:
    stages = [checked("first", "small", shadow={**ALL, "seconds": 0.05}), LAST]
    async with load(tmp_path, models(**new), stages) as cascade:
        result = await cascade.ainvoke("hello")
    assert (result.status, result.text) == ("accepted", "old answer")
    assert result.trace[0].calls[1].error is not None
    assert result.trace[0].decision.rule == "confident"


async def test_a_private_request_is_never_shadowed_to_a_remote_model(tmp_path: Path) -> None:
    stages = [checked("first", "small", shadow=ALL, canary=None), LAST]
    async with load(tmp_path, models(**REMOTE), stages) as cascade:
        private = await cascade.ainvoke("hello", local_only=True)
        other = await cascade.ainvoke("hello")
    assert roles(private) == [("small", "answer")]
    assert [trial.refused for trial in trials(private)] == ["local_only"]
    assert "left out by rule local_only" in render_text(explain(private))
    assert roles(other)[1:] == [("new", "shadow")]


async def test_a_private_request_leaves_a_remote_canary_to_the_stage(tmp_path: Path) -> None:
    stages = [checked("first", "small", canary=ALL), LAST]
    async with load(tmp_path, models(**REMOTE), stages) as cascade:
        private = await cascade.ainvoke("hello", local_only=True)
        other = await cascade.ainvoke("hello")
    assert (private.text, private.model) == ("old answer", "small")
    assert [trial.refused for trial in trials(private)] == ["local_only"]
    assert (other.text, other.model) == ("new answer", "new")


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"calls": 3}, True),  # the stage, the next one and the shadow
        ({"cost_usd": 0.000262}, True),  # 65 words at $2 for the shadow and the last stage, and their prompts
        ({"cost_usd": 0.000261}, False),
        ({"cost_usd": 0.000131}, False),
    ],
)
async def test_a_shadow_is_left_out_where_the_whole_way_and_it_exceed_the_limits(
    tmp_path: Path, limits: dict, asked: bool
) -> None:
    """The stage is unsure, so the last stage must still have its worst case."""
    stages = [checked("first", "small", accept=1.0, shadow=ALL), LAST]
    priced = {**models(max_tokens=65, **PRICED), "small": scripted("old answer", confidence=0.5)}
    priced["large"] = scripted("large", max_tokens=65, **PRICED)
    async with load(tmp_path, priced, stages, limits=limits) as cascade:
        result = await cascade.ainvoke("hello")
    assert (result.status, result.text) == ("accepted", "large")
    assert [trial.refused for trial in trials(result)] == [None if asked else "over_cost"]
    assert (("new", "shadow") in roles(result)) == asked


async def test_a_day_that_cannot_pay_the_shadow_still_answers(tmp_path: Path) -> None:
    stages = [checked("first", "small", shadow=ALL), LAST]
    budgets = {"day_usd": 0.0001}
    async with load(tmp_path, models(max_tokens=64, **PRICED), stages, budgets=budgets) as cascade:
        result = await cascade.ainvoke("hello")
    assert (result.status, result.cost_usd) == ("accepted", 0.0)
    assert [trial.refused for trial in trials(result)] == ["over_budget"]


async def test_what_a_shadow_costs_is_settled_with_the_day(tmp_path: Path) -> None:
    stages = [checked("first", "small", shadow=ALL), LAST]
    async with load(tmp_path, models(**PRICED), stages, budgets={"day_usd": 0.01}) as cascade:
        result = await cascade.ainvoke("hello there")
    book = BudgetBook(default_url())
    (day,) = book.balances()
    book.close()
    assert result.cost_usd > 0
    assert (day.spent, day.held) == (pytest.approx(result.cost_usd), 0.0)


async def test_a_cancelled_run_records_its_shadow(tmp_path: Path) -> None:
    stages = [checked("first", "small", accept=1.0, shadow=ALL), LAST]
    slow = {**models(delay=30.0, timeout=60, **PRICED), "small": scripted("old", confidence=0.5)}
    slow["large"] = scripted("large", delay=30.0)
    async with load(tmp_path, slow, stages) as cascade:
        task = asyncio.create_task(cascade.ainvoke("hello"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with TraceStore(default_url(), create=False) as store:
        (run,) = store.runs()
        result = store.get(run.run)
    assert result.status == "cancelled"
    assert roles(result) == [("small", "answer"), ("new", "shadow")]
    assert "cancelled" in (result.trace[0].calls[1].error or "")
    assert result.cost_usd > 0  # its worst case: nobody knows what was billed


async def test_a_graph_that_may_wait_for_a_person_keeps_its_shadows(tmp_path: Path) -> None:
    people = {**models(delay=0.05), "small": scripted("old", confidence=0.5), "me": {"kind": "human"}}
    del people["large"]
    stages = [checked("first", "small", accept=1.0, shadow=ALL), {"name": "last", "ask": ["me"]}]
    async with load(tmp_path, people, stages) as cascade:
        waiting = await cascade.ainvoke("hello")
        done = await cascade.aresume(waiting.run, "my answer")
    assert done.text == "my answer"
    assert roles(waiting) == roles(done) == [("small", "answer"), ("new", "shadow")]


async def test_a_canary_answers_its_share(tmp_path: Path) -> None:
    stages = [checked("first", "small", canary={"model": "new", "share": 0.4}), LAST]
    async with load(tmp_path, models(), stages) as cascade:
        results = await cascade.abatch(["hello"] * 60)
    drawn = [lot(result.run, "first/canary") < 0.4 for result in results]
    assert 0 < sum(drawn) < 60
    assert [result.model for result in results] == ["new" if each else "small" for each in drawn]
    shown = next(result for result, each in zip(results, drawn, strict=True) if each)
    assert trials(shown) == [Trial(part="canary", model="new", share=0.4)]
    assert "drawn for the canary: new answers 0.4" in render_text(explain(shown), width=200)


async def test_a_canary_has_its_own_threshold_and_no_shadow(tmp_path: Path) -> None:
    stages = [checked("first", "small", canary={**ALL, "accept": 0.99}, shadow={**ALL, "model": "old"}), LAST]
    asked = {**models(confidence=0.9), "old": scripted("old")}
    async with load(tmp_path, asked, stages) as cascade:
        result = await cascade.ainvoke("hello")
    step = result.trace[0]
    assert (step.decision.rule, step.decision.threshold) == ("below_threshold", 0.99)
    assert roles(result) == [("new", "answer")]


async def test_without_a_run_id_nothing_is_drawn(tmp_path: Path) -> None:
    async with load(tmp_path, models(), [checked("first", "small", shadow=ALL, canary=ALL), LAST]) as cascade:
        state = await cascade.graph.ainvoke({"request": {"text": "hello"}})
    assert [call["model"] for call in state["trace"][0]["calls"]] == ["small"]


async def test_a_shadow_of_a_run_made_through_langgraph_is_in_its_state(tmp_path: Path) -> None:
    async with load(tmp_path, models(delay=0.05), [checked("first", "small", shadow=ALL), LAST]) as cascade:
        config: Any = {"configurable": {"thread_id": new_run_id()}}
        state = await cascade.graph.ainvoke({"request": {"text": "hello"}}, config)
    assert [call["role"] for call in state["trace"][0]["calls"]] == ["answer", "shadow"]


async def test_no_text_of_a_shadow_is_stored_where_none_is(tmp_path: Path) -> None:
    stages = [checked("first", "small", shadow=ALL), LAST]
    async with load(tmp_path, models(), stages, trace={"store_text": False}) as cascade:
        result = await cascade.ainvoke("hello")
    with TraceStore(default_url(), create=False) as store:
        assert "new answer" not in store.get(result.run).model_dump_json()


async def test_both_of_a_hedged_pair_have_their_shadows(tmp_path: Path) -> None:
    slow = {**models(), "small": scripted("old answer", delay=0.3)}
    stages = [checked("first", "small", hedge=0.05, shadow=ALL), {**LAST, "shadow": ALL}]
    async with load(tmp_path, slow, stages) as cascade:
        result = await cascade.ainvoke("hello")
    assert result.text == "large"
    assert [[call.role for call in step.calls] for step in result.trace] == [["answer", "shadow"]] * 2


def test_a_nested_graph_is_priced_with_its_shadow(tmp_path: Path) -> None:
    from cascade.models.base import Prompt
    from cascade.records import Request
    from cascade.run._nested import GraphModel
    from cascade.spec.registry import MODELS

    with load(tmp_path, models(**PRICED), [checked("first", "small", shadow=ALL), LAST]) as inner:
        config = inner.config.models["small"]
        worst = GraphModel("inner", config, inner).worst_case(Prompt(Request(text="hello")))[1]
    assert MODELS is not None
    assert worst == round((1 + 64 * 2) * 1e-6 * 1e12)


def test_a_synchronous_caller_gets_the_shadow_too(tmp_path: Path) -> None:
    with Cascade.load(
        load(tmp_path, models(delay=0.05), [checked("first", "small", shadow=ALL), LAST]).loaded
    ) as cascade:
        assert roles(cascade.invoke("hello")) == [("small", "answer"), ("new", "shadow")]
