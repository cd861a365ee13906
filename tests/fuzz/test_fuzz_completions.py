"""Any change of a valid answer, however it is framed, leaves what it says or fails with a reason."""

from __future__ import annotations

from random import Random

from completions import draw_case, encode, mutated
from fuzzing import fuzz
from pydantic_core import from_json

from cascade.errors import ModelError
from cascade.models.base import Prompt
from cascade.models.openai import OpenAISettings
from cascade.models.openai.answer import Answer, UnusableError
from cascade.models.openai.documents import Documents, NotJsonError
from cascade.models.openai.model import OpenAI
from cascade.records import Call
from cascade.spec.kinds import ModelFacts

SETTINGS = OpenAISettings(kind="openai", model="m", url="http://127.0.0.1:9/v1", key_env=None, local=True)
MODEL = OpenAI("m", SETTINGS, ModelFacts())
WORST = MODEL.worst_case(Prompt("q"))


def a_body(random: Random) -> bytes:
    """A changed answer; often with bytes changed, cut out or doubled, as a broken server would."""
    body = bytearray(b"".join(encode(random, mutated(random, draw_case(random)))))
    for _ in range(random.choice([0, 0, 1, 3])):
        begin = random.randrange(len(body) + 1)
        end = begin + random.randint(0, 20)
        body[begin:end] = random.choice([b"", body[begin:end] * 2, random.randbytes(2), b"null", b"[]"])
    return bytes(body)


def replies_or_fails(body: bytes) -> None:
    answer, documents, streamed = Answer(), Documents(), []
    try:
        for values in (documents.feed(body), documents.end()):
            streamed += [answer.add(value) for value in values]
        reply = MODEL._reply(answer, WORST)
    except (NotJsonError, UnusableError, ModelError):
        return
    assert "".join(streamed) + answer.rest() == reply.text
    assert reply.text.strip() or reply.tool_calls
    assert reply.meta["finish_reason"] in ("stop", "length", "tool_calls")
    assert reply.tokens_in >= 0
    assert reply.tokens_out >= 0
    call = Call(
        model="m",
        tier="t",
        text=reply.text,
        tokens=reply.tokens,
        tool_calls=reply.tool_calls,
        meta=reply.meta,
    )
    from_json(call.model_dump_json())


def test_completions() -> None:
    fuzz("completions", a_body, replies_or_fails, examples=2000)
