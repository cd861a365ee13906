"""Whatever roles and ids a conversation has, every kind of chat template and every endpoint can take it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import CHATML, make_gguf
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.config.load import load_graph
from cascade.engine.features import TemplateFeatures
from cascade.engine.template import ChatTemplate, TemplateInput
from cascade.errors import ConfigError
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.models.llamacpp.model import LlamaCpp
from cascade.models.llamacpp.structured import read_calls, structured_prompt
from cascade.models.llamacpp.templates import template_problems
from cascade.models.prompts import ENDPOINT, conversation, single_message
from cascade.records import Message, Request, Tool, ToolCall
from cascade.requests import build_request

CALLS = "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
PLAIN = "{% for message in messages %}<{{ message.role }}>{{ message.content }}" + CALLS + "{% endfor %}"
TURNS = """{%- for message in messages | rejectattr('role', 'equalto', 'tool') -%}
{%- if not message.tool_calls and (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('roles must alternate') }}{%- endif -%}{%- endfor -%}"""
NO_TOOL_ROLE = """{%- for message in messages -%}{%- if message.role not in ['user', 'assistant'] -%}
{{ raise_exception('unknown role ' + message.role) }}{%- endif -%}{%- endfor -%}"""
# One template for each thing that real templates demand, in their own words.
TEMPLATES = {
    "everything": TOOLS + PLAIN,
    "no tools": CHATML,
    "no system role": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + TOOLS + PLAIN,
    "system left out": TOOLS + PLAIN.replace("<{{", "{% if message.role != 'system' %}<{{").replace(
        "{% endfor %}{% endfor %}", "{% endfor %}{% endif %}{% endfor %}"
    ),
    "one system message, first": "{% for m in messages[1:] %}{% if m.role == 'system' %}"
    "{{ raise_exception('system first') }}{% endif %}{% endfor %}" + TOOLS + PLAIN,
    "turns": NO_TOOL_ROLE + TURNS + PLAIN,
    "turns, system first": "{% if messages[0].role == 'system' %}{{ messages[0].content }}"
    "{% set messages = messages[1:] %}{% endif %}" + TURNS + TOOLS + PLAIN,
    "parts": TOOLS + PLAIN.replace(
        "{{ message.content }}", "{% for part in message.content %}{{ part.text }}{% endfor %}"
    ),
    "arguments as text": TOOLS + PLAIN.replace(
        "{{ call.function | tojson }}", "{{ call.function.name + ': ' + call.function.arguments }}"
    ),
    "tools is a list": "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{{ '' if tools | length }}"
    + PLAIN,
    "nine letters and digits": "{% for m in messages %}{% for call in m.tool_calls or [] %}"
    "{% if call.id | length != 9 or not call.id.isalnum() %}{{ raise_exception('id') }}{% endif %}"
    "{% endfor %}{% endfor %}" + TOOLS + PLAIN,
    "one call at a time": "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length > 1 %}"
    "{{ raise_exception('single calls only') }}{% endif %}{% endfor %}" + TOOLS + PLAIN,
    "words or calls": TOOLS + PLAIN.replace(
        "{{ message.content }}", "{{ message.content if not message.tool_calls }}"
    ),
}  # fmt: skip
ADD = Tool(name="add", description="adds", parameters={"properties": {"a": {"type": "integer"}}})
words = st.text('abc é"{}', min_size=1, max_size=8).map(lambda text: f"«{text}»")
ids = st.one_of(st.text("ab1_|:-. é", max_size=12), st.sampled_from(["", "call_0", "abcdefgh1", "x" * 200]))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Draw messages that a request may hold: any order of roles, odd and repeated ids, parallel calls."""
    said: list[Message] = []
    for kind in draw(st.lists(st.sampled_from(["system", "user", "assistant", "calls"]), max_size=6)):
        if kind != "calls":
            said.append(Message(role=kind, content=draw(words)))  # type: ignore[arg-type]
            continue
        names = draw(st.lists(ids, min_size=1, max_size=2, unique=True))
        calls = tuple(
            ToolCall(id=name, name="add", arguments=json.dumps({"a": draw(words)}, ensure_ascii=False))
            for name in names
        )
        said.append(Message(role="assistant", content=draw(st.just("") | words), tool_calls=calls))
        said += [Message(role="tool", content=draw(words), tool_call_id=name) for name in names]
    last = draw(st.booleans()) and said and said[-1].role == "tool" and any(m.role == "user" for m in said)
    return tuple(said) if last else (*said, Message(role="user", content=draw(words)))


def texts(messages: tuple[Message, ...]) -> list[str]:
    """Return all that was said, with the values in calls."""
    found = [message.content for message in messages if message.content]
    return found + [json.loads(call.arguments)["a"] for message in messages for call in message.tool_calls]


def written(text: str) -> set[str]:
    """Return the ways in which a template may write `text`."""
    once = json.dumps(text, ensure_ascii=False)[1:-1]
    return {text, once, json.dumps(once, ensure_ascii=False)[1:-1]}


@pytest.mark.parametrize("kind", TEMPLATES)
@settings(max_examples=25)
@given(said=conversations(), offered=st.booleans(), system=st.none() | st.just("«Be kind.»"))
def test_every_conversation_reaches_every_template_whole(
    kind: str, said: tuple[Message, ...], offered: bool, system: str | None
) -> None:
    template = ChatTemplate(TEMPLATES[kind])
    config = LlamaCppSettings(kind="llamacpp", path="x.gguf", system=system)
    request = build_request(said, {"tools": [ADD] if offered else []})
    form = structured_prompt(config, Prompt(request), template)
    assert template.problem(form.messages, form.tools) is None
    source = TemplateInput(template.features, marked=False)
    rendered = template.render_input(source, form.messages, form.tools)
    assert all(any(way in rendered for way in written(text)) for text in texts(said))
    assert system is None or system in rendered
    assert len(template_problems_of(kind)) == 0


