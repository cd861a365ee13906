"""Tools and JSON for a local model: its instructions, the grammar of its answer, and how calls are read.

A call is written `{"name": …, "arguments": {…}}`. Three ways, by the request and by the file's chat template:

- JSON (`output_schema`): the schema stands at the end of the last user message, and a grammar made of it
  binds the answer.
- A tool must be called (`tool_choice` required, or a name): a grammar of the tools' schemas binds the answer
  to one call.
- A tool may be called (auto): a template with a place for tools shows them its own way, the answer is free,
  and calls are read in the ways that open models write them. Without such a place the tools stand at the
  end of the last user message, and a grammar allows one call or words that do not begin with a brace.

A schema that no grammar can be made of leaves any JSON object free; whether it fits is judged afterwards, as
every answer is (`cascade.confidence.validity`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cascade.engine.features import TemplateFeatures
from cascade.errors import ConfigError
from cascade.formats.json_grammar import schema_grammar
from cascade.models.base import Prompt
from cascade.models.prompted import Prompted
from cascade.models.prompts import call_id, conversation, with_roles
from cascade.records import Message, Tool, ToolCall
from cascade.requests import parameters_of

if TYPE_CHECKING:
    from cascade.engine.template import ChatTemplate

INSTRUCTION_BYTES = 512  # at most, of the instructions around schemas and tools; a test checks it
_SHAPE = '{"name": "...", "arguments": {...}}'
_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_LEADS = ("[TOOL_CALLS]", "<|python_tag|>", "```json", "```")
_NAME = re.compile(r'"name"\s*:\s*"([^"]*)"')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*', re.DOTALL)


class StructuredPrompt(NamedTuple):
    """What a model is asked with: messages and tools for its template, and the grammar of its answer."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    grammar: str | None = None


def structured_prompt(
    config: Prompted, prompt: Prompt, template: ChatTemplate | None = None
) -> StructuredPrompt:
    """Return how a model answers `prompt`, whose file has this chat template.

    The template shows tools, calls and results its own way where it can. Where it has no place for them, or
    refuses this conversation with them, they become text.
    """
    features = TemplateFeatures(tools=False) if template is None else template.features
    if template is not None and features.tools and _has_tools(prompt):
        form = _native(config, prompt, features)
        if template.problem(form.messages, form.tools) is None:
            return form
    messages = with_roles(_plain(conversation(config, prompt, features)), features)
    if tools := _demanded(prompt):
        instruction = f"Answer with a call of one of these functions, as JSON alone, {_SHAPE}:"
        messages = _with_instruction(messages, instruction, _described(tools))
        return StructuredPrompt(messages, (), calls_grammar(tools))
    if tools := _offered(prompt):
        instruction = f"You may call one of these functions, then with JSON alone, {_SHAPE}. Else use words."
        messages = _with_instruction(messages, instruction, _described(tools))
        return StructuredPrompt(messages, (), _or_words(calls_grammar(tools)))
    return _as_json(messages, prompt)


def _native(config: Prompted, prompt: Prompt, features: TemplateFeatures) -> StructuredPrompt:
    """Return the form for a template that shows tools itself."""
    messages = conversation(config, prompt, features)
    if tools := _demanded(prompt):
        return StructuredPrompt(messages, tools, calls_grammar(tools))
    if tools := _offered(prompt):
        return StructuredPrompt(messages, tools)
    return _as_json(messages, prompt)


def _as_json(messages: tuple[Message, ...], prompt: Prompt) -> StructuredPrompt:
    if prompt.output_schema is None:
        return StructuredPrompt(messages)
    instruction = "Answer with JSON alone, which satisfies this JSON Schema:"
    schema = json.dumps(prompt.output_schema, ensure_ascii=False)
    shown = _with_instruction(messages, instruction, schema)
    return StructuredPrompt(shown, (), _grammar_of(prompt.output_schema))


def _offered(prompt: Prompt) -> tuple[Tool, ...]:
    return prompt.tools if prompt.tool_choice != "none" else ()


def _demanded(prompt: Prompt) -> tuple[Tool, ...]:
    """Return the tools of which one must be called."""
    if prompt.tool_choice == "auto":
        return ()
    return tuple(tool for tool in _offered(prompt) if prompt.tool_choice in ("required", tool.name))


def _has_tools(prompt: Prompt) -> bool:
    return bool(_offered(prompt)) or any(message.tool_calls for message in prompt.messages)


