"""What a call costs: what the server counted, what it may have generated, nothing for what was never sent."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import warnings
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Answer, Gate, Loopback, Seen, chat, status, stream

from cascade.errors import ModelError
from cascade.graph.ask import Attempt, ask
from cascade.models import build_model
from cascade.models.base import Prompt, charge, cost
from cascade.models.openai import OpenAISettings
from cascade.models.openai.model import OpenAI
from cascade.models.openai.usage import Usage
from cascade.records import Request
from cascade.spec.parts import Price

PRICE = Price(input=3.0, output=5.0, cached=0.5)


def make(url: str, **settings: Any) -> OpenAI:
    known = {"kind": "openai", "model": "m", "key_env": None, "price": PRICE, "max_retries": 0, "timeout": 20}
    model = build_model("m", OpenAISettings(**{**known, **settings}, url=url), Path())
    assert isinstance(model, OpenAI)
    return model


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


def counts(usage: dict[str, Any]) -> tuple[int, int, int] | None:
    folded = Usage()
    folded.add(usage)
    counted = folded.counted()
    return counted and (counted.prompt, counted.generated, counted.cached)


def used(prompt: Any, generated: Any, total: Any = None, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": total, **more}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (used(12, 1, 399), (12, 387, 0)),
        (used(12, 40, 13), (12, 40, 0)),
        (used(12, None, 20), (12, 8, 0)),
        (used(None, 8, 20), (12, 8, 0)),
        (used(5, 2, completion_tokens_details={"reasoning_tokens": 30}), (5, 32, 0)),
        (used(9, 2, prompt_tokens_details={"cached_tokens": 7}), (9, 2, 7)),
        (used(9, 2, prompt_cache_hit_tokens=99), (9, 2, 9)),
        (used(9, 2, prompt_tokens_details={"cached_tokens": "7"}), (9, 2, 0)),
        (used(9, 2, prompt_tokens_details=None), (9, 2, 0)),
        (used(None, None, 20), None),
        (used(9, 10**7), None),
    ],
)
def test_the_greater_count_is_billed_and_cached_tokens_are_known(
    usage: dict[str, Any], expected: tuple[int, int, int] | None
) -> None:
    assert counts(usage) == expected


BAD = st.one_of(
    st.floats(),
    st.text(),
    st.integers(max_value=-1),
    st.integers(min_value=2_100_000),
    st.booleans(),
    st.lists(st.none(), min_size=1),
)


@given(name=st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), value=BAD)
def test_a_count_that_is_none_is_flagged_and_never_billed(name: str, value: Any) -> None:
    folded = Usage()
    folded.add({**used(5, 2, 7), name: value})
    assert folded.counted() is None
    assert folded.malformed


COUNT = st.one_of(st.none(), st.integers(1, 999))


@given(st.lists(st.tuples(COUNT, COUNT), min_size=1))
def test_the_usage_of_a_stream_is_the_largest_that_it_names(
    chunks: list[tuple[int | None, int | None]],
) -> None:
    folded = Usage()
    for prompt, generated in chunks:
        folded.add(used(prompt, generated))
    prompts, generations = ([count for count in side if count] for side in zip(*chunks, strict=True))
    counted = folded.counted()
    assert (counted is not None) == bool(prompts and generations)
    if counted is not None:
        assert (counted.prompt, counted.generated) == (max(prompts), max(generations))


async def test_cached_tokens_have_their_own_price(server: Loopback) -> None:
    usage = b'{"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}}'
    body = b'{"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "usage": ' + usage + b"}"
    server.answers = [Answer(chunks=[body])]
    model = make(server.url)
    reply = await model.ask(Prompt("q"))
    assert charge(PRICE, reply) == pytest.approx((20 * 3.0 + 80 * 0.5 + 10 * 5.0) / 1e6)
    assert reply.meta["cached_tokens"] == 80
    call, _ = await ask(model, Request(text="q"))
    assert call.cost_usd == pytest.approx(charge(PRICE, reply))
    await model.aclose()
    assert cost(Price(input=3.0, output=5.0), 100, 10, 80) == pytest.approx(350e-6)  # no price of their own


@pytest.mark.parametrize("usage", ["7", 1.5, {"prompt_tokens": 1e300, "completion_tokens": 1}, [1], True])
async def test_a_usage_that_is_none_is_billed_at_the_worst_case_and_flagged(
    server: Loopback, usage: Any
) -> None:

    choice = {"message": {"content": "ok"}, "finish_reason": "stop"}
    server.answers = [Answer(chunks=[json.dumps({"choices": [choice], "usage": usage}).encode()])]
    model = make(server.url)
    reply = await model.ask(Prompt("q"))
    await model.aclose()
    assert reply.billed == model.worst_case(Prompt("q"))
    assert reply.meta["usage"] == "malformed"


async def failed(model: OpenAI) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await model.ask(Prompt("q"))
    await model.aclose()
    return caught.value


def collect_half_open() -> None:
    """Collect connections whose TLS handshake was broken off: asyncio warns of them, and closes them then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_server_that_is_not_reached_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    refused = f"http://127.0.0.1:{closed_port()}/v1"
    for url in (refused, "http://nowhere.invalid/v1", "https://127.0.0.1:1/v1"):
        failure = await failed(make(url, max_retries=retries))
        assert (failure.billed, failure.reason) == ((0, 0), "connection")
    monkeypatch.setenv("HTTP_PROXY", refused.removesuffix("/v1"))
    monkeypatch.setenv("NO_PROXY", "")
    failure = await failed(make("http://far.example/v1", max_retries=retries))
    assert failure.billed == (0, 0)


