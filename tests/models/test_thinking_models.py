"""What a model thinks aloud is no part of its answer: behind an endpoint and in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf
from loopback import Loopback, chat, stream

from cascade import Cascade
from cascade.errors import ModelError
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp
from cascade.models.openai import OpenAISettings
from cascade.models.openai.model import OpenAI
from cascade.records import Request, Tool
from cascade.trace import TraceStore

Make = Callable[..., OpenAI]
THOUGHT = "It is money, or is it shipping?"
FORMS = [
    f"<think>\n{THOUGHT}\n</think>\n\n",
    f"[THINK]{THOUGHT}[/THINK]",
    f"<seed:think>{THOUGHT}</seed:think>",
    f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>",
]


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def make(server: Loopback) -> Make:
    def build(**settings: Any) -> OpenAI:
        defaults = {"kind": "openai", "model": "m", "url": server.url, "key_env": None, "local": True}
        model = build_model("strong", OpenAISettings(**{**defaults, "max_retries": 0, **settings}), Path())
        assert isinstance(model, OpenAI)
        return model

    return build


@pytest.mark.parametrize("form", FORMS)
async def test_labels_text_and_tokens_behind_an_endpoint(server: Loopback, make: Make, form: str) -> None:
    text = f"{form}billing"
    tokens = [(form[:6], -4.0), (form[6:], -5.0), ("bill", -0.25), ("ing", -0.5)]
    server.answers = [chat(text, logprobs=tokens)]
    closed, free = make(labels=["billing", "shipping"]), make()
    for model in (closed, free):
        reply = await model.ask(Prompt("I was charged twice"))
        await model.aclose()
        assert reply.text == "billing"
        assert reply.meta["thinking"] == THOUGHT
        assert [(token.text, token.logprob) for token in reply.tokens] == tokens[2:]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_nothing_of_it_is_streamed(server: Loopback, make: Make, form: str, size: int) -> None:
    text = f"{form}It is billing."
    server.answers = [stream([text[at : at + size] for at in range(0, len(text), size)])]
    model, shown = make(), list[str]()
    reply = await model.ask(Prompt("hello"), shown.append)
    await model.aclose()
    assert "".join(shown) == reply.text == "It is billing."


async def test_a_template_that_opens_the_thinking(server: Loopback, make: Make) -> None:
    """What a server's template opened is known from the settings, or from the first answer on."""
    pieces = [THOUGHT, "</think>\n", "\nbilling"]
    server.answers = [stream(pieces)]
    told = make(thinking="opened")
    shown: list[str] = []
    reply = await told.ask(Prompt("hello"), shown.append)
    assert "".join(shown) == reply.text == "billing"
    await told.aclose()
    learning = make()
    for number in range(2):
        shown = []
        reply = await learning.ask(Prompt("hello"), shown.append)
        assert reply.text == "billing"
        assert reply.meta["thinking"] == THOUGHT
        assert number == 0 or shown == ["billing"]
    await learning.aclose()


async def test_an_endpoint_that_thinks_to_the_end_gives_no_answer(server: Loopback, make: Make) -> None:
    server.answers = [chat(f"<think>{THOUGHT}", finish_reason="length", usage=(5, 9))]
    model = make()
    with pytest.raises(ModelError, match=r"no answer after its thinking.*raise max_tokens") as caught:
        await model.ask(Prompt("hello"))
    assert caught.value.billed == (5, 9)
    await model.aclose()


def local(tmp_path: Path, says: list[bytes], **how: Any) -> LlamaCpp:
    control = how.pop("control", ())
    template = how.pop("template", CHATML)
    path = make_gguf(tmp_path / "m.gguf", says=says, control=control, chat_template=template)
    built = build_model(
        "nano", LlamaCppSettings.model_validate({"kind": "llamacpp", "path": path.name} | how), tmp_path
    )
    assert isinstance(built, LlamaCpp)
    return built


TAGGED = [b"<think>", b"\nIt is money", b", or is it", b" shipping?\n", b"</think>", b"\n\n", b"bill", b"ing"]