def calls_grammar(tools: Sequence[Tool]) -> str:
    """Return the grammar (GBNF) of one call of one of `tools`."""
    shapes = []
    for index, tool in enumerate(tools):
        parameters: dict[str, Any] = parameters_of(tool)
        try:
            schema_grammar(parameters)
        except ConfigError:
            parameters = {"type": "object"}
        parameters = _moved(parameters, f"#/anyOf/{index}/properties/arguments")
        properties = {"name": {"const": tool.name}, "arguments": parameters}
        shapes.append({"type": "object", "properties": properties, "required": list(properties)})
    return schema_grammar({"anyOf": shapes})


def read_calls(text: str, prompt: Prompt) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the words and the tool calls of an answer to a prompt that offers tools.

    Calls are read in `<tool_call>` blocks, after `[TOOL_CALLS]` or `<|python_tag|>`, and where the whole
    answer is one call or a list of them, within a Markdown fence or without. The arguments of a call that
    broke off stay as they are, for validity to judge. The rest of the answer is text.
    """
    if not prompt.tools or prompt.tool_choice == "none":
        return text, ()
    blocks = _BLOCK.findall(text)
    words = _BLOCK.sub("", text).strip() if blocks else ""
    calls: list[tuple[str, str]] = []
    for block in blocks or [_bare(text)]:
        read = _read(block)
        if read is None and (blocks or prompt.tool_choice != "auto"):
            read = [_broken(block)]
        calls += read or []
    if not calls:
        return text, ()
    turn = len(prompt.messages)  # ids differ over the turns of a conversation
    return words, tuple(
        ToolCall(id=call_id(turn, prompt.sample, index, name), name=name, arguments=arguments)
        for index, (name, arguments) in enumerate(calls)
    )


def _read(text: str) -> list[tuple[str, str]] | None:
    """Return name and arguments of the calls that the JSON `text` is; None if it is not one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = []
    for call in value if isinstance(value, list) and value else [value]:
        inner = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            return None
        arguments = inner.get("arguments", inner.get("parameters", {}))
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append((inner["name"], written))
    return calls


def _broken(text: str) -> tuple[str, str]:
    """Return what can be read of a call that is not valid JSON."""
    name, start = _NAME.search(text), _ARGUMENTS.search(text)
    return (name[1] if name else ""), (text[start.end() :] if start else text)


def _bare(text: str) -> str:
    text = text.strip()
    for lead in _LEADS:
        text = text.removeprefix(lead).strip()
    return text.removesuffix("```").strip()


def _grammar_of(schema: dict[str, Any]) -> str:
    try:
        return schema_grammar(schema)
    except ConfigError:
        kind = schema.get("type")
        return schema_grammar({"type": "object"} if kind in ("object", None) else {})


def _or_words(calls: str) -> str:
    call = calls.replace("root ::=", "call ::=", 1)
    return f"root ::= words | call\nwords ::= [^{{] any*\nany ::= [^\\x01]\n{call}"


def _moved(schema: Any, pointer: str) -> Any:
    """Return `schema` with its references rewritten for its place at `pointer` of a larger one."""
    if isinstance(schema, list):
        return [_moved(item, pointer) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: pointer + inner[1:] if key == "$ref" and isinstance(inner, str) else _moved(inner, pointer)
        for key, inner in schema.items()
    }


def _described(tools: Sequence[Tool]) -> str:
    return "\n".join(
        json.dumps(tool.model_dump() | {"parameters": parameters_of(tool)}, ensure_ascii=False)
        for tool in tools
    )


def _with_instruction(messages: tuple[Message, ...], instruction: str, data: str) -> tuple[Message, ...]:
    """Return `messages` with an instruction at the end of the last user message."""
    changed = list(messages)
    last = max(index for index, message in enumerate(changed) if message.role == "user")
    content = f"{changed[last].content}\n\n{instruction}\n{data}"
    changed[last] = changed[last].model_copy(update={"content": content})
    return tuple(changed)


def _plain(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return `messages` with calls and results as text, for a template without tools."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    plain = []
    for message in messages:
        if message.role == "tool":
            name = names.get(message.tool_call_id or "", "the function")
            plain.append(Message(role="user", content=f"Result of {name}: {message.content}"))
        elif message.tool_calls:
            calls = (
                f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments.strip() or "{}"}}}'
                for call in message.tool_calls
            )
            content = "\n".join(filter(None, (message.content, *calls)))
            plain.append(Message(role="assistant", content=content))
        else:
            plain.append(message)
    return tuple(plain)
