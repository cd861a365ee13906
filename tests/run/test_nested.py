"""A cascade inside others: as a model of another, as a node and as a subgraph of a LangGraph graph."""

from __future__ import annotations

import io
import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from rich.console import Console
from scripting import REMOTE, checked, load, scripted, write

from cascade import Cascade, ConfigError, Result
from cascade.cli.watch import Watch
from cascade.config.load import load_graph
from cascade.records import Message, Tool
from cascade.trace import TraceStore

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def inner(folder: Path, models: dict[str, Any], stages: list[dict[str, Any]], **settings: Any) -> str:
    (folder / "inner").mkdir(exist_ok=True)
    write(folder / "inner", models, stages, **settings)
    return "inner/graph.yaml"


def sure(folder: Path, **settings: Any) -> str:
    """An inner graph: a small model that is unsure, and a large remote one."""
    models = {
        "small": scripted("no", confidence=0.1),
        "large": scripted("yes indeed", max_tokens=10, **REMOTE),
    }
    return inner(folder, models, [checked("a", "small"), {"name": "b", "ask": ["large"]}], **settings)


def outer(folder: Path, path: str, **settings: Any) -> Cascade:
    model = {"kind": "cascade", "path": path, **settings.pop("model", {})}
    models = {"team": model, "last": scripted("last resort")}
    stages = settings.pop("stages", [{"name": "one", "ask": ["team"]}, {"name": "two", "ask": ["last"]}])
    return load(folder, models, stages, **settings)


def rules(result: Result) -> list[str]:
    return [step.decision.rule for step in result.trace]


def test_an_inner_run_is_a_call_with_its_cost_and_a_run_of_its_own(tmp_path: Path) -> None:
    with outer(tmp_path, sure(tmp_path)) as cascade:
        result = cascade.invoke(
            [Message(role="system", content="be kind"), Message(role="user", content="so?")]
        )
    assert (result.text, rules(result)) == ("yes indeed", ["unchecked"])
    call = result.trace[0].calls[0]
    with TraceStore(str(tmp_path / "traces.db")) as store:
        within = store.get(call.meta["run"])
    assert [message.role for message in within.request.messages] == ["system", "user"]
    assert within.request.metadata == {"asked_by": "team", "sample": 0}
    assert result.cost_usd == pytest.approx(within.cost_usd, abs=1e-11)
    assert within.cost_usd == pytest.approx((3 * 1 + 2 * 2) / 1e6)
    assert (call.tokens_in, call.tokens_out) == (6, 3)
    assert (call.meta["calls"], call.meta["status"], call.meta["stage"]) == (2, "accepted", "b")
    assert result.baseline is None  # the outer graph has no price by the token to compare with


def test_traces_without_texts_keep_the_link_to_the_inner_run(tmp_path: Path) -> None:
    quiet = {"trace": {"store_text": False}}
    with outer(tmp_path, sure(tmp_path, **quiet), **quiet) as cascade:
        result = cascade.invoke("so?")
    with TraceStore(str(tmp_path / "traces.db")) as store:
        call = store.get(result.run).trace[0].calls[0]
        within = store.get(call.meta["run"])
    assert (call.text or "").startswith("sha256:")
    assert within.request.text.startswith("sha256:")


def test_an_answer_that_the_inner_graph_does_not_accept_is_a_paid_failure(tmp_path: Path) -> None:
    models = {"m": scripted("hm", confidence=0.1, **REMOTE)}
    for exhausted in ("abstain", "best"):
        with outer(tmp_path, inner(tmp_path, models, [checked("a", "m")], on_exhausted=exhausted)) as cascade:
            result = cascade.invoke("so?")
        assert rules(result) == ["no_draft", "unchecked"]
        assert result.text == "last resort"
        assert result.cost_usd == pytest.approx(3e-6)
        assert "by rule below_threshold); see its run" in (result.trace[0].calls[0].error or "")


@pytest.mark.parametrize(
    ("inner_limit", "limit", "rule"),
    [
        (None, 0.000_020, "over_cost"),  # 1 + 10 · 2 for the large model: 0.000021
        (None, 0.000_021, "unchecked"),
        (0.000_021_5, 0.000_0213, "unchecked"),
        (0.000_021_5, 0.000_0209, "over_cost"),
    ],
)
def test_the_worst_case_is_the_sum_of_the_stages_or_the_inner_limit(
    tmp_path: Path, inner_limit: float | None, limit: float, rule: str
) -> None:
    limits = {} if inner_limit is None else {"limits": {"cost_usd": inner_limit}}
    with outer(tmp_path, sure(tmp_path, **limits), limits={"cost_usd": limit}) as cascade:
        assert rules(cascade.invoke("so?"))[0] == rule


