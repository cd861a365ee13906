"""Tools and JSON for local models: what they are told, what binds them, how their calls are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf

from cascade.confidence.validity import measured, problem
from cascade.engine.template import ChatTemplate
from cascade.formats.gbnf import check_grammar
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp
from cascade.models.llamacpp.structured import INSTRUCTION_BYTES, calls_grammar, read_calls, structured_prompt
from cascade.records import Message, Request, Tool, ToolCall

ADD = Tool(name="add", parameters={"properties": {"a": {"type": "integer"}}, "required": ["a"]})
NOW = Tool(name="now", description="the time")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML
WITH_CALLS = WITH_TOOLS.replace(
    "message['content']", "message['content'] + (message.tool_calls or []) | tojson"
)
PLAIN = ChatTemplate(CHATML)
CONFIG = LlamaCppSettings(kind="llamacpp", path="x.gguf", system="Be kind.")


@pytest.mark.parametrize(
    ("text", "words", "calls"),
    [
        ("Hello.", "Hello.", []),
        ('{"name": "add", "arguments": {"a": 1}}', "", [("add", '{"a": 1}')]),
        ('{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
        ('{"name": "add", "arguments": "{\\"a\\": 1}"}', "", [("add", '{"a": 1}')]),
        ('{"type": "function", "function": {"name": "now"}}', "", [("now", "{}")]),
        ('```json\n[{"name": "now"}, {"name": "add", "arguments": {"a": 2}}]\n```', "",
         [("now", "{}"), ("add", '{"a": 2}')]),
        ('[TOOL_CALLS] [{"name": "now", "arguments": {}}]', "", [("now", "{}")]),
        ('Let me see.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', "Let me see.",
         [("now", "{}")]),
        ('<tool_call>{"name": "add", "arguments": {"a": 1', "", [("add", '{"a": 1')]),
        ("<tool_call>add(1)</tool_call>", "", [("", "add(1)")]),
        ('{"city": "Lund"}', '{"city": "Lund"}', []),
        ('{"name": 7}', '{"name": 7}', []),
        ("[]", "[]", []),
        ("[" * 5000, "[" * 5000, []),
    ],
)  # fmt: skip
def test_calls_are_read_as_models_write_them(text: str, words: str, calls: list[tuple[str, str]]) -> None:
    found, made = read_calls(text, Prompt(Request(text="x", tools=(ADD, NOW))))
    assert (found, [(call.name, call.arguments) for call in made]) == (words, calls)
    assert read_calls(text, Prompt("x")) == (text, ())
    assert read_calls(text, Prompt(Request(text="x", tools=(ADD,), tool_choice="none"))) == (text, ())


def test_a_demanded_call_that_broke_off_is_an_invalid_call() -> None:
    prompt = Prompt(Request(text="x", tools=(ADD,), tool_choice="add"))
    _, calls = read_calls('{"name": "add", "arguments": {"a": ', prompt)
    assert [(call.name, call.arguments) for call in calls] == [("add", '{"a":')]


def test_references_in_several_tools_keep_their_meaning() -> None:
    number = {"properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"], "$defs": {"n": {"const": 7}}}
    text = {**number, "$defs": {"n": {"const": "seven"}}}
    grammar = calls_grammar([Tool(name="one", parameters=number), Tool(name="two", parameters=text)])
    check_grammar(grammar)
    assert '"7"' in grammar
    assert "seven" in grammar


def test_a_schema_without_a_grammar_leaves_any_object_free() -> None:
    odd = Tool(name="odd", parameters={"properties": {"a": {"multipleOf": 3}}})
    check_grammar(calls_grammar([odd, ADD]))
    prompt = Prompt(Request(text="x", output_schema={"type": "object", "minProperties": 2}))
    form = structured_prompt(CONFIG, prompt, PLAIN)
    assert form.grammar is not None
    check_grammar(form.grammar)


def test_what_is_said_around_schemas_is_bounded() -> None:
    bare = len(b"x")
    for prompt in (
        Prompt(Request(text="x", output_schema={})),
        Prompt(Request(text="x", tools=(NOW,))),
        Prompt(Request(text="x", tools=(NOW,), tool_choice="required")),
    ):
        said = structured_prompt(CONFIG, prompt, PLAIN).messages[-1].content
        assert len(said.encode()) - bare < INSTRUCTION_BYTES + len(NOW.model_dump_json())


def test_a_template_without_tools_gets_calls_and_results_as_text() -> None:
    said = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="time?"),
        Message(role="assistant", tool_calls=(ToolCall(id="c12345678", name="now", arguments=""),)),
        Message(role="tool", content="noon", tool_call_id="c12345678"),
    )
    prompt = Prompt(Request(text="time?", messages=said, tools=(NOW,)))
    form = structured_prompt(CONFIG, prompt, PLAIN)
    assert [message.role for message in form.messages] == ["system", "user", "assistant", "user"]
    assert form.messages[0].content == "Be kind.\n\nBe brief."
    assert form.messages[2].content == '{"name": "now", "arguments": {}}'
    assert form.messages[3].content.startswith("Result of now: noon\n\nYou may call")
    native = structured_prompt(CONFIG, prompt, ChatTemplate(WITH_CALLS))
    assert (native.messages[1:], native.tools, native.grammar) == (said[1:], (NOW,), None)


def local(folder: Path, template: str | None = CHATML, **settings: Any) -> LlamaCpp:
    made = {key: settings.pop(key) for key in ("says", "seed", "n_ctx", "ends") if key in settings}
    make_gguf(folder / "m.gguf", chat_template=template, **{"n_ctx": 4096, **made})
    return LlamaCpp("m", LlamaCppSettings(kind="llamacpp", path="m.gguf", **settings), folder)


@pytest.mark.parametrize("seed", range(3))
async def test_a_grammar_makes_even_a_random_model_call_a_tool(tmp_path: Path, seed: int) -> None:
    properties = {"colour": {"enum": ["red", "blue"]}, "many": {"type": "boolean"}}
    parameters = {"properties": properties, "required": ["colour", "many"], "additionalProperties": False}
    exact = Tool(name="pick", parameters=parameters)
    model = local(tmp_path, seed=seed, max_tokens=300, temperature=1.0)
    asked = Request(text="choose", tools=(exact,), tool_choice="required")
    reply = await model.ask(Prompt(asked))
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
    answer = await model.ask(Prompt(Request(text="sure?", output_schema=schema)))
    await model.aclose()
    assert problem(asked, reply) is None
    found = measured(asked, reply)["fields"]
    assert [entry["field"] for entry in found] == ["/name", "/arguments/colour", "/arguments/many"]
    assert all(entry["min"] <= entry["mean"] <= 0.0 for entry in found)
    assert isinstance(json.loads(answer.text)["sure"], bool)


@pytest.mark.parametrize("template", [CHATML, WITH_TOOLS])
async def test_a_model_may_call_or_speak(tmp_path: Path, template: str) -> None:
    call = '{"name": "add", "arguments": {"a": 1}}'
    model = local(tmp_path, template, says=call)
    reply = await model.ask(Prompt(Request(text="1?", tools=(ADD, NOW))))
    await model.aclose()
    assert (reply.text, [made.name for made in reply.tool_calls]) == ("", ["add"])
    (tmp_path / "words").mkdir()
    model = local(tmp_path / "words", template, says="It is noon.")
    reply = await model.ask(Prompt(Request(text="time?", tools=(NOW,))))
    await model.aclose()
    assert (reply.text, reply.tool_calls) == ("It is noon.", ())


async def test_a_conversation_is_read_through_the_template_within_its_worst_case(tmp_path: Path) -> None:
    said = (
        Message(role="user", content="what is 1 + 1? <|im_end|>"),
        Message(role="assistant", tool_calls=(ToolCall(id="c", name="add", arguments='{"a": 1}'),)),
        Message(role="tool", content="2", tool_call_id="c"),
        Message(role="user", content="and now?"),
    )
    prompt = Prompt(Request(text="and now?", messages=said, tools=(ADD, NOW), output_schema=SCHEMA))
    for template in (CHATML, WITH_TOOLS):
        model = local(tmp_path, template, says="Two.", system="Be kind.")
        alone = await model.ask(Prompt("and now?"))
        whole = await model.ask(prompt)
        most = model.worst_case(prompt)
        await model.aclose()
        assert alone.tokens_in < whole.tokens_in <= most[0]


async def test_a_file_without_a_template_takes_one_message_only(tmp_path: Path) -> None:
    model = local(tmp_path, None, says='{"city":"Lund"}')
    reply = await model.ask(Prompt(Request(text="where?", output_schema=SCHEMA)))
    assert json.loads(reply.text) == {"city": "Lund"}
    with pytest.raises(Exception, match="no chat template for 2 messages"):
        await model.ask(Prompt(Request(text="b", messages=(Message(role="user", content="a"),) * 2)))
    await model.aclose()
