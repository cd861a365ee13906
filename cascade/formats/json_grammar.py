"""JSON Schema → GBNF: every text of the grammar satisfies the schema.

The converse does not hold: the grammar writes properties in the schema's order, adds none where some are
named, writes all items of a tuple, escapes only characters that need it, and writes no digits beyond a
double's precision. Annotations (`title`, `description`, `default`, `examples`, a `format` other than those
below …) do not affect validity and are ignored. Anything else that is not supported is rejected.
"""

from __future__ import annotations

from typing import Any, Final

from cascade.errors import ConfigError
from cascade.formats.gbnf import MAX_BYTES, check_grammar
from cascade.formats.gbnf_parser import MAX_REPEATS
from cascade.formats.json_schema import (
    ANNOTATIONS,
    FORMATS,
    KEYWORDS,
    exclusive,
    fail,
    find,
    has_type,
    json_text,
    length_bounds,
    number_bounds,
    types_of,
)
from cascade.formats.number_grammar import integers, reals

MAX_DEPTH = 64
_BUILT_IN: Final = {
    "ws": '| " " | "\\n" " "{0,20}',
    "char": '[^"\\\\\\x01-\\x1F\\x7F] | "\\\\" (["\\\\/bfnrt] | "u00" [0-1] [0-9a-f])',
    "string": '"\\"" char* "\\""',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,14})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (string ":" ws value ("," ws string ":" ws value)*)? ws "}"',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
    # No day after the 28th, because the length of the month is beyond this grammar.
    "day": '[1-2] [0-9]{3} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "clock": '([0-1] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? "Z"',
}


def schema_grammar(schema: object) -> str:
    """Return the GBNF grammar of the JSON texts that satisfy `schema`.

    Supported: `type` (one or several), `properties`, `required`, `additionalProperties`, `items`,
    `prefixItems`, `minItems`, `maxItems`, `minLength`, `maxLength`, `minimum` and its relatives, `enum`,
    `const`, `anyOf`, `oneOf` of alternatives that exclude each other, `allOf` of one, `$ref` within the
    schema, and the formats date, time, date-time and uuid.

    Raises:
        ConfigError: the schema is invalid, cannot be satisfied, or uses an unsupported keyword.
    """
    converter = _Converter(schema)
    text = converter.grammar()
    check_grammar(text)
    return text


