"""A chat template: what it can do, and a conversation rendered through it. llama.cpp is not needed for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from markupsafe import escape

from cascade.engine.features import TemplateFeatures
from cascade.engine.sandbox import Meter, Sandbox, TemplateLimitError
from cascade.errors import ModelError
from cascade.records import Message, Tool, ToolCall

# Bytes that a chat template may add: in all, for each message, and for each byte of the tools' JSON, which
# some templates indent. This bounds the price of a call before it is made.
TEMPLATE_BYTES = 16384
MESSAGE_BYTES = 256
TOOL_FACTOR = 4
# A mark stands for a text from outside. Its quotation mark shows how the template writes texts: as they are,
# within JSON (once: one backslash, within JSON in JSON: three, and so on), or escaped for HTML.
_MARK = 'cascade{}"text'
_MARKS = re.compile(r"""cascade([0-9]+)(\\*"|&#34;|&quot;)text""")
_ANY_CASE = re.compile(_MARKS.pattern, re.IGNORECASE)
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependentRequired")
_DATA = ("enum", "const", "default", "examples", "example", "required")
_KEYWORDS = frozenset((
    *_NAMED, *_DATA, "type", "title", "description", "items", "prefixItems", "contains", "additionalItems",
    "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "propertyNames", "anyOf", "oneOf",
    "allOf", "not", "if", "then", "else", "format", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
    "minContains", "maxContains", "minProperties", "maxProperties", "$ref", "$id", "$schema", "$comment",
    "nullable", "deprecated", "readOnly", "writeOnly", "strict",
))  # fmt: skip
_NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)


class ChatTemplate:
    """A GGUF file's chat template, compiled to run in a sandbox (`cascade.engine.sandbox`)."""

    def __init__(self, source: str, begin: str = "", end: str = "") -> None:
        """Compile `source`; `begin` and `end` are the texts of the file's bos and eos tokens.

        Raises:
            ModelError: it is not valid Jinja.
        """
        self._fixed = {"bos_token": begin, "eos_token": end, "add_generation_prompt": True}
        self._sandbox = Sandbox()
        try:
            self._template = self._sandbox.from_string(source)
        except Exception as error:  # it is foreign code: whatever it does to Jinja's compiler
            raise ModelError(f"its chat template is broken: {error}; download the file again") from error

    @cached_property
    def features(self) -> TemplateFeatures:
        """What the template can do, found out by rendering small conversations."""
        return _probe(self)

    def render(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None, max_bytes: int
    ) -> str:
        """Return the prompt for `messages`, up to the start of the answer.

        Raises:
            ModelError: the template fails, refuses the messages, or writes more than `max_bytes`.
        """
        parts, size = [], 0
        self._sandbox.meter = Meter(max_bytes)
        try:
            for part in self._template.generate(self._fixed, messages=list(messages), tools=tools):
                size += len(part.encode())
                if size > max_bytes:
                    break
                parts.append(part)
        except (TemplateLimitError, MemoryError) as error:
            why = str(error) or "it uses too much memory"
            raise ModelError(f"its chat template is stopped: {why}; use another file") from error
        except Exception as error:  # a template is foreign code: its failure is a failed call
            raise ModelError(
                f"its chat template refuses the messages: {error}; check 'system' and the roles"
            ) from error
        if size > max_bytes:
            raise ModelError(
                f"its chat template makes over {max_bytes} bytes of these messages; the template is broken"
            )
        return "".join(parts)

    def render_input(self, source: TemplateInput, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        """Return the prompt for a conversation in the form that `source` gives it.

        Raises:
            ModelError: as for `render`; or the template leaves out the tools.
        """
        shown, offered = source.messages(messages), [source.tool(tool) for tool in tools]
        tool_bytes = len(json.dumps(offered).encode()) if offered else 0
        overhead = TEMPLATE_BYTES + MESSAGE_BYTES * len(messages) + TOOL_FACTOR * tool_bytes
        max_bytes = overhead + len(json.dumps(shown, ensure_ascii=False).encode())
        none: list[dict[str, Any]] | None = [] if source.features.empty_tools else None
        rendered = self.render(shown, offered or none, max_bytes)
        if offered and rendered == self.render(shown, none, max_bytes):
            raise ModelError(
                "its chat template has no place for tools; use another model or ask without tools"
            )
        return rendered

    def problem(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        features: TemplateFeatures | None = None,
    ) -> str | None:
        """Return why the template cannot show all of a conversation and its tools; None if it can."""
        source = TemplateInput(self.features if features is None else features, marked=True)
        try:
            source.check_shown(self.render_input(source, messages, tools))
        except ModelError as error:
            return str(error)
        return None


def _probe(template: ChatTemplate) -> TemplateFeatures:
    """Find out what `template` can do; what nothing makes work is left as it is by default."""
    user = Message(role="user", content="Will it rain?")
    system = Message(role="system", content="Be brief.")
    answer = Message(role="assistant", content="Where?")
    call = ToolCall(id="abcdefghi", name="weather", arguments='{"town": "Ulm"}')
    town = {"type": "object", "properties": {"town": {"type": "string"}}}
    tool = Tool(name="weather", description="Tells the weather.", parameters=town)
    exchange = (
        user,
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="Sun.", tool_call_id=call.id),
    )

    def works(features: TemplateFeatures, *messages: Message, tools: Sequence[Tool] = ()) -> bool:
        return template.problem(messages, tools, features) is None

    features = TemplateFeatures()
    forms = [features, replace(features, empty_tools=True)]
    forms += [replace(form, parts=True) for form in forms]
    working = next((form for form in forms if works(form, user)), None)
    if working is None:
        return features
    features = working
    alternates = not (works(features, user, user) and works(features, answer, user))
    features = replace(features, system=works(features, system, user), alternates=alternates)
    forms = [features, replace(features, text_arguments=True)]
    native = next((form for form in forms if works(form, *exchange, tools=(tool,))), None)
    return native or replace(features, tools=False)