def test_the_inner_limit_bounds_a_worst_case_that_is_larger(tmp_path: Path) -> None:
    models = {"a": scripted("yes", max_tokens=10, **REMOTE), "b": scripted("yes", max_tokens=10, **REMOTE)}
    stages = [{"name": "a", "ask": ["a"]}, {"name": "b", "ask": ["b"]}]
    path = inner(tmp_path, models, stages, limits={"cost_usd": 0.00003})
    with outer(tmp_path, path, limits={"cost_usd": 0.000031}) as cascade:
        assert rules(cascade.invoke("so?")) == ["unchecked"]


def test_a_local_only_request_stays_out_of_a_graph_that_is_not_local(tmp_path: Path) -> None:
    with outer(tmp_path, sure(tmp_path)) as cascade:
        assert rules(cascade.invoke("so?", local_only=True)) == ["local_only", "unchecked"]
    path = inner(tmp_path, {"m": scripted("here")}, [{"name": "a", "ask": ["m"]}])
    with outer(tmp_path, path, model={"local": True}) as cascade:
        result = cascade.invoke("so?", local_only=True)
        with TraceStore(cascade.trace_db or "") as store:
            assert store.get(result.trace[0].calls[0].meta["run"]).request.local_only
    assert result.text == "here"


def test_tools_schemas_and_token_signals_pass_through(tmp_path: Path) -> None:
    replies = {"who?": '{"name": "Ada"}', "go": {"calls": [{"arguments": {}}]}, "odd": "no JSON"}
    path = inner(tmp_path, {"m": scripted(replies=replies, confidence=0.9)}, [{"name": "a", "ask": ["m"]}])
    stages = [checked("one", "team", accept=0.8), {"name": "two", "ask": ["last"]}]
    with outer(tmp_path, path, stages=stages) as cascade:
        person = cascade.invoke("who?", output_schema=PERSON)
        called = cascade.invoke("go", tools=[Tool(name="now")])
        odd = cascade.invoke("odd", output_schema=PERSON)
    assert (person.text, person.confidence) == ('{"name": "Ada"}', pytest.approx(0.9))
    assert called.trace[0].calls[0].tool_calls[0].name == "now"
    assert rules(odd) == ["no_draft", "invalid"]


def test_an_answer_that_was_cut_off_within_is_cut_off_outside(tmp_path: Path) -> None:
    path = inner(tmp_path, {"m": scripted("one two three", max_tokens=2)}, [{"name": "a", "ask": ["m"]}])
    stages = [
        checked("one", "team"),
        {"name": "two", "ask": ["last"]},
    ]
    with outer(tmp_path, path, stages=stages) as cascade:
        result = cascade.invoke("so?")
    assert rules(result) == ["truncated", "unchecked"]
    assert result.trace[0].calls[0].meta["finish_reason"] == "length"


def test_an_inner_graph_without_a_store_keeps_nothing(tmp_path: Path) -> None:
    with outer(tmp_path, sure(tmp_path)) as cascade:
        path = tmp_path / "graph.yaml"
    assert cascade.config.name == "test"
    with Cascade.load(path, record=False) as quiet:
        assert quiet.invoke("so?").text == "yes indeed"


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_graph(path)
    return str(error.value)


