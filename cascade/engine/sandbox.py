"""The Jinja environment of chat templates, which are foreign code: what they use and make is bounded.

A template cannot reach Python (Jinja's immutable sandbox), and every operation that makes something, looks at
something large, or repeats is charged to a `Meter` before it is done. So time and memory of a rendering are
bounded, whatever the template says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import wraps
from typing import Any, cast

from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

_MAX_REPETITION = 2**20  # length of a text or list that a template makes by multiplication
_MAX_DIGITS = 1000  # of a whole number
_BASE_WORK = 2**25  # of any rendering, in characters and items
_WORK_PER_BYTE = 512  # in addition, for each byte of the messages and tools
_STEP = 32  # work of one turn of a loop, or one call
_MAX_WIDTH = 256  # to which a text is filled or indented
_WIDE = re.compile(r"[0-9]{4,}|\*")
# Names of filters that no template can spell.
_WRITTEN, _SEEN, _COUNTED = "written text", "seen value", "counted loop"
# Methods of texts whose results are no longer than what they are given.
_SHORT = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace",
    "istitle", "isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rfind",
    "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip",
    "swapcase", "title", "upper", "encode",
))  # fmt: skip
_FILLED = frozenset(["ljust", "rjust", "center", "zfill", "expandtabs"])
_SIZED = frozenset(["batch", "slice", "center", "indent", "round", "wordwrap"])  # filters that take a size
_MAX_SIZE = 4096
# Filters that make a text of all that they are given, in other characters perhaps.
_WRITERS = frozenset((
    "string", "pprint", "join", "urlencode", "xmlattr", "escape", "e", "forceescape", "format",
    "indent", "wordwrap", "center", "title", "upper", "lower", "capitalize", "replace", "trim",
    "truncate", "wordcount",
))  # fmt: skip
_LONGEST = 6  # characters that one may become: `\\u00e9`, `&quot;`
_MISSING = ("urlize", "striptags")  # their time is not bounded by their text
_MAX_SOURCE = 2**20


class TemplateLimitError(Exception):
    """A template asks for more than a rendering may use."""


class Meter:
    """What one rendering may use.

    Attributes:
        left: work that is left, in characters and items.
    """

    def __init__(self, input_bytes: int = 0) -> None:
        self.left = _BASE_WORK + _WORK_PER_BYTE * input_bytes

    def charge(self, work: int) -> None:
        """Take `work` off.

        Raises:
            TemplateLimitError: it is more than is left.
        """
        self.left -= work
        if self.left < 0:
            raise TemplateLimitError("it uses more time or memory than these messages can need")

    def charge_written(self, value: Any) -> None:
        """Charge the text that `value` would be written as; nothing is written for it."""
        waiting = [value]
        while waiting:
            item = waiting.pop()
            self.charge(size(item) + 1)
            if isinstance(item, dict):
                waiting += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set | frozenset):
                waiting += item


def size(value: Any) -> int:
    """Return the length of a text or collection, the digits of a whole number, else 1."""
    if isinstance(value, int):
        return value.bit_length() // 3 + 1
    return len(value) if isinstance(value, str | bytes | list | tuple | dict | set | frozenset) else 1


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that Transformers documents for chat templates (`chat_template_utils`), with bounds.

    That is: trimmed blocks, `tojson` without HTML escapes, `raise_exception`, `strftime_now`, loop controls,
    `generation` tags.

    Attributes:
        meter: of the rendering at work.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTags, loopcontrols])
        self.meter = Meter()
        self.filters = {name: _bounded(self, name, made) for name, made in self.filters.items()}
        for name in _MISSING:
            del self.filters[name]
        self.filters |= {"tojson": self._tojson, _WRITTEN: _written, _SEEN: _seen, _COUNTED: _counted}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > _MAX_SOURCE:
            raise TemplateLimitError(f"it has {len(source)} characters; at most {_MAX_SOURCE} are taken")
        tree = super()._parse(source, name, filename)
        _Charging().visit(tree)
        return tree.set_environment(self)  # type: ignore[return-value]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Charge the result of `left operator right` before it is made."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and not (numbers and abs(left) <= _MAX_REPETITION and abs(right) <= 8):
            raise ValueError(f"{left!r:.40} ** {right!r:.40} is too large for a template")
        if operator == "*" and not numbers:
            sizes = [side if isinstance(side, int) else len(side) for side in (left, right)]
            if sizes[0] * sizes[1] > _MAX_REPETITION:
                raise ValueError(f"a repetition to {sizes[0] * sizes[1]} items is too large for a template")
            self.meter.charge(max(0, sizes[0] * sizes[1]))
        elif operator == "%" and isinstance(left, str):
            self.charge_format(left, right, "%")
        self.meter.charge(size(left) + size(right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and size(result) > _MAX_DIGITS:
            raise TemplateLimitError(f"a whole number has more than {_MAX_DIGITS} digits")
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Charge a call before it is made; only those methods of texts are called that can be charged."""
        __self.meter.charge(_STEP + sum(map(size, args)))
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str | bytes) and not isinstance(__obj, Macro):
            __self._charge_method(text, __obj.__name__, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        __self.meter.charge(size(result))
        return result

    def _charge_method(self, text: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [*args, *kwargs.values()]
        self.meter.charge(len(text) + sum(map(size, given)))
        if name in _FILLED:
            if any(isinstance(width, int) and width > len(text) + _MAX_WIDTH for width in given):
                raise TemplateLimitError(f"{name!r} fills a text to more than {_MAX_WIDTH} characters")
            self.meter.charge(len(text) * _MAX_WIDTH if name == "expandtabs" else _MAX_WIDTH)
        elif name == "replace":
            _charge_replacement(self.meter, text, *args[:2])
        elif name == "join":
            for item in args[0] if args and isinstance(args[0], list | tuple | dict) else given:
                self.meter.charge(size(item) + len(text))
        elif name in ("format", "format_map"):
            self.charge_format(text, [args, kwargs], "{")
        elif name not in _SHORT:
            raise TemplateLimitError(f"the method {name!r} of a text is not for templates")

    def charge_format(self, text: str, values: Any, mark: str) -> None:
        """Charge a text that is filled in: each place may be as long as all values."""
        if _WIDE.search(text.replace("**", "")) and mark in text:
            raise TemplateLimitError("a text is filled in with a width of its own")
        if mark == "{" and re.search(r":[^{}]*\{", text):
            raise TemplateLimitError("a text is filled in with a width of its own")
        before = self.meter.left
        self.meter.charge_written(values)
        self.meter.charge((before - self.meter.left) * text.count(mark) + len(text))

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        if size(indent) > _MAX_WIDTH or (isinstance(indent, int) and indent > _MAX_WIDTH):
            raise TemplateLimitError(f"'tojson' indents by more than {_MAX_WIDTH}")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        pieces = []
        for piece in encoder.iterencode(value):
            self.meter.charge(len(piece))
            pieces.append(piece)
        return "".join(pieces)


class _Charging(NodeTransformer):
    """Puts a charge on every expression whose work no call, operator or filter counts."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED)
        return node

    def visit_Output(self, node: nodes.Output | nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_filtered(child, _WRITTEN) for child in node.nodes]
        return node

    visit_Concat = visit_Output  # noqa: N815

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, _SEEN)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, _SEEN)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.args = [_filtered(argument, _SEEN) for argument in node.args]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _SEEN) if isinstance(node.arg, nodes.Slice) else node


def _filtered(node: nodes.Node, name: str) -> nodes.Expr:
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None).set_lineno(node.lineno)  # type: ignore[return-value]


def _meter(context: Context) -> Meter:
    sandbox: Any = context.environment
    meter: Meter = sandbox.meter
    return meter


@pass_context
def _written(context: Context, value: Any) -> Any:
    """Charge the text that `value` is written as."""
    _meter(context).charge_written(value)
    return value


@pass_context
def _seen(context: Context, value: Any) -> Any:
    """Charge a value that is compared, searched or copied."""
    _meter(context).charge(size(value))
    return value


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """Charge each turn of a loop."""
    meter = _meter(context)
    for item in items:
        meter.charge(_STEP)
        yield item


def _bounded(sandbox: Sandbox, name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter `made` with its work charged before it is done."""

    passed = 1 if hasattr(made, "jinja_pass_arg") else 0  # a context or an environment comes first

    @wraps(made)  # keeps what the filter wants passed
    def charged(*args: Any, **kwargs: Any) -> Any:
        meter, value = sandbox.meter, args[passed]
        options = [*args[passed + 1 :], *kwargs.values()]
        if name in _SIZED and any(isinstance(option, int) and abs(option) > _MAX_SIZE for option in options):
            raise TemplateLimitError(f"the filter {name!r} is given a size of more than {_MAX_SIZE}")
        if isinstance(value, Iterator):  # of a lazy filter
            value = list(_drawn(meter, value))
        _charge_filter(sandbox, name, value, options)
        result = made(*args[:passed], value, *args[passed + 1 :], **kwargs)
        meter.charge(size(result))
        return result

    return charged


def _drawn(meter: Meter, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        meter.charge(_STEP + size(item))
        yield item


def _charge_filter(sandbox: Sandbox, name: str, value: Any, options: list[Any]) -> None:
    meter = sandbox.meter
    items = value if isinstance(value, list | tuple) else ()
    meter.charge(_STEP + size(value) + sum(map(size, options)) + sum(map(size, items)))
    if name in _WRITERS:
        before = meter.left
        meter.charge_written(value)
        meter.charge((before - meter.left) * (_LONGEST - 1))
    lines = value.count("\n") + 1 if isinstance(value, str) else 1
    if name == "replace":
        _charge_replacement(meter, str(value), *options[:2])
    elif name == "format":
        sandbox.charge_format(str(value), options, "%")
    elif name == "join":
        meter.charge(len(items) * sum(map(size, options)))
    elif name in ("indent", "wordwrap"):
        widths = [option if isinstance(option, int) else size(option) for option in options]
        meter.charge((lines if name == "indent" else size(value)) * sum(widths))
    elif name in ("batch", "slice", "center"):
        meter.charge(sum(abs(option) for option in options if isinstance(option, int)))
    elif name == "round" and any(isinstance(option, int) and abs(option) > _MAX_WIDTH for option in options):
        raise TemplateLimitError(f"'round' is given a precision of more than {_MAX_WIDTH}")
    elif name == "sum":
        meter.charge(len(items) * sum(map(size, items)))


def _charge_replacement(meter: Meter, text: Any, old: Any = "", new: Any = "") -> None:
    """Charge `text` with each `old` replaced by `new`; an empty text stands between all characters."""
    old, new = str(old), str(new)
    meter.charge(len(text) + (text.count(old) if isinstance(text, str) else len(text)) * len(new))


class _GenerationTags(Extension):
    """Ignores `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012  # name and type expected by Jinja

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise ValueError(message)


def _strftime_now(form: str) -> str:
    if len(form) > _MAX_WIDTH or re.search(r"%[^a-zA-Z%]*[0-9]{3}", form):
        raise TemplateLimitError("a date is written too long")
    return datetime.now().strftime(form)  # local
