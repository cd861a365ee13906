"""The text of a graph file: what YAML may say, and what a broken file is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.config.load import load_graph
from cascade.config.source import MAX_BYTES, parse
from cascade.errors import ConfigError

SMALL = """\
name: small
models:
  nano: {kind: scripted, default: "yes"}
stages:
  - name: first
    ask: [nano]
"""


def problems(tmp_path: Path, data: bytes | str) -> list[str]:
    path = tmp_path / "graph.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    return [problem.replace(str(path), "graph.yaml") for problem in caught.value.problems]


def test_a_loaded_graph_knows_its_file_its_folder_and_a_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(SMALL)
    loaded = load_graph(str(path))
    assert (loaded.path, loaded.base, loaded.calibrations) == (path, tmp_path, {})
    assert loaded.graph.stages[0].ask == ["nano"]
    assert loaded.digest == hashlib.sha256(SMALL.encode()).hexdigest()[:8]


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load_graph(path).graph.name == "small"


def test_marks_know_the_line_of_every_key_and_item() -> None:
    _, marks = parse(SMALL.encode(), "graph.yaml")
    assert marks.line(("models", "nano", "kind")) == 3
    assert marks.line(("stages", 0)) == 5
    assert marks.line(("stages", 0, "ask", 0)) == 6
    assert marks.line(("stages", 0, "ask", 7, "nothing")) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "graph.yaml:1: graph file is empty"),
        (" \n\n", "graph.yaml:1: graph file is empty"),
        ("# only a comment\n", "graph.yaml:1: expected a mapping"),
        ("- a\n- b\n", "graph.yaml:1: expected a mapping"),
        ("just text", "graph.yaml:1: expected a mapping"),
        ("name: a\n\tmodels: b", "graph.yaml:2: not valid YAML"),
        ("name: [a, b\nmodels: c", "graph.yaml:2: not valid YAML"),
        ("name: a\n---\nname: b", "graph.yaml:2: not valid YAML"),
        ("name: a\nmodels: *lost", "graph.yaml:2: not valid YAML"),
        ("name: a\ndescription: '\x07'", "graph.yaml:2: not valid YAML"),
        ("name: a\nmodels: !!int many", "graph.yaml:2: models: 'many' is not a valid int"),
        (f"limits: {{calls: {'9' * 5000}}}", "graph.yaml:1: limits.calls: '99999"),
        ("a: &x 1\nb: 2", "graph.yaml:1: a: anchor '&x' is not allowed"),
        ("a:\n  ? [1, 2]\n  : 3", "graph.yaml:2: a.?: a key must be plain text"),
        (
            "a: !!python/object:os.system {}",
            "graph.yaml:1: a: tag 'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("a: !mine 1", "graph.yaml:1: a: tag '!mine' is not allowed"),
        ("a: 1\nb: 2\na: 3", "graph.yaml:1: a: key 'a' is given twice, on lines 1 and 3"),
        ("limits: {seconds: .inf}", "graph.yaml:1: limits.seconds: '.inf' is not a finite number"),
        ("limits: {seconds: .nan}", "graph.yaml:1: limits.seconds: '.nan' is not a finite number"),
        ("[" * 1_000, "graph.yaml:1: nested too deeply"),
    ],
)
def test_text_that_is_no_graph_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text)[0].startswith(expected)


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    found = problems(tmp_path, b"name: a\ndescription: caf\xe9\n")
    assert found == ["graph.yaml:2: byte 0xe9 is not UTF-8; save the file as UTF-8"]


def test_a_nul_byte_in_the_file_is_refused(tmp_path: Path) -> None:
    assert "not valid YAML" in problems(tmp_path, b"name: a\0b")[0]


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    assert "larger than 1000000 bytes" in problems(tmp_path, b"#" * (MAX_BYTES + 1))[0]


def test_every_forbidden_thing_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "a: &x 1\nb: !y 2\nc: 1\nc: 2\n")
    assert [line.split(":")[1] for line in found] == ["1", "2", "3"]


def test_a_missing_file_is_told_with_the_graphs_beside_it(tmp_path: Path) -> None:
    (tmp_path / "graph.yaml").write_text(SMALL)
    with pytest.raises(ConfigError, match=r"grap\.yaml: graph file is missing; known in .*: graph\.yaml"):
        load_graph(tmp_path / "grap.yaml")


@pytest.mark.parametrize("name", [".", "graph.yaml/child", "a\0b", "x" * 5000])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "graph.yaml").write_text(SMALL)
    with pytest.raises(ConfigError):
        load_graph(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-?&*!|>%@`'\"#{}[], \n\t\0é1.~<"), max_size=60))
def test_whatever_is_in_the_file_the_answer_is_a_config_error(text: str) -> None:
    try:
        values, _ = parse(text.encode(), "graph.yaml")
    except ConfigError:
        return
    assert isinstance(values, dict)