class TemplateInput:
    """Converts messages and tools to the form that templates read; if `marked`, with marks in place of texts.

    Every text of the conversation and the tools is from outside, names, keys and enumerations included. What
    is left of them are roles, ids, numbers, and the keywords and types of JSON Schema.

    Attributes:
        features: what the template takes.
        texts: the text that each mark stands for.
    """

    def __init__(self, features: TemplateFeatures, *, marked: bool) -> None:
        self.features = features
        self._marked = marked
        self.texts: list[str] = []
        self._shown: set[int] = set()  # marks of texts that a template must not leave out
        self._names: dict[str, int] = {}  # the mark of each name: the same wherever it stands

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages; a tool's result includes the tool's name, which some templates show."""
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        return [self._message(message, names) for message in messages]

    def tool(self, tool: Tool) -> dict[str, Any]:
        """Return the definition of a tool."""
        function = {
            "name": self._name(tool.name),
            "description": self._text(tool.description),
            "parameters": self._schema(tool.parameters),
        }
        return {"type": "function", "function": function}

    def check_shown(self, rendered: str) -> None:
        """Raise ModelError if `rendered` leaves out a text."""
        seen = {int(match[1]) for match in _ANY_CASE.finditer(rendered)}  # a template may change case
        for number in sorted(self._shown - seen):
            raise ModelError(
                f"its chat template leaves out {self.texts[number][:40]!r}; "
                "use another model, or fewer roles and tools"
            )

    def split(self, rendered: str) -> list[tuple[str, bool]] | None:
        """Return the pieces of a marked text: the template's, and with True those from outside, as written.

        None if a text that must be shown is not among them, because the template has changed its mark.
        """
        parts = _MARKS.split(rendered)
        pieces, seen = [(parts[0], False)], set()
        for number, quote, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            seen.add(int(number))
            pieces += [(_written(self.texts[int(number)], quote), True), (after, False)]
        return pieces if self._shown <= seen else None

    def _message(self, message: Message, names: dict[str, str]) -> dict[str, Any]:
        text = self._text(message.content)
        content: Any = [{"type": "text", "text": text}] if self.features.parts else text
        shown: dict[str, Any] = {"role": message.role, "content": content}
        if message.tool_calls:
            shown["tool_calls"] = [
                {
                    "id": _plain(call.id),
                    "type": "function",
                    "function": {"name": self._name(call.name), "arguments": self._arguments(call.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            shown["tool_call_id"] = _plain(message.tool_call_id)
            if message.tool_call_id in names:
                shown["name"] = self._name(names[message.tool_call_id])
        return shown

    def _text(self, text: str) -> str:
        """Return `text`, which the template must show, or its mark."""
        if not self._marked or not text.strip():
            return text
        self._shown.add(len(self.texts))
        return self._mark(text)

    def _name(self, text: str) -> str:
        """Return `text`, which the template may compare and leave out, or its mark."""
        if not self._marked or not text.strip():
            return text
        if text not in self._names:
            self._names[text] = len(self.texts)
            return self._mark(text)
        return _MARK.format(self._names[text])

    def _mark(self, text: str) -> str:
        self.texts.append(text)
        return _MARK.format(len(self.texts) - 1)

    def _arguments(self, text: str) -> Any:
        """Return a call's arguments as the template expects them: as text, or as the object that it is."""
        if self.features.text_arguments:
            return self._text(text)
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            arguments = None
        return _mapped(arguments, self._text, self._name) if isinstance(arguments, dict) else self._text(text)

    def _schema(self, schema: Any) -> Any:
        """Return a JSON Schema with names in place of everything that is not a keyword or a type."""
        if isinstance(schema, list):
            return [self._schema(item) for item in schema]
        if not isinstance(schema, dict):
            return self._name(schema) if isinstance(schema, str) and schema not in _TYPES else schema
        return {
            key if key in _KEYWORDS else self._name(key): self._under(key, value)
            for key, value in schema.items()
        }

    def _under(self, key: str, value: Any) -> Any:
        """Return the value of a schema's keyword `key`."""
        if key == "description" and isinstance(value, str):
            return self._text(value)
        if key in _NAMED and isinstance(value, dict):
            return {self._name(name): self._schema(inner) for name, inner in value.items()}
        if key in _DATA or key not in _KEYWORDS:
            return _mapped(value, self._name, self._name)
        return self._schema(value)


def _mapped(value: Any, text: Callable[[str], str], key: Callable[[str], str]) -> Any:
    """Return JSON with all its texts and keys changed."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {key(name): _mapped(item, text, key) for name, item in value.items()}
    return [_mapped(item, text, key) for item in value] if isinstance(value, list) else value


def _written(text: str, quote: str) -> str:
    """Return `text` as the template writes it, where it writes a quotation mark as `quote`."""
    if quote.startswith("&"):
        return str(escape(text))
    for _ in range(len(quote).bit_length() - 1):  # 1, 2, 4 … characters: 0, 1, 2 times within JSON
        text = _in_json(text)
    return text


def _in_json(text: str) -> str:
    """Return `text` as written inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _plain(name: str) -> str:
    """Return the id of a tool call, which the template reads without a mark: some count its letters."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"tool name or call id {name[:80]!r} is not 1 to 128 letters, digits and _.:/-")
    return name
