"""From the bytes of a graph file to plain data, with the line of every key and value.

YAML 1.2 by ruamel.yaml, without what only causes trouble in configuration: no anchors and aliases, no
merge keys, no tags of one's own, no duplicate keys, no infinite numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade.errors import ConfigError
from cascade.spec.kinds import Loc, Problem

MAX_BYTES = 1_000_000
MAX_PROBLEMS = 100  # that an error lists
_MAX_NUMBER = 400  # characters of a number: the longest double in full has fewer
_MAX_SHOWN = 60  # characters of a key or value in an error
_CORE = "tag:yaml.org,2002:"
_SCALARS = {"str", "int", "float", "bool", "null", "timestamp", "merge", "value"}


@dataclass
class Marks:
    """The line of every key (for list items: of the item) of a file."""

    file: str
    lines: dict[Loc, int] = field(default_factory=dict)

    def line(self, loc: Loc) -> int:
        """Return the line of `loc`, or of its nearest parent that is in the file."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        """Return the error that reports all `problems`, in the order of their lines."""
        ranked = sorted(dict.fromkeys(problems), key=lambda problem: self.line(problem.loc))
        said = [self.say(problem) for problem in ranked[:MAX_PROBLEMS]]
        if len(ranked) > MAX_PROBLEMS:
            said.append(f"{self.file}: more problems follow; mend these first")
        return ConfigError(*said)

    def say(self, problem: Problem) -> str:
        """Return `file:line: path: text`."""
        path = ".".join(shortened(str(part)) for part in problem.loc)
        where = f"{self.file}:{self.line(problem.loc)}"
        return f"{where}: {path}: {problem.text}" if path else f"{where}: {problem.text}"


def shortened(text: str) -> str:
    """Return `text` for an error: the beginning alone if it is long."""
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def read_bytes(path: Path, what: str = "graph file", example: str = "docs/graph.md") -> bytes:
    """Return the bytes of `path`, which errors call `what`; the page `example` shows one.

    Raises:
        ConfigError: it is missing, not a file, unreadable, empty or larger than 1 MB.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: {what} is missing; {_neighbours(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; {_neighbours(path / 'graph.yaml')}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ConfigError(f"{str(path)!r}: {what} cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: {what} is larger than {MAX_BYTES} bytes; is it one?")
    if not data.strip():
        raise ConfigError(f"{path}:1: {what} is empty; {example} shows a small one")
    return data


def parse(
    data: bytes, file: str, expected: str = "a mapping of name, models and stages"
) -> tuple[dict[str, Any], Marks]:
    """Return the root mapping of a YAML text, which must be as `expected`, and the marks of all its parts.

    Raises:
        ConfigError: it is not UTF-8, not YAML, not a mapping, or uses what graph files do not know.
    """
    marks = Marks(file, {(): 1})
    root = _compose(_decode(data, file), file)
    if root is None or root.id != "mapping":
        raise marks.error([Problem((), f"expected {expected}")])
    walker = _Walker(marks)
    value = walker.value(root, ())
    if walker.problems:
        raise marks.error(walker.problems)
    return value, marks


def _neighbours(path: Path) -> str:
    try:
        known = sorted(other.name for other in path.parent.glob("*.yaml"))
    except OSError:
        known = []
    return f"known in {path.parent}: {', '.join(known)}" if known else "give the path of a graph's YAML file"


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        bad = data[error.start : error.start + 1].hex()
        raise ConfigError(f"{file}:{line}: byte 0x{bad} is not UTF-8; save the file as UTF-8") from error


def _compose(text: str, file: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{where}: not valid YAML: {what}") from error
    except YAMLError as error:  # a character that YAML does not allow
        position = getattr(error, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
        raise ConfigError(f"{file}:{line}: not valid YAML: {str(error).splitlines()[0]}") from error
    except RecursionError:
        raise ConfigError(f"{file}:1: nested too deeply to be a graph") from None


class _Walker:
    """Turns composed nodes into plain data, and collects everything that is not allowed."""

    def __init__(self, marks: Marks) -> None:
        from ruamel.yaml import YAML

        self.marks = marks
        self.problems: list[Problem] = []
        self.scalars = YAML(typ="safe", pure=True).constructor

    def value(self, node: Any, loc: Loc) -> Any:
        """Return the plain value of `node`; its line is noted unless its key already was."""
        self.marks.lines.setdefault(loc, node.start_mark.line + 1)
        if node.anchor is not None:
            self._refuse(loc, f"anchor '&{node.anchor}' is not allowed; write the value out in each place")
            return None
        tag = str(node.tag).removeprefix(_CORE)
        if node.id == "mapping" and tag == "map":
            return self._mapping(node, loc)
        if node.id == "sequence" and tag == "seq":
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        if node.id == "scalar" and tag in _SCALARS:
            return self._scalar(node, tag, loc)
        self._refuse(loc, f"tag '{node.tag}' is not allowed; remove it")
        return None

    def _mapping(self, node: Any, loc: Loc) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.anchor is not None:
                self.marks.lines.setdefault((*loc, "?"), line)
                self._refuse((*loc, "?"), "a key must be plain text without an anchor")
                continue
            name = key.value
            if name in mapping:
                first = self.marks.line((*loc, name))
                shown = shortened(repr(name))
                self._refuse((*loc, name), f"key {shown} is given twice, on lines {first} and {line}")
                continue
            self.marks.lines[*loc, name] = line
            mapping[name] = self.value(value, (*loc, name))
        return mapping

    def _scalar(self, node: Any, tag: str, loc: Loc) -> Any:
        if tag in ("str", "timestamp", "merge", "value"):  # a date is text here, as `no` is
            return node.value
        if len(node.value) > _MAX_NUMBER:
            shown, most = shortened(repr(node.value)), f"expected at most {_MAX_NUMBER}"
            self._refuse(loc, f"{shown} is a number of {len(node.value)} characters; {most}")
            return None
        try:
            value = self.scalars.construct_object(node)
        except (ValueError, KeyError) as error:
            self._refuse(loc, f"{node.value[:40]!r} is not a valid {tag}: {error}")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._refuse(loc, f"{shortened(repr(node.value))} is not a finite number")
            return None
        return value

    def _refuse(self, loc: Loc, text: str) -> None:
        self.problems.append(Problem(loc, text))
