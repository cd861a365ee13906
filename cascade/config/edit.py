"""Changing values in the text of a YAML file, so that everything else stays as its author wrote it.

Only the characters of the changed values are replaced: comments, order, quotes and alignment stay. The result
is parsed again and must say what was asked for, or nothing is returned.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from cascade.config.source import parse
from cascade.errors import ConfigError
from cascade.spec.kinds import Loc

REMOVED: Final = object()  # a value that takes the whole entry away
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class _Cut(NamedTuple):
    """A piece of the text, from `start` to before `end`, and what comes in its place."""

    start: int
    end: int
    text: str


def edit_yaml(data: bytes, file: str, changes: Mapping[Loc, Any]) -> bytes:
    """Return the YAML text `data` with other values at some places.

    Args:
        data: the file's bytes, which `parse` takes.
        file: its name, for errors.
        changes: place of a scalar → its new value, or `REMOVED` for a whole entry of a mapping.

    Raises:
        ConfigError: a place cannot be changed without touching what is around it; edit it by hand.
    """
    from ruamel.yaml import YAML

    text = data.decode("utf-8-sig")
    root = YAML(typ="safe", pure=True).compose(text)
    cuts = [
        _removal(root, loc, text) if value is REMOVED else _replacement(root, loc, value)
        for loc, value in changes.items()
    ]
    if None in cuts:
        raise _by_hand(file, changes)
    for cut in sorted((cut for cut in cuts if cut is not None), reverse=True):
        text = text[: cut.start] + cut.text + text[cut.end :]
    mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    edited = mark + text.encode()
    try:
        said = parse(edited, file)[0]
    except ConfigError:
        said = {}
    if said != _changed(parse(data, file)[0], changes):
        raise _by_hand(file, changes)
    return edited


def _by_hand(file: str, changes: Mapping[Loc, Any]) -> ConfigError:
    wanted = "; ".join(
        f"{'.'.join(map(str, loc))}: " + ("remove it" if value is REMOVED else json.dumps(value))
        for loc, value in changes.items()
    )
    return ConfigError(f"{file}: cannot be changed without touching what is around it; by hand: {wanted}")


def _changed(values: dict[str, Any], changes: Mapping[Loc, Any]) -> dict[str, Any]:
    """Return plain data with the changes made."""
    result: Any = copy.deepcopy(values)
    for loc, value in changes.items():
        part = result
        for key in loc[:-1]:
            part = part[key]
        if value is REMOVED:
            del part[loc[-1]]
        else:
            part[loc[-1]] = value
    return dict(result)


def _replacement(root: Any, loc: Loc, value: Any) -> _Cut | None:
    node = root
    for key in loc:
        node = node.value[key] if isinstance(key, int) else _entries(node).get(key)
        if node is None:
            return None
    if node.id != "scalar":
        return None
    return _Cut(node.start_mark.index, node.end_mark.index, _written(value))


def _removal(root: Any, loc: Loc, text: str) -> _Cut | None:
    node = root
    for key in loc[:-1]:
        node = node.value[key] if isinstance(key, int) else _entries(node)[key]
    names = list(_entries(node))
    if loc[-1] not in names:
        return None
    index = names.index(str(loc[-1]))
    if node.flow_style:
        return _flow_removal(node.value, index)
    if index == 0:  # on one line with the `-` of a list
        return None
    key, value = node.value[index]
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    end = text.find("\n", _last(value).end_mark.index)
    return _Cut(start, len(text) if end < 0 else end + 1, "")


def _flow_removal(entries: list[Any], index: int) -> _Cut:
    key, value = entries[index]
    if index + 1 < len(entries):
        return _Cut(key.start_mark.index, entries[index + 1][0].start_mark.index, "")
    if index:
        return _Cut(entries[index - 1][1].end_mark.index, value.end_mark.index, "")
    return _Cut(key.start_mark.index, value.end_mark.index, "")


def _entries(node: Any) -> dict[str, Any]:
    return {key.value: value for key, value in node.value} if node.id == "mapping" else {}


def _last(node: Any) -> Any:
    """Return the node with whose end `node` ends: a block's own end lies behind the comments after it."""
    while node.id != "scalar" and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if node.id == "mapping" else last
    return node


def _written(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
