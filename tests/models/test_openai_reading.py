"""However a valid answer is written, it says the same, or the call fails with a reason."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from random import Random

import pytest
from completions import Case, draw_case, encode, mutated
from loopback import Answer as Played
from loopback import Loopback

from cascade.errors import ModelError
from cascade.models.base import Prompt, Reply, charge
from cascade.models.openai import OpenAISettings
from cascade.models.openai.answer import FINISHES, Answer, UnusableError
from cascade.models.openai.documents import Documents, NotJsonError
from cascade.models.openai.model import OpenAI
from cascade.spec.kinds import ModelFacts
from cascade.spec.parts import Price

PRICE = Price(input=3.0, output=5.0)
WORST = (1000, 512)


def make(url: str) -> OpenAI:
    settings = {"kind": "openai", "model": "m", "key_env": None, "price": PRICE, "max_retries": 0}
    return OpenAI("m", OpenAISettings(**settings, url=url), ModelFacts())


def read(model: OpenAI, chunks: list[bytes]) -> tuple[Reply, str]:
    """Read a body as the model does; return the reply and what was streamed."""
    answer, documents, streamed = Answer(), Documents(), []
    try:
        for values in [*map(documents.feed, chunks), documents.end()]:
            streamed += [answer.add(value) for value in values]
    except (NotJsonError, UnusableError) as error:
        raise ModelError(str(error)) from error
    reply = model._reply(answer, WORST)
    return reply, "".join(streamed) + answer.rest()


def check(case: Case, reply: Reply, streamed: str, worst: tuple[int, int]) -> None:
    """Raise unless `reply` says what the case says, at its price, and was streamed once."""
    assert streamed == reply.text
    if case.lost:  # a change took away what carries the answer
        return
    assert reply.text == case.text
    assert [(call.name, call.arguments) for call in reply.tool_calls] == case.calls
    exact = (PRICE.input * case.usage[0] + PRICE.output * case.usage[1]) / 1e6
    flagged = reply.meta.get("usage") in ("missing", "malformed") and case.usage_touched
    bound = (PRICE.input * worst[0] + PRICE.output * worst[1]) / 1e6
    assert charge(PRICE, reply) == pytest.approx(bound if flagged else exact)
    assert not reply.tokens or letters("".join(token.text for token in reply.tokens)) == letters(reply.text)


def letters(text: str) -> str:
    """What must be the same in the tokens and the text: servers differ in the rest."""
    return re.sub(r"[\W_]+", "", text)


def test_ten_thousand_changes_of_valid_answers_change_nothing_or_fail_with_a_reason() -> None:
    model, outcomes = make("http://127.0.0.1:9/v1"), Counter[str]()
    for number in range(10_000):
        random = Random(f"change {number}")
        case = mutated(random, draw_case(random))
        try:
            reply, streamed = read(model, encode(random, case))
        except ModelError:
            outcomes["failed" if case.lost else "failed whole"] += 1
            continue
        try:
            check(case, reply, streamed, WORST)
        except AssertionError as error:
            raise AssertionError(f"change {number}: {case}\n{reply}") from error
        outcomes["lost" if case.lost else "same"] += 1
    assert outcomes["same"] > 4000, outcomes
    assert outcomes["failed"] > 300, outcomes


def test_an_answer_that_nobody_changed_is_always_read() -> None:
    model = make("http://127.0.0.1:9/v1")
    for number in range(500):
        random = Random(f"valid {number}")
        case = draw_case(random)
        reply, streamed = read(model, encode(random, case))
        check(case, reply, streamed, WORST)
        assert reply.billed is None


async def test_the_same_through_a_real_server() -> None:
    with Loopback() as server:
        model = make(server.url)
        same, reasons = 0, set[str]()
        for number in range(300):
            random = Random(f"served {number}")
            case = mutated(random, draw_case(random))
            kind = random.choice(["application/json", "text/event-stream", "text/plain"])
            chunks = [chunk for chunk in encode(random, case) if chunk]
            server.answers = [Played(headers={"Content-Type": kind}, chunks=chunks)]
            pieces: list[str] = []
            live = random.random() < 0.5
            try:
                reply = await asyncio.wait_for(model.ask(Prompt("q"), pieces.append if live else None), 30)
            except ModelError as error:
                reasons.add(error.reason)
                continue
            check(case, reply, "".join(pieces) if live else reply.text, model.worst_case(Prompt("q")))
            same += not case.lost
            assert server.requests[-1].json["stream"] is live
        await model.aclose()
    assert same > 100
    assert "invalid_answer" in reasons
    assert reasons <= {
        "broken_off", "invalid_answer", "empty_answer", "finish_reason", "server_error", "refusal"
    }  # fmt: skip


def ask(documents: list[object]) -> tuple[Reply, str]:
    lines = [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents]
    return read(make("http://127.0.0.1:9/v1"), [*lines, b"data: [DONE]\n\n"])


def says(content: object, finish: object = "stop", **choice: object) -> list[object]:
    return [{"choices": [{"delta": {"content": content}, "finish_reason": finish, **choice}]}]


@pytest.mark.parametrize("said", sorted(FINISHES))
def test_every_known_end_of_an_answer_has_one_of_three_names(said: str) -> None:
    for written in (said, said.upper()):
        meta = ask(says("yes", written))[0].meta
        assert meta["finish_reason"] == FINISHES[said]
        assert meta.get("server_finish_reason", meta["finish_reason"]) == written


def test_every_other_end_is_a_failed_call_with_the_servers_words() -> None:
    random, letters = Random("ends"), "abcdefghijklmnopqrstuvwxyz_"
    drawn = ["".join(random.choices(letters, k=random.randint(1, 20))) for _ in range(200)]
    for said in {
        "error",
        "abort",
        "cancelled",
        "content_filter",
        "timeout",
        "other",
        *drawn,
    } - FINISHES.keys():
        error = {"error": {"message": f"upstream died of {said}"}}
        with pytest.raises(ModelError) as caught:
            ask(says("half a sen", said, **error))
        assert said in str(caught.value)
        assert caught.value.reason in ("finish_reason", "content_filter")
        with pytest.raises(ModelError, match="upstream died"):  # the error alone is as good
            ask(says("half a sen", "stop", **error))


@pytest.mark.parametrize(
    "said",
    [
        {"error": "out of quota"},
        {"error": {"message": "out of quota", "code": 429, "metadata": {"provider_name": "x"}}},
        {"error": {"code": 502, "message": "returned", "metadata": {"raw": '{"detail": "out of quota"}'}}},
        {"error": [{"message": "out of quota"}]},
        {"error": {"error": {"detail": ["out of quota"]}}},
        {"object": "error", "message": "out of quota", "code": 40303},
        {"detail": [{"loc": ["body", "seed"], "msg": "out of quota"}]},
        {"success": False, "errors": [{"code": 1, "message": "out of quota"}], "result": None},
        {"code": 7, "msg": "out of quota"},
        {"error": {"reason": "<html><body><h1>out of</h1> quota</body></html>"}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [0, 1])
def test_an_error_in_place_of_an_answer_keeps_the_servers_words(said: object, before: int) -> None:
    for documents in ([*says("half", None) * before, said], [*says("half", None) * before, said, *says("x")]):
        with pytest.raises(ModelError, match=r"error in place of an answer: .*out of quota"):
            ask(documents)


def test_an_event_named_error_is_one_whatever_its_data() -> None:
    for data in (
        b"out of quota",
        b'{"message": "out of quota"}',
        b'{"x": "out of quota"}',
        b'["out of quota"]',
    ):
        with pytest.raises(ModelError, match="out of quota"):
            read(make("http://127.0.0.1:9/v1"), [b"event: error\ndata: " + data + b"\n\n"])


def test_a_cumulative_stream_says_its_text_once_or_is_not_clear() -> None:
    read_as_one, unclear = 0, list[tuple[int, str]]()
    for number in range(500):
        random = Random(f"cumulative {number}")
        pieces = random.choices(["Hel", "lo", " you", "1", "2", "\n", "é", "no"], k=random.randint(1, 8))
        so_far = ["".join(pieces[: count + 1]) for count in range(len(pieces))]
        end = [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
        documents = [document for text in so_far for document in says(text, None)] + end
        if not so_far[-1].strip():
            continue
        try:
            reply, streamed = ask(documents)
        except ModelError as error:
            unclear.append((len(pieces), str(error)))
            continue
        assert reply.text == streamed == so_far[-1]
        read_as_one += 1
    assert read_as_one > 350
    assert {count for count, _ in unclear} == {2}


@pytest.mark.parametrize("pieces", [["ha", "ha"], ["1", "1", "1"], ["no", " no"], ["a", "ab", "c"]])
def test_pieces_that_look_alike_are_no_repetition(pieces: list[str]) -> None:
    documents = [document for piece in pieces for document in says(piece, None)] + says("")
    reply, streamed = ask(documents)
    assert reply.text == streamed == "".join(pieces)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [(["Hel", "lo", "Hello"], "Hello"), (["Hello", "Hello"], None), (["Hel", "Hello"], None)],
)
def test_a_last_piece_that_repeats_the_text_adds_nothing(pieces: list[str], text: str | None) -> None:
    documents = [document for piece in pieces for document in says(piece, None)] + says("")
    if text is None:
        with pytest.raises(ModelError, match="not clear: it can be read as"):
            ask(documents)
        tokens = {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}  # too few for two pieces of text
        assert ask([*documents, tokens])[0].text == "Hello"
    else:
        assert ask(documents)[0].text == text


def test_a_message_that_contradicts_the_deltas_is_a_failed_call() -> None:
    with pytest.raises(ModelError, match="its message is not what its deltas say"):
        ask([*says("Hello", None), *says(None, message={"content": "Goodbye"})])


def spelled(tokens: list[str]) -> dict[str, object]:
    return {"content": [{"token": token, "logprob": -index / 100} for index, token in enumerate(tokens)]}


def test_only_the_tokens_that_spell_the_answer_are_evidence() -> None:
    ends, matched = [[], ["</s>"], ["<|im_end|>"], ["\n", "<end_of_turn>"]], 0
    for number in range(500):
        random = Random(f"tokens {number}")
        answer = random.choices(["bill", "ing", " is", "x", "1", "é", "ha"], k=random.randint(1, 5))
        hidden = random.choices(["<think>", "Maybe", " is", "bill", "\n"], k=random.randint(0, 6))
        hidden += ["</think>", "\n\n"] if hidden else []
        text = "".join(answer).strip()
        tokens = [*hidden, *answer, *random.choice(ends)]
        reply, _ = ask(says(text, logprobs=spelled(tokens)))
        said = letters("".join(token.text for token in reply.tokens))
        assert said in ("", letters(text)), tokens
        matched += bool(said)
        lost = random.randrange(len(answer))
        rest = [*hidden, *answer[:lost], *answer[lost + 1 :]]
        reply, _ = ask(says(text, logprobs=spelled(rest)))
        said = letters("".join(token.text for token in reply.tokens))
        assert said in ("", letters(text))
        assert reply.meta.get("logprobs") == (None if said or not rest else "misaligned")
    assert matched > 450


def test_tokens_of_half_a_character_spell_it_by_their_bytes() -> None:
    parts = [b"yes ", *("🙂".encode()[:2], "🙂".encode()[2:]), b" no"]
    content = [
        {"token": part.decode("utf-8", "replace"), "logprob": -0.1, "bytes": list(part)} for part in parts
    ]
    reply, _ = ask(says("yes 🙂 no", logprobs={"content": content}))
    assert len(reply.tokens) == 4


THOUGHTS: list[tuple[dict[str, object], str]] = [
    ({"content": "yes", "reasoning_content": "hm"}, "hm"),
    ({"content": "yes", "reasoning": "hm", "reasoning_content": "hm"}, "hm"),
    ({"content": "yes", "thinking": [{"type": "text", "text": "hm"}]}, "hm"),
    ({"content": [{"type": "thinking", "thinking": [{"text": "h"}, {"text": "m"}]}, {"text": "yes"}]}, "hm"),
    ({"content": [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "y"}, None, "es"]}, "hm"),
    ({"content": {"type": "text", "text": {"value": "yes"}}, "reasoning": 7}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("message", "thought"), THOUGHTS)
def test_thinking_is_no_text_and_is_kept(message: dict[str, object], thought: str) -> None:
    reply, _ = ask([{"choices": [{"message": message, "finish_reason": "stop"}]}])
    assert (reply.text, reply.meta.get("thinking", "")) == ("yes", thought)


def called(*calls: object) -> dict[str, object]:
    return {"choices": [{"delta": {"tool_calls": list(calls)}}]}


END: dict[str, object] = {"choices": [{"finish_reason": "tool_calls"}]}
ADD, NOW = {"name": "add", "arguments": '{"a": 1}'}, {"name": "now", "arguments": "{}"}
PARTS = [
    {"index": 0, "id": "c", "function": {"name": "add", "arguments": '{"a":'}},
    {"index": 0, "function": {"arguments": " 1}"}},
]


@pytest.mark.parametrize(
    "documents",
    [
        [called({"function": ADD}, {"function": NOW})],
        [called({"function": ADD}), called({"function": NOW})],
        [called({"index": 0, "id": "x", "function": ADD}), called({"index": 0, "id": "y", "function": NOW})],
        [called(part) for part in PARTS] + [called({"index": 1, "function": NOW})],
        [called({**part, "function": {**part["function"], "name": "add"}}) for part in PARTS]
        + [called({"index": 1, "function": NOW})],
        [called(part) for part in PARTS]
        + [called({"index": 1, "function": NOW})]
        + [{"choices": [{"message": {"tool_calls": [{"function": ADD}, {"function": NOW}]}}]}],
        [called({"function": {**ADD, "arguments": {"a": 1}}}, {"function": {**NOW, "arguments": {}}})],
    ],
)
def test_tool_calls_come_once_however_they_are_placed(documents: list[object]) -> None:
    reply, _ = ask([*documents, END])
    assert [(call.name, json.loads(call.arguments)) for call in reply.tool_calls] == [
        ("add", {"a": 1}),
        ("now", {}),
    ]
    assert len({call.id for call in reply.tool_calls}) == 2


def test_arguments_of_no_tool_are_a_failed_call() -> None:
    with pytest.raises(ModelError, match="without the name of a tool"):
        ask([called({"index": 0, "function": {"arguments": "{}"}}), END])