class _Converter:
    def __init__(self, schema: object) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._references: dict[str, str] = {}
        self._size = 0

    def grammar(self) -> str:
        """Return all rules, `root` first."""
        self._rules["root"] = ""
        self._rules["root"] = self._body(self._schema, "#", 0)
        todo = " ".join(self._rules.values())
        while missing := [name for name in _BUILT_IN if name not in self._rules and name in todo]:
            for name in missing:
                self._rules[name] = _BUILT_IN[name]
            todo = " ".join(_BUILT_IN[name] for name in missing)
        return "\n".join(f"{name} ::= {body}" for name, body in self._rules.items()) + "\n"

    def _rule(self, body: str) -> str:
        """Return the name of a rule for `body`; one word is its own name."""
        if " " not in body and (body in _BUILT_IN or body in self._rules):
            return body
        name = f"r{len(self._rules)}"
        self._rules[name] = self._counted(body)
        return name

    def _counted(self, body: str) -> str:
        """Return `body`, unless the grammar gets too large: a small schema may have a huge one."""
        self._size += len(body)
        if self._size > MAX_BYTES:
            raise ConfigError(f"output schema: its grammar has more than {MAX_BYTES} bytes; simplify it")
        return body

    def _body(self, schema: object, at: str, depth: int) -> str:
        """Return the right-hand side of a rule for `schema`, which stands at `at` in the whole."""
        if depth > MAX_DEPTH:
            fail(at, f"more than {MAX_DEPTH} levels deep; simplify it")
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            fail(at, f"{schema!r:.60} is not a schema that an answer can satisfy; expected an object")
        if "$ref" in schema:
            self._alone(schema, "$ref", at)
            return self._reference(schema["$ref"], at, depth)
        if "const" in schema or "enum" in schema:
            return self._values(schema, at)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return self._union(schema, word, at, depth)
        types = types_of(schema, at)
        self._known(schema, types, at)
        return " | ".join(self._typed(kind, schema, at, depth) for kind in types)

    def _typed(self, kind: str, schema: dict[str, Any], at: str, depth: int) -> str:
        if kind == "object":
            return self._object(schema, at, depth)
        if kind == "array":
            return self._array(schema, at, depth)
        if kind == "string":
            return _string(schema, at)
        return _number(kind, schema, at) if kind in ("integer", "number") else kind

    def _known(self, schema: dict[str, Any], types: list[str], at: str) -> None:
        known = ANNOTATIONS | {"type"} | frozenset[str]().union(*(KEYWORDS[kind] for kind in types))
        everywhere = frozenset[str]().union(*KEYWORDS.values())  # of another type: says nothing here
        for word in schema:
            if word not in known | everywhere and not word.startswith("x-"):
                fail(at, f"{word!r} is not supported; leave it out and check the answer, or use a grammar")

    def _alone(self, schema: dict[str, Any], word: str, at: str, *more: str) -> None:
        others = set(schema) - ANNOTATIONS - {word, *more}
        if others:
            fail(at, f"{word!r} beside {', '.join(map(repr, sorted(others)))} is not supported; merge them")

    def _reference(self, reference: object, at: str, depth: int) -> str:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            fail(at, f"$ref {reference!r:.80} is not within this schema; expected '#/…'")
        if reference == "#":
            return "root"
        if reference not in self._references:
            name = self._references[reference] = f"r{len(self._rules)}"
            self._rules[name] = ""  # reserved, so that a schema may refer to itself
            self._rules[name] = self._counted(
                self._body(find(self._schema, reference, at), reference, depth + 1)
            )
        return self._references[reference]

    def _values(self, schema: dict[str, Any], at: str) -> str:
        word = "const" if "const" in schema else "enum"
        self._alone(schema, word, at, "type")
        values = [schema["const"]] if word == "const" else schema["enum"]
        if not isinstance(values, list) or not values:
            fail(at, "'enum' must be a list of at least one value")
        types = types_of(schema, at) if "type" in schema else list(KEYWORDS)
        fitting = [value for value in values if any(has_type(value, kind) for kind in types)]
        if not fitting:
            fail(at, f"no value of {word!r} is of type {schema.get('type')!r}")
        return " | ".join(_literal(value, at) for value in fitting)

    def _union(self, schema: dict[str, Any], word: str, at: str, depth: int) -> str:
        self._alone(schema, word, at)
        parts = schema[word]
        if not isinstance(parts, list) or not parts:
            fail(at, f"{word!r} must be a list of at least one schema")
        if word == "allOf" and len(parts) > 1:
            fail(at, "'allOf' of several schemas is not supported; merge them into one")
        if word == "oneOf":
            exclusive(self._schema, parts, at)
        return " | ".join(
            self._rule(self._body(part, f"{at}/{word}/{index}", depth + 1))
            for index, part in enumerate(parts)
        )

    def _object(self, schema: dict[str, Any], at: str, depth: int) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names = required if isinstance(required, list) else [None]
        if not isinstance(properties, dict) or not all(isinstance(name, str) for name in names):
            fail(at, "'properties' must be an object and 'required' a list of names")
        extra = schema.get("additionalProperties", True)
        if not properties and not required:
            return self._map(extra, at, depth)
        named = {name: (part, f"{at}/properties/{name}") for name, part in properties.items()}
        for name in required:
            if name not in named:
                if extra is False:
                    fail(at, f"{name!r} is required and not allowed; add it to 'properties'")
                named[name] = (extra, f"{at}/additionalProperties")
        pairs = []
        for name, (part, location) in named.items():
            value = self._rule(self._body(part, location, depth + 1))
            pairs.append((f'{_literal(name, at)} ":" ws {value}', name in required))
        return f'"{{" ws {self._members(pairs)} ws "}}"'

    def _members(self, pairs: list[tuple[str, bool]]) -> str:
        """Return what stands between the braces: all required pairs, any of the others, in order."""
        first, later = '""', '""'  # nothing written so far; something written so far
        for pair, required in reversed(pairs):
            name = self._rule(pair)
            first = f"{name} {later}" if required else f"{name} {later} | {first}"
            later = f'"," ws {name} {later}' if required else f'("," ws {name})? {later}'
            first, later = self._rule(first), self._rule(later)
        return first

    def _map(self, value: object, at: str, depth: int) -> str:
        if value is True:
            return "object"
        if value is False:
            return '"{" ws "}"'
        pair = f'string ":" ws {self._rule(self._body(value, f"{at}/additionalProperties", depth + 1))}'
        name = self._rule(pair)
        return f'"{{" ws ({name} ("," ws {name})*)? ws "}}"'

    def _array(self, schema: dict[str, Any], at: str, depth: int) -> str:
        if schema.get("uniqueItems", False) is not False:
            fail(at, "'uniqueItems' is not supported; leave it out and check the answer")
        min_count, max_count = length_bounds(schema, "minItems", "maxItems", at)
        prefix, items = schema.get("prefixItems", []), schema.get("items", True)
        if not isinstance(prefix, list) or isinstance(items, list):
            fail(at, "'prefixItems' must be a list of schemas, and 'items' one schema")
        prefix = prefix[: len(prefix) if max_count is None else max_count]
        parts = [
            self._rule(self._body(part, f"{at}/prefixItems/{index}", depth + 1))
            for index, part in enumerate(prefix)
        ]
        if items is False and min_count > len(parts):
            fail(at, f"minItems {min_count} is more than 'prefixItems' has")
        if (items is not False and not prefix) or min_count > len(parts):
            item = self._rule(self._body(items, f"{at}/items", depth + 1))
            parts += [item] * (min_count - len(parts))
            rest = MAX_REPEATS if max_count is None else max_count - len(parts)
            if not prefix and rest > 0:
                return self._items(parts, item, max_count, rest)
        return '"[" ws ' + ' "," ws '.join(parts) + ' ws "]"'

    def _items(self, parts: list[str], item: str, max_count: int | None, rest: int) -> str:
        """Return an array of `parts`, then up to `rest` times `item`; any number where `most` is None."""
        more = f'("," ws {item})'
        if parts:
            times = "*" if max_count is None else f"{{0,{rest}}}"
            return '"[" ws ' + ' "," ws '.join(parts) + f' {more}{times} ws "]"'
        times = "*" if max_count is None else f"{{0,{rest - 1}}}"
        return f'"[" ws ({item} {more}{times})? ws "]"'


def _string(schema: dict[str, Any], at: str) -> str:
    min_count, max_count = length_bounds(schema, "minLength", "maxLength", at)
    form = schema.get("format")
    if isinstance(form, str) and form in FORMATS:
        if min_count or max_count is not None:
            fail(at, f"format {form!r} beside a length is not supported; drop one")
        return FORMATS[form]
    if not min_count and max_count is None:
        return "string"
    return f'"\\"" char{{{min_count},{"" if max_count is None else max_count}}} "\\""'


def _number(kind: str, schema: dict[str, Any], at: str) -> str:
    bounds = number_bounds(kind, schema, at)
    if bounds is None:
        return kind
    if kind == "integer":
        return integers(bounds.low, bounds.high)
    return reals(bounds.low, bounds.high, above=bounds.above, below=bounds.below)


def _literal(value: object, at: str) -> str:
    """Return a GBNF literal of the JSON text of `value`."""
    return '"' + json_text(value, at).replace("\\", "\\\\").replace('"', '\\"') + '"'
