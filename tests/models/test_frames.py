"""What crosses the border of a process comes out as it went in, and what is no frame is refused."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.models.base import Prompt, Reply
from cascade.models.llamacpp import frames
from cascade.models.llamacpp.frames import dump_prompt, dump_reply, load_prompt, load_reply, pack, read_frame
from cascade.policy.calibrate import Curve
from cascade.policy.early_exit import EarlyExit
from cascade.records import Message, Request, Token, Tool, ToolCall

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, plain, max_size=3)
calls = st.builds(ToolCall, id=words, name=words, arguments=words)
messages = st.builds(
    Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), content=words,
    tool_calls=st.lists(calls, max_size=2).map(tuple), tool_call_id=st.none() | words,
)  # fmt: skip
requests = st.builds(
    Request, text=words, messages=st.lists(messages, max_size=3).map(tuple),
    tools=st.lists(st.builds(Tool, name=words, description=words, parameters=objects), max_size=2).map(tuple),
    tool_choice=words, output_schema=st.none() | objects, local_only=st.booleans(), account=st.none() | words,
)  # fmt: skip
prompts = st.builds(
    Prompt, request=requests, sample=st.integers(0, 99), timeout=st.none() | st.floats(0.1, 99.0)
)
tokens = st.builds(
    Token, text=words, logprob=numbers, margin=st.none() | numbers, entropy=st.none() | numbers
)
replies = st.builds(
    Reply, text=words, tokens_in=st.integers(0, 9999), tokens_out=st.integers(0, 9999),
    labels=st.none() | st.dictionaries(words, st.floats(0.0, 1.0), max_size=5),
    tokens=st.lists(tokens, max_size=5).map(tuple), meta=objects,
    billed=st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)),
    tool_calls=st.lists(calls, max_size=2).map(tuple),
)  # fmt: skip


async def crossed(data: bytes) -> frames.Frame | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_frame(reader)


def across(frame: frames.Frame) -> frames.Frame:
    found = asyncio.run(crossed(pack(frame)))
    assert found is not None
    return found


@given(prompts)
def test_a_prompt_crosses_whole(prompt: Prompt) -> None:
    data, callbacks = dump_prompt(prompt)
    assert (load_prompt(across(data)), callbacks) == (prompt, [])


@given(replies)
def test_a_reply_crosses_whole_with_its_labels_in_order(reply: Reply) -> None:
    found = load_reply(across(dump_reply(reply)))
    assert found == reply
    assert list(found.labels or ()) == list(reply.labels or ())


def test_an_infinite_log_probability_crosses() -> None:
    reply = Reply("x", tokens=(Token(text="x", logprob=-math.inf, entropy=0.0),))
    assert load_reply(across(dump_reply(reply))) == reply


@dataclass(frozen=True, slots=True)
class WithCallback(Prompt):
    """A prompt that asks to be told about its tokens."""

    judge: Callable[[str], bool] | None = None


def test_a_callback_stays_behind_and_is_named() -> None:
    assert dump_prompt(WithCallback(Request(text="hi"), judge=bool)) == (
        dump_prompt(Prompt("hi"))[0],
        ["judge"],
    )
    assert dump_prompt(WithCallback(Request(text="hi")))[1] == []


def test_the_rule_of_early_exit_goes_along_and_any_other_stays_behind() -> None:
    curve = Curve(method="isotonic", x=(0.2, 0.9), y=(0.1, 0.97))
    rule = EarlyExit(signal="p10", accept=0.8, calibration=curve, max_tokens=9)
    data, callbacks = dump_prompt(Prompt("hi", stop_early=rule))
    assert (load_prompt(across(data)), callbacks) == (Prompt("hi", stop_early=rule), [])
    data, callbacks = dump_prompt(Prompt("hi", stop_early=lambda _: True))
    assert (load_prompt(across(data)), callbacks) == (Prompt("hi"), ["stop_early"])


def test_the_metadata_of_a_request_stays_here() -> None:
    data, _ = dump_prompt(Prompt(Request(text="hi", metadata={"user": 7})))
    assert load_prompt(across(data)) == Prompt("hi")


def test_what_is_not_plain_data_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="object"):
        dump_prompt(Prompt(Request(text="hi", output_schema={"a": object()})))
    with pytest.raises(ValueError, match="object"):
        dump_reply(Reply("hi", meta={"a": object()}))
    with pytest.raises(ValueError, match="not JSON serializable"):
        pack({"a": object()})


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\0\0\5", b"\0\0\0\5{}"])
async def test_a_stream_that_ends_is_no_frame(data: bytes) -> None:
    assert await crossed(data) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff\xff{}", "a message of 4294967295 bytes; at most"),
        (b"\0\0\0\2[]", "expected a mapping, got list"),
        (b"\0\0\0\3abc", "Expecting value"),
        (b"\0\0\0\2\xff\xfe", "codec can't decode|Expecting value"),
    ],
)
async def test_what_is_no_frame_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await crossed(data)


def test_a_message_over_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match=r"\d+ bytes in one message; at most 10"):
        pack({"text": json.dumps("x" * 10)})
