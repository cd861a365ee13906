"""From pydantic's validation errors to sentences: what is wrong with which value, and what is known."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cascade.config.source import shortened
from cascade.spec.kinds import Loc, Problem
from cascade.spec.registry import Registry
from cascade.spec.schema import Graph

_MAX_KNOWN, _MAX_COMPARED, _MAX_WORD = 50, 500, 100
_MAX_ERRORS = 200  # of a file that are put into words: twice what is listed
_EXPECTED = {
    "string_type": "expected text; put it in quotes",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "model_attributes_type": "expected a mapping",
    "string_pattern_mismatch": "expected a name: a letter, then letters, digits, '-' and '_'",
}


def suggest(value: object, known: Iterable[str]) -> str:
    """Return `known: a, b; did you mean 'a'?`, the second part only where something is close to `value`."""
    names = list(dict.fromkeys(known))
    more = f" and {len(names) - _MAX_KNOWN} more" if len(names) > _MAX_KNOWN else ""
    text = f"known: {', '.join(names[:_MAX_KNOWN]) or 'none'}{more}"
    if len(names) > _MAX_COMPARED or len(str(value)) > _MAX_WORD:  # comparing takes time
        return text
    close = difflib.get_close_matches(str(value), names, n=1)
    return f"{text}; did you mean {close[0]!r}?" if close else text


def quoted_names(names: Sequence[str]) -> str:
    """Return names for a message; if there are many, the first eight and their number."""
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def problems_of(
    error: ValidationError, data: Mapping[str, Any], schema: type[BaseModel] = Graph
) -> list[Problem]:
    """Return one problem for each place in `data` that `error` names; `schema` is what refused the data."""
    texts_at: dict[Loc, list[str]] = {}
    for item in islice(error.errors(include_url=False), _MAX_ERRORS):
        loc = _place(item["loc"], data, item["type"] == "missing")
        texts = texts_at.setdefault(loc, [])
        text = _sentence(item, loc, data, schema)
        if text not in texts:
            texts.append(text)
    return [Problem(loc, _join(texts)) for loc, texts in texts_at.items()]


def _join(texts: list[str]) -> str:
    """Join the texts of one value: `5 is wrong: expected a list, or expected text`."""
    head = texts[0].partition(": expected")[0]
    if len(texts) > 1 and all(text.partition(": expected")[0] == head for text in texts):
        return ", or".join([texts[0], *(text.removeprefix(head + ":") for text in texts[1:])])
    return "; ".join(texts)


def _place(loc: Loc, data: Any, missing: bool) -> Loc:
    """Drop the parts of pydantic's location that are not in the file: union branches and '[key]'."""
    kept: list[str | int] = []
    for index, part in enumerate(loc):
        if _has(data, part):
            data = data[part]
            kept.append(part)
        elif missing and index == len(loc) - 1:
            kept.append(part)
    return tuple(kept)


def _has(data: Any, part: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _sentence(item: Any, loc: Loc, data: Mapping[str, Any], schema: type[BaseModel]) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "missing":
        return (
            f"missing key {shortened(repr(loc[-1]))}; keys here: {', '.join(_keys(loc[:-1], data, schema))}"
        )
    if kind == "extra_forbidden":
        return f"unknown key {shortened(repr(loc[-1]))}; {suggest(loc[-1], _keys(loc[:-1], data, schema))}"
    if kind == "union_tag_not_found":
        tags = context["discriminator"].strip("'")
        return f"missing key {tags!r}; known: {', '.join(_tags(loc, data, schema))}"
    if kind == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        tag = context["tag"]
        return f"unknown {key} {shortened(repr(tag))}; {suggest(tag, _tags(loc, data, schema))}"
    if kind == "literal_error":
        known = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
        return f"unknown value {_show(value)}; {suggest(value, known)}"
    if item["loc"][-1] == "[key]":
        return f"{shortened(repr(loc[-1]))} is wrong: {_EXPECTED['string_pattern_mismatch']} (at most 64)"
    return f"{_show(value)} is wrong: {_EXPECTED.get(kind) or item['msg'].replace('Input', 'it')}"


def _show(value: object) -> str:
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return shortened(text)


def _keys(loc: Loc, data: Any, schema: type[BaseModel]) -> list[str]:
    """Return the keys that the schema knows at `loc`."""
    branches = _branches(loc, data, schema)
    fields = (item for branch in branches for item in branch.model_fields.items())
    return list(dict.fromkeys(field.alias or name for name, field in fields))


def _tags(loc: Loc, data: Any, schema: type[BaseModel]) -> list[str]:
    """Return the known values of the discriminator at `loc`."""
    tags: list[str] = []
    for branch in _branches(loc, data, schema):
        key = _discriminator(branch)
        if key:
            tags.extend(get_args(branch.model_fields[key].annotation))
    return tags


def _branches(loc: Loc, data: Any, schema: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the schema's models that fit at `loc`: all branches where the file does not say which."""
    options: list[Any] = [schema]
    for part in loc:
        options = [inner for option in _chosen(options, data) for inner in _inside(option, part)]
        data = data[part]
    return [option for option in _chosen(options, data) if _is_model(option)]


def _inside(annotation: Any, part: str | int) -> list[Any]:
    """Return the types that the schema allows for `part` of a value of type `annotation`."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return [] if field is None else _kinds(field.metadata) or _options(field.annotation)
    origin, parameters = get_origin(annotation), get_args(annotation)
    return _options(parameters[-1]) if origin in (list, dict) else []


def _options(annotation: Any) -> list[Any]:
    """Return the alternatives of a union, however nested; other types as they are."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[1:]) or _options(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [option for part in get_args(annotation) for option in _options(part)]
    return [annotation]


def _kinds(metadata: Iterable[Any]) -> list[Any]:
    """Return the settings of the kinds that an annotation's registry has; empty if it has none."""
    return [kind for each in metadata if isinstance(each, Registry) for kind in each.kinds().values()]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _chosen(options: list[Any], data: Any) -> list[Any]:
    """Return the branch that the discriminator in `data` picks, or all of them."""
    for option in options:
        key = _discriminator(option)
        given = data.get(key) if isinstance(data, Mapping) else None
        if key and given in get_args(option.model_fields[key].annotation):
            return [option]
    return options


def _discriminator(option: Any) -> str | None:
    fields = option.model_fields if _is_model(option) else {}
    return next((key for key in ("kind", "by") if key in fields), None)
