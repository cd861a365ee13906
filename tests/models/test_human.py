"""A person is asked by LangGraph's interrupt, and the run goes on with the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt, charge
from cascade.models.human import HumanSettings

THREAD: Any = {"configurable": {"thread_id": "1"}}


class State(TypedDict, total=False):
    """Text in, answer or error out."""

    text: str
    answer: str
    error: str
    pieces: list[str]


def graph_of(model: Any) -> Any:
    async def node(state: State) -> State:
        pieces: list[str] = []
        try:
            reply = await model.ask(Prompt(state["text"]), pieces.append)
        except ModelError as error:
            return {"error": str(error)}
        assert charge(model.price, reply) == 0.0
        return {"answer": reply.text, "pieces": pieces}

    builder = StateGraph(State)
    builder.add_node("person", node)
    builder.add_edge(START, "person")
    builder.add_edge("person", END)
    return builder.compile(checkpointer=InMemorySaver())


async def test_the_run_waits_with_the_question_and_goes_on_with_the_answer() -> None:
    model = build_model("clerk", HumanSettings(kind="human", question="Please: {text}"), Path())
    assert model.unavailable() is None
    assert model.worst_case(Prompt("anything")) == (0, 0)
    graph = graph_of(model)
    waiting = await graph.ainvoke({"text": "{text} lost"}, THREAD, version="v2")
    assert [pause.value for pause in waiting.interrupts] == [
        {"model": "clerk", "question": "Please: {text} lost"}
    ]
    done = await graph.ainvoke(Command(resume="card_lost"), THREAD, version="v2")
    assert (done.value["answer"], done.value["pieces"]) == ("card_lost", ["card_lost"])
    await model.aclose()


@pytest.mark.parametrize("answer", [5, {"text": "x"}, "", "  \n", ["a"], False])
async def test_an_answer_that_is_no_text_is_a_failure(answer: Any) -> None:
    graph = graph_of(build_model("clerk", HumanSettings(kind="human"), Path()))
    await graph.ainvoke({"text": "hello"}, THREAD)
    done = await graph.ainvoke(Command(resume=answer), THREAD, version="v2")
    assert "resume with a text that is not empty" in done.value["error"]


async def test_outside_a_run_a_person_cannot_be_asked() -> None:
    model = build_model("clerk", HumanSettings(kind="human"), Path())
    with pytest.raises(ModelError, match="can only be asked inside a run"):
        await model.ask(Prompt("hello"))