def test_wrong_inner_graphs_are_found_by_the_checks(tmp_path: Path) -> None:
    def made(path: str, **settings: Any) -> Path:
        models = {"team": {"kind": "cascade", "path": path, **settings}}
        return write(tmp_path, models, [{"name": "one", "ask": ["team"]}])

    assert "none.yaml" in problems(made("none.yaml"))
    assert "cycle: graph.yaml → graph.yaml" in problems(made("graph.yaml"))
    (tmp_path / "inner").mkdir()
    back = {"home": {"kind": "cascade", "path": "../graph.yaml"}}
    write(tmp_path / "inner", back, [{"name": "a", "ask": ["home"]}], name="between")
    assert "cycle: graph.yaml → graph.yaml → graph.yaml" in problems(made("inner/graph.yaml"))
    inner(tmp_path, {"m": {"kind": "human"}}, [{"name": "a", "ask": ["m"]}])
    assert "'m' is a person; only the outermost graph" in problems(made("inner/graph.yaml"))
    inner(tmp_path, {"m": scripted("x", **REMOTE)}, [{"name": "a", "ask": ["m"]}])
    assert "models.team.local: true, but its model 'm' is not local" in problems(
        made("inner/graph.yaml", local=True)
    )
    inner(tmp_path, {"m": scripted("x")}, [{"name": "a", "ask": ["m"]}], trace={"store_text": False})
    assert "keeps no texts (trace.store_text: false); say so" in problems(made("inner/graph.yaml"))
    inner(tmp_path, {"m": scripted("x")}, [{"name": "a", "ask": ["m"]}], budgets={"account_day_usd": 1.0})
    assert "has budgets of accounts, but its runs within another have none" in problems(
        made("inner/graph.yaml")
    )
    inner(tmp_path, {"m": scripted("x"), "unused": scripted("y")}, [{"name": "a", "ask": ["m"]}])
    assert "model 'unused' is never asked" in problems(made("inner/graph.yaml"))


def test_the_budgets_of_an_inner_graph_hold_where_the_outer_has_none(tmp_path: Path) -> None:
    path = sure(tmp_path, name="within", budgets={"day_usd": 1e-9})
    with outer(tmp_path, path) as cascade:
        result = cascade.invoke("so?")
    assert (result.text, rules(result)) == ("last resort", ["no_draft", "unchecked"])
    assert "over_budget" in (result.trace[0].calls[0].error or "")
    with pytest.raises(ConfigError, match="kept in the trace database; load the graph with record=True"):
        Cascade.load(tmp_path / "graph.yaml", record=False)


def test_a_watched_graph_shows_its_own_stages_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outer(tmp_path, sure(tmp_path, name="within")).close()
    watch = Watch(load_graph(tmp_path / "graph.yaml").graph, Console(file=io.StringIO()))
    with Cascade.load(tmp_path / "graph.yaml", observers=[watch]) as cascade:
        assert cascade.invoke("so?").status == "accepted"
    drawn = Console(file=io.StringIO(), record=True)
    drawn.print(watch.drawing())
    assert drawn.export_text().count("accepted 1") == 1
    assert caplog.text == ""


def test_the_digest_changes_with_the_inner_graph(tmp_path: Path) -> None:
    with outer(tmp_path, sure(tmp_path)) as cascade:
        before = cascade.version
    sure(tmp_path, description="changed")
    assert f"test@{load_graph(tmp_path / 'graph.yaml').digest}" != before


async def test_a_cascade_is_a_node_whose_runs_are_kept(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted("yes")}, [{"name": "s", "ask": ["m"]}]) as cascade:
        graph = StateGraph(MessagesState)
        graph.add_node("ask", cascade.as_node(account="team"))
        graph.add_edge(START, "ask")
        graph.add_edge("ask", END)
        compiled = graph.compile()
        asked: Any = {"messages": [HumanMessage("hello")]}
        said = [(await compiled.ainvoke(asked))["messages"][-1], compiled.invoke(asked)["messages"][-1]]
        with TraceStore(cascade.trace_db or "") as store:
            kept = [store.get(answer.response_metadata["cascade"]["run"]) for answer in said]
    assert [answer.text for answer in said] == ["yes", "yes"]
    assert [run.request.account for run in kept] == ["team", "team"]


class Shared(TypedDict, total=False):
    request: dict[str, Any]
    trace: Annotated[list[dict[str, Any]], operator.add]
    seen: list[str]


async def test_a_compiled_graph_is_a_subgraph(tmp_path: Path) -> None:
    with load(tmp_path, {"m": scripted("yes")}, [{"name": "s", "ask": ["m"]}]) as cascade:
        graph = StateGraph(Shared)
        graph.add_node("cascade", cascade.graph)
        graph.add_node("after", lambda state: {"seen": [state["trace"][-1]["calls"][0]["text"]]})
        graph.add_edge(START, "cascade")
        graph.add_edge("cascade", "after")
        graph.add_edge("after", END)
        state = await graph.compile().ainvoke({"request": {"text": "hello"}})
    assert state["seen"] == ["yes"]
    assert [step["stage"] for step in state["trace"]] == ["s"]