async def test_a_request_that_was_never_written_costs_nothing() -> None:
    """A server that accepts the connection and never answers the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = make(f"https://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.5)
        assert (await failed(model)).billed == (0, 0)
    collect_half_open()


async def recorded(model: OpenAI, wait: Awaitable[object]) -> Attempt:
    attempts: list[Attempt] = []
    task = asyncio.create_task(ask(model, Request(text="q"), record=attempts.append))
    await wait
    task.cancel("the caller went away")
    with pytest.raises(asyncio.CancelledError):
        await task
    await model.aclose()
    (attempt,) = attempts
    return attempt


async def test_a_call_cancelled_before_its_request_left_costs_nothing_and_after_it_the_worst_case(
    server: Loopback,
) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        model = make(f"https://127.0.0.1:{silent.getsockname()[1]}/v1")
        accepted = asyncio.ensure_future(loop.sock_accept(silent))
        attempt = await recorded(model, accepted)
        accepted.result()[0].close()
    collect_half_open()
    assert attempt.call.cost_usd == 0.0
    assert attempt.call.meta["reason"] == "cancelled"
    gate = Gate(server, chat("late"))
    model = make(server.url)
    attempt = await recorded(model, asyncio.to_thread(gate.asked.wait, 60))
    gate.open.set()
    assert attempt.call.cost_usd == pytest.approx(cost(PRICE, *model.worst_case(Prompt("q"))))


async def test_an_error_costs_what_may_have_been_generated(server: Loopback) -> None:
    model = make(server.url)
    worst = model.worst_case(Prompt("q"))
    begun = stream(["half"], finish_reason=None, usage=None).chunks[0]
    error = b'data: {"error": {"message": "died"}}\n\n'
    kind = {"Content-Type": "text/event-stream"}
    for answer, billed in (
        (status(429, "slow down"), (0, 0)),
        (Answer(chunks=[b'{"error": {"message": "busy", "code": 429}}']), (0, 0)),
        (Answer(headers=kind, chunks=[begun, error]), worst),
        (Answer(headers=kind, chunks=[begun], cut=True), worst),
        (chat("half", finish_reason="error", usage=(5, 2)), (5, 2)),
    ):
        server.answers = [answer]
        assert (await failed(model)).billed == billed


def refusing(*names: str, one_at_a_time: bool = False) -> Any:
    """A server that answers 422 while a request has one of these fields."""

    def answer(seen: Seen) -> Answer:
        bad = [name for name in names if name in seen.json]
        return (
            status(422, f"extra fields: {', '.join(bad[:1] if one_at_a_time else bad)}")
            if bad
            else chat("ok")
        )

    return answer


@pytest.mark.parametrize("one_at_a_time", [False, True])
async def test_what_a_server_refuses_is_left_out_learned_once_and_said(
    server: Loopback, one_at_a_time: bool
) -> None:
    server.answers = [refusing("seed", "temperature", "stream_options", one_at_a_time=one_at_a_time)]
    model = make(server.url)
    reply = await model.ask(Prompt("q"), [].append)
    first = len(server.requests)
    again = await model.ask(Prompt("q"), [].append)
    await model.aclose()
    assert first == (4 if one_at_a_time else 2)
    assert len(server.requests) == first + 1
    assert reply.meta["left_out"] == again.meta["left_out"] == ["seed", "stream_options", "temperature"]


async def test_a_temperature_that_somebody_chose_and_other_fields_are_not_left_out(server: Loopback) -> None:
    for name, settings in (
        ("temperature", {"temperature": 0.7}),
        ("logprobs", {}),
        ("messages", {}),
        ("model", {}),
    ):
        server.answers = [refusing(name)]
        server.requests.clear()
        failure = await failed(make(server.url, **settings))
        assert (failure.status, failure.reason, failure.healthy) == (422, "http_422", True)
        assert name in str(failure)
        assert len(server.requests) == 1


async def test_a_refusal_that_only_mentions_a_field_teaches_nothing(server: Loopback) -> None:
    server.answers = [status(400, "bad request: {'seed': 0, 'messages': []}")]
    model = make(server.url)
    assert (await failed(model)).status == 400
    assert len(server.requests) == 2
    server.answers = [chat("ok")]
    reply = await model.ask(Prompt("q"))
    await model.aclose()
    assert "left_out" not in reply.meta
    assert "seed" in server.requests[-1].json


async def test_a_server_that_names_the_other_cap_gets_it(server: Loopback) -> None:
    def answer(seen: Seen) -> Answer:
        said = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        return status(400, said) if "max_tokens" in seen.json else chat("ok")

    server.answers = [answer]
    model = make(server.url, max_tokens=9)
    await model.ask(Prompt("q"))
    await model.ask(Prompt("q"))
    assert [request.json.get("max_completion_tokens") for request in server.requests] == [None, 9, 9]
    server.answers = [status(400, "max_tokens and max_completion_tokens are both wrong")]
    assert (await failed(model)).status == 400  # and not for ever


async def test_omit_leaves_fields_out_from_the_first_request(server: Loopback) -> None:
    server.answers = [chat("ok")]
    model = make(server.url, omit=["seed", "temperature", "top_logprobs"])
    reply = await model.ask(Prompt("q"))
    await model.aclose()
    assert not {"seed", "temperature", "top_logprobs"} & server.requests[0].json.keys()
    assert "left_out" not in reply.meta  # the graph file says it


def test_a_temperature_cannot_be_set_and_left_out() -> None:
    settings = {"kind": "openai", "model": "m", "price": PRICE, "omit": ["temperature"]}
    _, problems = OpenAISettings(**settings, temperature=0.5).inspect(Path())
    assert [problem.text for problem in problems] == [
        "'temperature' is set, and left out here; drop one of them"
    ]
    facts, problems = OpenAISettings(**settings).inspect(Path())
    assert problems == []
    assert OpenAISettings(**settings).repeats(facts) is None
    plain = OpenAISettings(**{**settings, "omit": []})
    assert plain.repeats(facts) is not None
    assert plain.fingerprint(Path(), facts) != OpenAISettings(**settings).fingerprint(Path(), facts)
