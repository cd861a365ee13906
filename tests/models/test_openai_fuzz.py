"""Whatever a server sends, a model answers with a storable reply or a ModelError."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import Answer, Loopback

from cascade.errors import ModelError
from cascade.models.base import Prompt
from cascade.models.openai import OpenAISettings
from cascade.models.openai.model import OpenAI
from cascade.records import Call
from cascade.spec.kinds import ModelFacts

# JSON that looks like completions in places: the field names occur anywhere, with values of any type.
NAMES = "choices message delta content refusal finish_reason logprobs token logprob top_logprobs usage error"
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    st.sampled_from(["stop", "length", "content_filter", "\ud800", "\0", "", 1e999, -0.5]),
)
junk = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*NAMES.split(), "x"]), inner, max_size=5),
    ),
    max_leaves=12,
)


def loosely(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with these fields, any of which may be missing or junk."""
    either = {name: st.one_of(value, value, value, junk) for name, value in fields.items()}
    return st.one_of(st.fixed_dictionaries(either), st.fixed_dictionaries({}, optional=either))


token = loosely(
    token=st.text(max_size=5),
    logprob=st.floats(-9, 0),
    top_logprobs=st.lists(loosely(logprob=st.floats(-9, 0)), max_size=3),
)
text = loosely(content=st.text(max_size=9), refusal=st.none())
choice = loosely(
    message=text,
    delta=text,
    finish_reason=st.sampled_from(["stop", None]),
    logprobs=st.one_of(st.none(), loosely(content=st.lists(token, max_size=3))),
)
usage = loosely(prompt_tokens=st.integers(0, 99), completion_tokens=st.integers(0, 99))
completion = loosely(choices=st.lists(choice, max_size=2), usage=usage, model=st.text(max_size=5))
body = st.one_of(completion.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60))
event = st.one_of(body.map(lambda value: b"data: " + value + b"\n\n"), st.binary(max_size=30), st.just(b"\n"))
codes = st.one_of(st.just(200), st.sampled_from([200, 201, 204, 301, 400, 401, 404, 422, 429, 500, 599]))
types = st.sampled_from(
    ["application/json", "text/plain", "text/event-stream", "application/json; charset=x", ""]
)
Ask = Callable[[bool], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture(scope="module")
def ask(server: Loopback) -> Iterator[Ask]:
    """Ask once in a loop that all examples share; whatever escapes besides ModelError fails the test."""
    config = OpenAISettings(kind="openai", model="m", url=server.url, key_env=None, max_retries=0, timeout=5)
    model = OpenAI("strong", config, ModelFacts())

    async def once(streamed: bool) -> None:
        pieces: list[str] = []
        try:
            reply = await model.ask(Prompt("hello"), pieces.append if streamed else None)
        except ModelError as error:
            str(error).encode()
            return
        assert reply.text.strip()
        assert not streamed or "".join(pieces) == reply.text
        call = Call(model="m", tier="opus", text=reply.text, tokens=reply.tokens, meta=reply.meta)
        json.dumps(call.model_dump(), allow_nan=False, ensure_ascii=False).encode()

    with asyncio.Runner() as runner:
        yield lambda streamed: runner.run(once(streamed))
        runner.run(model.aclose())


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=body, code=codes, kind=types)
def test_any_body_is_a_reply_or_a_model_error(
    server: Loopback, ask: Ask, body: bytes, code: int, kind: str
) -> None:
    length = {} if code in {204, 301} else {"Content-Length": str(len(body))}
    server.answers = [Answer(code, {"Content-Type": kind, **length}, [body] if length else [])]
    ask(False)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(event, max_size=5), done=st.booleans(), cut=st.booleans())
def test_any_stream_is_a_reply_or_a_model_error(
    server: Loopback, ask: Ask, events: list[bytes], done: bool, cut: bool
) -> None:
    chunks = [*events, b"data: [DONE]\n\n"] if done else events
    server.answers = [Answer(200, {"Content-Type": "text/event-stream"}, chunks, cut=cut)]
    ask(True)