def template_problems_of(kind: str) -> list[str]:
    config = LlamaCppSettings(kind="llamacpp", path="x.gguf", system="Be kind.")
    return list(template_problems(ChatTemplate(TEMPLATES[kind]), config, None))


@settings(max_examples=200)
@given(said=conversations(), system=st.none() | st.just("«Be kind.»"))
def test_an_endpoint_gets_one_system_message_and_ids_of_nine_letters_and_digits(
    said: tuple[Message, ...], system: str | None
) -> None:
    config = LlamaCppSettings(kind="llamacpp", path="x.gguf", system=system)
    request = build_request(said)
    sent = conversation(config, Prompt(request), ENDPOINT)
    assert all(message.role != "system" for message in sent[1:])
    everything = "\n".join(message.content for message in sent)
    assert all(text in everything for text in (message.content for message in said))
    assert system is None or sent[0].content.startswith(system)
    made = [call.id for message in sent for call in message.tool_calls]
    assert all(re.fullmatch("[A-Za-z0-9]{9}", name) for name in made)
    assert len(set(made)) == len(made)
    # Each result still belongs to its call: the latest one of its id before it.
    assert answered(sent) == answered(said)
    again = conversation(LlamaCppSettings(kind="llamacpp", path="x.gguf"), Prompt(build_request(sent)))
    assert [m.tool_calls for m in again] == [m.tool_calls for m in sent]  # what fits is left alone


def answered(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    """Return the arguments of the call and the content, for each result."""
    calls: dict[str, str] = {}
    pairs = []
    for message in messages:
        calls |= {call.id: call.arguments for call in message.tool_calls}
        if message.role == "tool":
            pairs.append((calls[message.tool_call_id or ""], message.content))
    return pairs


def test_the_ids_of_a_local_models_calls_differ_over_calls_samples_and_turns() -> None:
    said = '[{"name": "add", "arguments": {}}, {"name": "add", "arguments": {}}]'
    turn = (Message(role="user", content="a"), Message(role="assistant", content="b"))
    found = []
    for messages in (turn[:1], (*turn, turn[0])):
        request = Request(text="a", messages=messages, tools=(ADD,))
        for sample in range(3):
            found += [call.id for call in read_calls(said, Prompt(request, sample))[1]]
    assert len(set(found)) == len(found) == 12
    assert all(re.fullmatch("[A-Za-z0-9]{9}", name) for name in found)


@pytest.mark.parametrize(
    ("features", "roles"),
    [
        (TemplateFeatures(), ["system", "user"]),
        (TemplateFeatures(system=False), ["user"]),
        (TemplateFeatures(alternates=True), ["system", "user"]),
    ],
)
def test_a_text_alone_keeps_the_graphs_system_message(features: TemplateFeatures, roles: list[str]) -> None:
    config = LlamaCppSettings(kind="llamacpp", path="x.gguf", system="Be kind.", prompt="Q: {text}")
    said = single_message(config, "why?", None, features)
    assert [message.role for message in said] == roles
    assert "\n\n".join(message.content for message in said) == "Be kind.\n\nQ: why?"


async def test_a_file_without_a_system_role_is_asked_all_the_same(tmp_path: Path) -> None:
    strict = TEMPLATES["no system role"]
    make_gguf(tmp_path / "m.gguf", chat_template=strict, n_ctx=2048, says="Fine.")
    config: dict[str, Any] = {"kind": "llamacpp", "path": "m.gguf", "system": "Be kind.", "n_ctx": 2048}
    free = LlamaCpp("m", LlamaCppSettings(**config), tmp_path)
    closed = LlamaCpp("m", LlamaCppSettings(**config, labels=["yes", "no"]), tmp_path)
    talk = (Message(role="system", content="In verse."), Message(role="user", content="hi"))
    assert (await free.ask(Prompt("hello"))).text == "Fine."
    assert (await free.ask(Prompt(build_request(talk)))).text == "Fine."
    assert (await closed.ask(Prompt("hello"))).labels is not None
    await free.aclose()
    await closed.aclose()


GRAPH = """
name: g
models:
  m: {{kind: llamacpp, path: m.gguf, n_ctx: 512, system: Be brief.{labels}}}
stages:
  - {{name: only, ask: [m]}}
"""


@pytest.mark.parametrize(
    ("template", "labels", "message"),
    [
        ("{{ raise_exception('no') }}", False, "a text cannot be asked: its chat template refuses"),
        ("{{ messages[0].content }}{{ messages[-1].content }}", False, "a conversation with a tool cannot"),
        ("{{ messages[0].content }}{{ messages[-1].content }}", True, None),
        ("{% for %}", True, "its chat template is broken"),
        ("hello", True, "a text cannot be asked: its chat template leaves out"),
        (CHATML, False, None),
    ],
)
def test_check_renders_the_template_with_the_graphs_prompts(
    tmp_path: Path, template: str, labels: bool, message: str | None
) -> None:
    make_gguf(tmp_path / "m.gguf", chat_template=template)
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH.format(labels=", labels: [a, b]" if labels else ""))
    if message is None:
        load_graph(path)
        return
    with pytest.raises(ConfigError, match=rf"g\.yaml:4: models\.m\.path: 'm\.gguf': {message}"):
        load_graph(path)
