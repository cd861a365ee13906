"""A scripted model does what its script says and reports no number that it was not given."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import ConfigError, ModelError
from cascade.models import build_model
from cascade.models.base import Model, Prompt
from cascade.models.scripted import ScriptedSettings
from cascade.records import Message, Request, Tool


def make(**settings: Any) -> Model:
    return build_model("toy", ScriptedSettings(kind="scripted", **settings), Path())


async def test_it_answers_from_the_table_else_the_default() -> None:
    model = make(replies={"two": "words here"}, default="what?")
    reply = await model.ask(Prompt("two"))
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("words here", 1, 2)
    assert (reply.labels, reply.tokens, reply.meta) == (None, (), {"finish_reason": "stop"})
    assert (await model.ask(Prompt("other text"))).text == "what?"
    assert model.unavailable() is None
    await model.aclose()


async def test_a_list_gives_one_answer_per_sample() -> None:
    model = make(replies={"q": ["a", "b"]})
    assert [(await model.ask(Prompt("q", sample))).text for sample in range(3)] == ["a", "b", "a"]


async def test_confidence_becomes_log_probabilities_and_a_label_distribution() -> None:
    model = make(default="b", labels=["a", "b", "c"], confidence=0.8)
    reply = await model.ask(Prompt("q"))
    assert reply.labels is not None
    assert next(iter(reply.labels.items())) == ("b", 0.8)
    assert reply.labels["a"] == pytest.approx(0.1)
    assert [token.logprob for token in reply.tokens] == [pytest.approx(math.log(0.8))]
    assert (reply.tokens[0].margin, reply.tokens[0].entropy) == (None, None)


@given(confidence=st.floats(0, 1), extra=st.integers(1, 9))
async def test_the_distribution_sums_to_one_best_first(confidence: float, extra: int) -> None:
    model = make(default="x", labels=["x", *(f"l{i}" for i in range(extra))], confidence=confidence)
    reply = await model.ask(Prompt("q"))
    assert reply.labels is not None
    values = list(reply.labels.values())
    assert sum(values) == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)
    assert all(math.isfinite(token.logprob) for token in reply.tokens)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fail": "out of order"}, "model 'toy': out of order"),
        ({"replies": {"a": "b"}}, "no reply for 'q'; add it to replies, or a default"),
        ({"replies": {"q": []}}, "no reply for 'q'"),
        ({"default": "z", "labels": ["a", "b"]}, "'z', which is not one of its labels"),
    ],
)
async def test_a_script_without_an_answer_fails(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        await make(**settings).ask(Prompt("q"))
    assert words in str(caught.value)


async def test_a_delay_is_waited_for_but_not_beyond_the_time_out() -> None:
    start = time.perf_counter()
    assert (await make(default="a", delay=0.05).ask(Prompt("q"))).text == "a"
    assert time.perf_counter() - start >= 0.05
    with pytest.raises(ModelError, match=r"no answer within 0\.05 s"):
        await make(default="a", delay=30).ask(Prompt("q", timeout=0.05))
    with pytest.raises(ModelError, match="no answer within"):
        await make(default="a", delay=30, timeout=0.05).ask(Prompt("q"))
    assert time.perf_counter() - start < 2


async def test_streaming_hands_over_word_by_word_what_the_reply_says() -> None:
    pieces: list[str] = []
    reply = await make(default="one two  three").ask(Prompt("q"), pieces.append)
    assert pieces == ["one", " two", "  three"]
    assert "".join(pieces) == reply.text


async def test_the_worst_case_holds() -> None:
    model = make(default="a b c d e", max_tokens=3)
    reply = await model.ask(Prompt("how many words"))
    assert model.worst_case(Prompt("how many words")) == (3, 3)
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("a b c", 3, 3)
    assert reply.meta["finish_reason"] == "length"


def test_confidence_needs_other_labels_to_be_spread_over() -> None:
    with pytest.raises(ConfigError, match=r"models\.toy\.labels: \['a'\]"):
        make(labels=["a"], confidence=0.9)


async def test_tools_are_called_only_where_they_are_offered() -> None:
    reply = {
        "text": "or words",
        "calls": [{"name": "add", "arguments": {"a": 1}}, {"name": "b", "arguments": "{"}],
    }
    model = make(replies={"go": reply})
    found = await model.ask(Prompt(Request(text="go", tools=(Tool(name="add"),))))
    assert [(call.name, call.arguments) for call in found.tool_calls] == [("add", '{"a": 1}'), ("b", "{")]
    assert len({call.id for call in found.tool_calls}) == 2
    assert (found.text, found.meta["finish_reason"]) == ("or words", "tool_calls")
    assert (await model.ask(Prompt("go"))).tool_calls == ()
    assert (
        await model.ask(Prompt(Request(text="go", tools=(Tool(name="add"),), tool_choice="none")))
    ).tool_calls == ()


async def test_a_conversation_is_answered_by_its_last_message() -> None:
    model = make(replies={"5": "it is five", "add": "wrong"})
    said = (Message(role="user", content="add"), Message(role="tool", content="5", tool_call_id="c"))
    reply = await model.ask(Prompt(Request(text="add", messages=said)))
    assert (reply.text, reply.tokens_in) == ("it is five", 2)
