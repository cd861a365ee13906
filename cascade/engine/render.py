"""Text or a conversation → prompt tokens: as plain text, or through the file's Jinja chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cascade.engine.weights import MAX_BYTES_PER_TOKEN, Weights
from cascade.errors import ModelError
from cascade.records import Message, Tool

IntArray = npt.NDArray[np.int32]

# Bytes that a chat template may add: in all, for each message, and for each byte of the tools' JSON, which
# some templates indent. This bounds the price of a call before it is made.
TEMPLATE_BYTES = 4096
MESSAGE_BYTES = 256
TOOL_FACTOR = 4
_MARK = "\u2063cascade{}text\u2063"  # stands for a text from outside
_MARKS = re.compile("\u2063cascade([0-9]+)text\u2063")
_NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)
_MAX_REPETITION = 2**20  # length of a text or list that a template makes by multiplication


class Renderer:
    """Renders prompts for one loaded file.

    Text from outside never becomes control tokens: `<|im_end|>` in a message, in a tool's result or in the
    arguments of a call stays characters.

    Attributes:
        chat: whether the file has a chat template.
    """

    def __init__(self, weights: Weights) -> None:
        """Compile the chat template.

        Raises:
            ModelError: the template is not valid Jinja.
        """
        self._weights = weights
        self._begin = weights.special_token("bos")[1]
        source = weights.chat_template()
        self._template = (
            None if source is None else ChatTemplate(source, self._begin, weights.special_token("eos")[1])
        )
        self.chat = source is not None

    def render_message(self, system: str | None, user: str, limit: int) -> IntArray:
        """Return the prompt for one user message, shape (tokens,).

        Raises:
            ModelError: the prompt cannot be rendered, or certainly has more than `limit` tokens.
        """
        first = (Message(role="system", content=system),) if system else ()
        return self.render_conversation((*first, Message(role="user", content=user)), (), limit)

    def render_conversation(self, messages: Sequence[Message], tools: Sequence[Tool], limit: int) -> IntArray:
        """Return the prompt for a whole conversation, ready for the assistant's next message.

        Args:
            messages: the conversation, oldest first.
            tools: tools that the model may call; the template must show them.
            limit: tokens that the caller can use; much longer prompts are refused without tokenizing them.

        Returns:
            The tokens, shape (tokens,).

        Raises:
            ModelError: the file has no chat template and this is more than one user message; the template
                fails, or leaves out tools or messages; or the prompt certainly has more than `limit` tokens.
        """
        if self._template is None:
            return self._weights.tokenize(_only_text(messages, tools), limit, begin=True)
        _check_size(messages, limit)
        rendered = self._render(_TemplateInput(marked=False), messages, tools)
        begin = not (self._begin and rendered.startswith(self._begin))
        tokens = self._weights.tokenize(rendered, limit, begin=begin, special=True)
        marked = _TemplateInput(marked=True)
        skeleton = self._render(marked, messages, tools)
        marked.check_shown(skeleton)
        template_tokens = self._weights.tokenize(_MARKS.sub(" ", skeleton), limit, begin=begin, special=True)
        control_tokens = self._control_tokens(template_tokens)
        if self._control_tokens(tokens) == control_tokens:
            return tokens
        parts = _MARKS.split(skeleton)
        tokens = self._tokenize_parts(parts, marked.texts, limit, begin)
        text_lost = len(set(parts[1::2])) < len(marked.texts)
        if text_lost or self._control_tokens(tokens) != control_tokens:
            raise ModelError("text holds a control token and its chat template cannot be split; remove it")
        return tokens

    def _render(self, source: _TemplateInput, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        assert self._template is not None
        shown, offered = source.messages(messages), [source.tool(tool) for tool in tools]
        tool_bytes = len(json.dumps(offered).encode()) if offered else 0
        overhead = TEMPLATE_BYTES + MESSAGE_BYTES * len(messages) + TOOL_FACTOR * tool_bytes
        max_bytes = overhead + len(json.dumps(shown, ensure_ascii=False).encode())
        rendered = self._template.render(shown, offered, max_bytes)
        if offered and rendered == self._template.render(shown, [], max_bytes):
            raise ModelError(
                "its chat template has no place for tools; use another model or ask without tools"
            )
        return rendered

    def _control_tokens(self, tokens: IntArray) -> list[int]:
        return [token for token in tokens.tolist() if self._weights.is_control(token)]

    def _tokenize_parts(
        self, parts: Sequence[str], texts: Sequence[str], limit: int, begin: bool
    ) -> IntArray:
        """Tokenize the template's text and the texts from outside apart; the latter get no control tokens.

        Args:
            parts: text of the template and index into `texts`, alternating; starts and ends with the
                template.
            texts: the texts from outside.
            limit: as in `render_conversation`.
            begin: whether to add the begin-of-text token.
        """
        tokens = [self._weights.tokenize(parts[0], limit, begin=begin, special=True)]
        for number, after in zip(parts[1::2], parts[2::2], strict=True):
            tokens.append(self._weights.tokenize(texts[int(number)], limit))
            tokens.append(self._weights.tokenize(after, limit, special=True))
        return np.concatenate(tokens)


class _TemplateInput:
    """Converts messages and tools to the form that templates read; if `marked`, with marks in place of texts.

    Attributes:
        texts: the text that each mark stands for.
    """

    def __init__(self, *, marked: bool) -> None:
        self._marked = marked
        self.texts: list[str] = []

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages; a tool's result includes the tool's name, which some templates show."""
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        return [self._message(message, names) for message in messages]

    def tool(self, tool: Tool) -> dict[str, Any]:
        """Return the definition of a tool."""
        function = {
            "name": _plain(tool.name),
            "description": self._leaf(tool.description, _in_json(tool.description)),
            "parameters": self._descriptions(tool.parameters),
        }
        return {"type": "function", "function": function}

    def check_shown(self, rendered: str) -> None:
        """Raise ModelError if `rendered` leaves out a text."""
        folded = rendered.casefold()  # a template may change case
        for number, text in enumerate(self.texts):
            if _MARK.format(number).casefold() not in folded:
                raise ModelError(
                    f"its chat template leaves out {text[:40]!r}; use another model, or fewer roles and tools"
                )

    def _message(self, message: Message, names: dict[str, str]) -> dict[str, Any]:
        shown: dict[str, Any] = {"role": message.role, "content": self._leaf(message.content)}
        if message.tool_calls:
            shown["tool_calls"] = [
                {
                    "id": _plain(call.id),
                    "type": "function",
                    "function": {"name": _plain(call.name), "arguments": self._arguments(call.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            shown["tool_call_id"] = _plain(message.tool_call_id)
            if message.tool_call_id in names:
                shown["name"] = names[message.tool_call_id]
        return shown

    def _leaf(self, text: str, written: str | None = None) -> str:
        """Return `text` or its mark; `written` is how the template will write it, if that differs."""
        if not self._marked or not text.strip():
            return text
        self.texts.append(text if written is None else written)
        return _MARK.format(len(self.texts) - 1)

    def _arguments(self, text: str) -> Any:
        """Return a call's arguments as templates expect them: an object if the text is one."""
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            arguments = None
        return self._strings(arguments) if isinstance(arguments, dict) else self._leaf(text)

    def _strings(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._leaf(value, _in_json(value))
        if isinstance(value, dict):
            return {key: self._strings(item) for key, item in value.items()}
        return [self._strings(item) for item in value] if isinstance(value, list) else value

    def _descriptions(self, schema: Any) -> Any:
        """Mark only the descriptions in a tool's parameters; templates read types and other keywords."""
        if isinstance(schema, dict):
            return {
                key: self._leaf(item, _in_json(item))
                if key == "description" and isinstance(item, str)
                else self._descriptions(item)
                for key, item in schema.items()
            }
        return [self._descriptions(item) for item in schema] if isinstance(schema, list) else schema


def _in_json(text: str) -> str:
    """Return `text` as written inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _plain(name: str) -> str:
    """Return the name or id of a tool call, which the template writes without a mark."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"tool name or call id {name[:80]!r} is not 1 to 128 letters, digits and _.:/-")
    return name


def _only_text(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    if len(messages) == 1 and messages[0].role == "user" and not tools:
        return messages[0].content
    if len(messages) == 2 and messages[0].role == "system":
        raise ModelError("it has no chat template for a system message; put that text into 'prompt'")
    raise ModelError(
        f"it has no chat template for {len(messages)} messages and {len(tools)} tools; "
        "ask with one user message, or use a chat model"
    )


def _check_size(messages: Sequence[Message], limit: int) -> None:
    """Raise ModelError for text that certainly does not fit or is not valid Unicode."""
    try:
        size = sum(
            len(text.encode())
            for message in messages
            for text in (message.content, *(call.arguments for call in message.tool_calls))
        )
    except UnicodeEncodeError as error:
        raise ModelError(
            f"text is not valid Unicode at position {error.start}; decode it as UTF-8"
        ) from error
    if size > limit * MAX_BYTES_PER_TOKEN:
        raise ModelError(
            f"conversation has {size} bytes; {limit} tokens hold at most {limit * MAX_BYTES_PER_TOKEN}; "
            "shorten it or send it to a larger model"
        )


class ChatTemplate:
    """A GGUF file's chat template, compiled to run in a sandbox.

    The environment is the one that Transformers documents for chat templates (`chat_template_utils`):
    trimmed blocks, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, loop controls,
    `generation` tags.
    """

    def __init__(self, source: str, begin: str, end: str) -> None:
        """Compile `source`; `begin` and `end` are the texts of the file's bos and eos tokens.

        Raises:
            ModelError: it is not valid Jinja.
        """
        self._fixed = {"bos_token": begin, "eos_token": end, "add_generation_prompt": True}
        try:
            self._template = _sandbox().from_string(source)
        except (TemplateError, RecursionError) as error:
            raise ModelError(f"its chat template is broken: {error}; download the file again") from error

    def render(
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], max_bytes: int
    ) -> str:
        """Return the prompt for `messages`, up to the start of the answer.

        Raises:
            ModelError: the template fails, refuses the messages, or writes more than `max_bytes`.
        """
        parts, size = [], 0
        try:
            for part in self._template.generate(
                self._fixed, messages=list(messages), tools=list(tools) or None
            ):
                size += len(part.encode())
                if size > max_bytes:
                    break
                parts.append(part)
        except Exception as error:  # a template is foreign code: its failure is a failed call
            raise ModelError(
                f"its chat template refuses the messages: {error}; check 'system' and the roles"
            ) from error
        if size > max_bytes:
            raise ModelError(
                f"its chat template makes over {max_bytes} bytes of these messages; the template is broken"
            )
        return "".join(parts)


class _GenerationTags(Extension):
    """Ignores `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012  # name and type expected by Jinja

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse `'x' * 10**9`, which fills memory before any output is counted."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) <= _MAX_REPETITION and abs(right) <= 8):
            raise ValueError(f"{left!r:.40} ** {right!r:.40} is too large for a template")
        if operator == "*" and not numbers:
            sizes = [side if isinstance(side, int) else len(side) for side in (left, right)]
            if sizes[0] * sizes[1] > _MAX_REPETITION:
                raise ValueError(f"a repetition to {sizes[0] * sizes[1]} items is too large for a template")
        return super().call_binop(context, operator, left, right)


def _sandbox() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTags, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # local
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise ValueError(message)
