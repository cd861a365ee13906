"""Values of a YAML file are changed in place, and everything else stays to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.config.edit import REMOVED, edit_yaml
from cascade.errors import ConfigError

FLOW = """# mine
name:   small   # a name
stages:
  - {name: first,  ask: [nano],  accept: 0.90, canary: {model: new, share: 0.1}, shadow: {model: new}}  # why
  - {name: last, ask: ["large"]}
"""
BLOCK = """stages:
  # the first
  - name: first
    ask:
      - 'nano'   # small
    canary:      # to be removed
      model: new
      share: 0.1

    # below
    shadow:
      model: new
    accept: 0.9
"""


def test_scalars_of_a_flow_style_file() -> None:
    changes = {("stages", 0, "ask", 0): "new", ("stages", 0, "accept"): 0.5, ("stages", 1, "ask", 0): "no"}
    edited = edit_yaml(FLOW.encode(), "g.yaml", changes).decode()
    expected = FLOW.replace("[nano]", "[new]").replace("0.90", "0.5").replace('"large"', '"no"')
    assert edited == expected


@pytest.mark.parametrize(
    ("loc", "gone"),
    [
        (("stages", 0, "canary"), "canary: {model: new, share: 0.1}, "),
        (("stages", 0, "shadow"), ", shadow: {model: new}"),
        (("stages", 1, "name"), "name: last, "),
    ],
)
def test_an_entry_of_a_flow_style_file_is_removed(loc: tuple, gone: str) -> None:
    assert edit_yaml(FLOW.encode(), "g.yaml", {loc: REMOVED}).decode() == FLOW.replace(gone, "")


def test_a_block_style_file() -> None:
    changes = {
        ("stages", 0, "ask", 0): "new",
        ("stages", 0, "shadow", "model"): "nano",
        ("stages", 0, "canary"): REMOVED,
    }
    expected = BLOCK.replace("'nano'", "new").replace(
        "shadow:\n      model: new", "shadow:\n      model: nano"
    )
    canary = "    canary:      # to be removed\n      model: new\n      share: 0.1\n"
    assert edit_yaml(BLOCK.encode(), "g.yaml", changes).decode() == expected.replace(canary, "")


def test_the_mark_of_the_encoding_and_line_ends_stay() -> None:
    data = b"\xef\xbb\xbf" + BLOCK.replace("\n", "\r\n").encode()
    edited = edit_yaml(data, "g.yaml", {("stages", 0, "accept"): 0.8})
    assert edited == data.replace(b"accept: 0.9", b"accept: 0.8")


@pytest.mark.parametrize("value", ["null", "a b", "1e3", "", "ä: ö", "x#y", "two\nlines", "experts/new.json"])
def test_any_text_is_written_so_that_it_is_read_again(value: str) -> None:
    edited = edit_yaml(FLOW.encode(), "g.yaml", {("stages", 0, "ask", 0): value})
    from cascade.config.source import parse

    assert parse(edited, "g.yaml")[0]["stages"][0]["ask"] == [value]


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (FLOW, {("stages", 0, "ask"): "new"}),  # a list is no value
        (FLOW, {("stages", 0, "nothing"): REMOVED}),
        ("a:\n  - first: 1\n    second: 2\n", {("a", 0, "first"): REMOVED}),
    ],
)
def test_what_cannot_be_changed_alone_is_left_to_the_author(text: str, changes: dict) -> None:
    with pytest.raises(ConfigError, match="by hand"):
        edit_yaml(text.encode(), "g.yaml", changes)


@pytest.mark.parametrize("graph", ["support", "banking", "desk", "threats", "assistant"])
def test_the_shipped_graphs_can_be_edited(root: Path, graph: str) -> None:
    path = root / "graphs" / f"{graph}.yaml"
    data = path.read_bytes()
    stages = [index for index, line in enumerate(data.splitlines()) if b"ask:" in line]
    from cascade.config.source import parse

    values = parse(data, str(path))[0]
    for index, stage in enumerate(values["stages"]):
        if stage.get("ask"):
            edited = edit_yaml(data, str(path), {("stages", index, "ask", 0): "other"})
            changed = [a for a, b in zip(data.splitlines(), edited.splitlines(), strict=True) if a != b]
            assert len(changed) == 1
    assert stages
