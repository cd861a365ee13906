"""A GGUF file's Jinja chat template, run in a sandbox.

The environment is the one that Transformers documents for chat templates (`chat_template_utils`): blocks
trimmed, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, loop controls, `generation` tags.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cascade.errors import ModelError

_LONGEST = 2**20  # of a text or list that a template makes by multiplication


class ChatTemplate:
    """A compiled chat template."""

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
        self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]], most_bytes: int
    ) -> str:
        """Return the prompt for `messages`, which ends where the answer begins.

        Raises:
            ModelError: the template fails, refuses the messages, or writes more than `most_bytes`.
        """
        parts, size = [], 0
        try:
            for part in self._template.generate(
                self._fixed, messages=list(messages), tools=list(tools) or None
            ):
                size += len(part.encode())
                if size > most_bytes:
                    break
                parts.append(part)
        except Exception as error:  # a template is foreign code; its failure is a failed call
            raise ModelError(
                f"its chat template refuses the messages: {error}; check 'system' and the roles"
            ) from error
        if size > most_bytes:
            raise ModelError(
                f"its chat template makes over {most_bytes} bytes of these messages; the template is broken"
            )
        return "".join(parts)


class _GenerationTags(Extension):
    """Reads over `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012  # the name and type that Jinja reads

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse `'x' * 10**9`, which fills the memory before any output can be counted."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) <= _LONGEST and abs(right) <= 8):
            raise ValueError(f"{left!r:.40} ** {right!r:.40} is too large for a template")
        if operator == "*" and not numbers:
            sizes = [side if isinstance(side, int) else len(side) for side in (left, right)]
            if sizes[0] * sizes[1] > _LONGEST:
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
