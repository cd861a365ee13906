"""The graphs that come with the package: which there are, and copying one with the files it refers to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cascade.config.messages import suggest
from cascade.config.source import parse, read_bytes
from cascade.errors import ConfigError
from cascade.files import replace_file

_PACKAGE = Path(__file__).resolve().parents[1]
_SCHEMA = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)
_TRY = re.compile(r"^# Try: (.+)$", re.MULTILINE)


class ShippedGraph(NamedTuple):
    """A graph that comes with the package; `request` is one that it can answer."""

    path: Path
    name: str
    description: str
    request: str


def shipped_graphs() -> dict[str, ShippedGraph]:
    """Return the graphs by file name: from the wheel, or in an editable install from the checkout."""
    inside = _PACKAGE / "graphs"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "graphs"
    return {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}


def copy_shipped_graph(name: str, folder: Path) -> list[Path]:
    """Copy a graph and the files it refers to into `folder`; return the new paths, the graph's first.

    An existing file is left alone if its content is the same.

    Raises:
        ConfigError: there is no such graph, a file would be overwritten, or `folder` cannot be written to.
    """
    graphs = shipped_graphs()
    if name not in graphs:
        raise ConfigError(f"unknown graph {name!r}; {suggest(name, graphs)}")
    source = graphs[name].path
    copies = {
        folder / path.relative_to(source.parent): path.read_bytes() for path in _with_references(source)
    }
    try:
        taken = [path for path, data in copies.items() if path.exists() and path.read_bytes() != data]
        if taken:
            names = ", ".join(map(str, taken))
            raise ConfigError(
                f"{names}: already there with other content; move it away, or give another --into"
            )
        for path, data in copies.items():
            replace_file(path, data)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; give another --into") from error
    return list(copies)


def _read(path: Path) -> ShippedGraph:
    data = read_bytes(path)
    values, _ = parse(data, str(path))
    request = _TRY.search(data.decode())
    return ShippedGraph(
        path, values["name"], values.get("description", ""), request[1] if request else "hello"
    )


def _with_references(path: Path, known: tuple[Path, ...] = ()) -> list[Path]:
    """Return a graph file and the files beside it that its values and its schema line name."""
    data = read_bytes(path)
    values, _ = parse(data, str(path))
    texts = [*_strings(values), *_SCHEMA.findall(data.decode())]
    files = [*known, path]
    for text in texts:
        other = path.parent / text
        if len(text) > 200 or "\n" in text or not other.is_file() or other in files:
            continue
        files = _with_references(other, tuple(files)) if other.suffix == ".yaml" else [*files, other]
    return files


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