@pytest.mark.parametrize("control", [(), (b"<think>", b"</think>")])
async def test_in_this_process(tmp_path: Path, control: tuple[bytes, ...]) -> None:
    """The tags may be text, as in most files, or control tokens, which other texts leave out."""
    nano, shown = local(tmp_path, TAGGED, control=control), list[str]()
    reply = await nano.ask(Prompt("hello"), shown.append)
    await nano.aclose()
    assert "".join(shown) == reply.text == "billing"
    assert reply.meta["thinking"] == "It is money, or is it shipping?"
    assert [token.text for token in reply.tokens] == ["bill", "ing"]
    assert reply.tokens_out == len(TAGGED)


async def test_a_prompt_that_opens_it_in_this_process(tmp_path: Path) -> None:
    template = CHATML.replace("assistant\n'", "assistant\n<think>\n'")
    nano, shown = local(tmp_path, TAGGED[1:], template=template), list[str]()
    reply = await nano.ask(Prompt("hello"), shown.append)
    assert "".join(shown) == reply.text == "billing"
    assert [token.text for token in reply.tokens] == ["bill", "ing"]
    cut = local(tmp_path, TAGGED[1:], template=template, max_tokens=3)
    with pytest.raises(ModelError, match="no answer after its thinking"):
        await cut.ask(Prompt("hello"), shown.append)
    assert "".join(shown) == "billing"
    await nano.aclose()
    await cut.aclose()


async def test_a_grammar_binds_the_answer_whatever_the_prompt_opens(tmp_path: Path) -> None:
    template = CHATML.replace("assistant\n'", "assistant\n<think>\n'")
    nano = local(tmp_path, TAGGED, template=template, grammar='root ::= "yes"')
    reply = await nano.ask(Prompt("hello"))
    await nano.aclose()
    assert (reply.text, "thinking" in reply.meta) == ("yes", False)


async def test_calls_of_tools_after_the_thinking(tmp_path: Path) -> None:
    call = b'<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    template = CHATML + "{% if tools %}{{ tools }}{% endif %}"
    nano = local(tmp_path, [*TAGGED[:6], call], template=template)
    request = Request(text="go", tools=(Tool(name="f", parameters={"type": "object"}),))
    reply = await nano.ask(Prompt(request))
    await nano.aclose()
    assert [(made.name, made.arguments) for made in reply.tool_calls] == [("f", '{"x": 1}')]
    assert [token.text for token in reply.tokens] == [call.decode()]


async def test_early_exit_does_not_judge_the_thinking(tmp_path: Path) -> None:
    """Its tokens are in the statistics so far, and not in those of the answer."""
    nano = local(tmp_path, TAGGED)
    reply = await nano.ask(Prompt("hello", stop_early=lambda _: True))
    assert (reply.text, reply.meta["finish_reason"]) == ("billing", "stop")
    (other := tmp_path / "other").mkdir()
    plain = local(other, [b"bill", b"ing", b" it", b" is"])
    reply = await plain.ask(Prompt("hello", stop_early=lambda _: True))
    assert (reply.text, reply.meta["finish_reason"]) == ("bill", "early_exit")
    await nano.aclose()
    await plain.aclose()


@pytest.mark.parametrize("kept", [True, False])
async def test_the_trace_keeps_it_with_the_texts(tmp_path: Path, server: Loopback, kept: bool) -> None:
    server.answers = [stream([FORMS[0], "billing"])]
    graph = tmp_path / "g.yaml"
    graph.write_text(
        f"name: g\ntrace: {{store_text: {str(kept).lower()}}}\n"
        f"models:\n  m: {{kind: openai, model: m, url: '{server.url}', key_env: null, local: true}}\n"
        "stages:\n  - {name: only, ask: [m]}\n"
    )
    async with Cascade.load(graph, trace_db=f"sqlite:///{tmp_path}/t.db") as cascade:
        result = await cascade.ainvoke("I was charged twice")
    with TraceStore(f"sqlite:///{tmp_path}/t.db") as store:
        stored = store.get(result.run)
    assert result.trace[0].calls[0].meta["thinking"] == THOUGHT
    assert stored.trace[0].calls[0].meta.get("thinking") == (THOUGHT if kept else None)


async def test_json_by_the_models_own_schema_is_invalid_where_it_was_cut(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["billing"]}}, "required": ["label"]}
    whole = local(tmp_path, TAGGED, output_schema=schema)
    cut = local(tmp_path, TAGGED, output_schema=schema, max_tokens=3)
    replies = [await model.ask(Prompt("hello")) for model in (whole, cut)]
    assert ["invalid" in reply.meta for reply in replies] == [False, True]
    await whole.aclose()
    await cut.aclose()
