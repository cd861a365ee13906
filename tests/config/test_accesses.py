"""`cascade check --untrusted` lists what a file would do, and does none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cascade.cli.main import app
from cascade.config.accesses import list_accesses
from cascade.errors import ConfigError

GRAPH = """
name: stranger
trace: {langsmith: true, otel_content: true}
policy: ../policy.json
models:
  remote: {kind: openai, model: m, url: "https://evil.example/v1", key_env: SECRET}
  plain: {kind: openai, model: m, key_env: null}
  weights:
    {kind: llamacpp, path: /etc/passwd, lora: a.gguf, grammar: g.gbnf, output_schema: s.json, prefix_dir: p}
  hub: {kind: llamacpp, path: "hf:owner/repo/file.gguf", grammar: "root ::= [a-z]"}
  own: {kind: python, call: "ran.py:function", files: [data.bin]}
  inner: {kind: cascade, path: inner.yaml}
stages:
  - {name: s, ask: [remote, plain], confidence: {by: agreement, calibration: cal.json}, accept: 0.5}
  - {name: t, ask: [weights, hub, own, inner]}
"""
INNER = """
name: inner
models:
  deep: {kind: openai, model: m, url: "http://10.0.0.1/v1", key_env: null}
  again: {kind: cascade, path: stranger.yaml}
stages: [{name: s, ask: [deep, again]}]
"""
EXPECTED = {
    ("models.remote", "contacts", "evil.example"), ("models.remote", "reads variable", "SECRET"),
    ("models.plain", "reads variable", "OPENAI_BASE_URL"),
    ("models.plain", "contacts", "the host in OPENAI_BASE_URL, else api.openai.com"),
    ("models.weights", "reads file", "/etc/passwd"), ("models.weights", "reads file", "a.gguf"),
    ("models.weights", "reads file", "g.gbnf"), ("models.weights", "reads file", "s.json"),
    ("models.weights", "writes folder", "p"), ("models.hub", "downloads", "hf:owner/repo/file.gguf"),
    ("models.own", "runs code", "ran.py:function"), ("models.own", "reads file", "data.bin"),
    ("models.inner", "reads file", "inner.yaml"), ("models.inner > models.deep", "contacts", "10.0.0.1"),
    ("models.inner > models.again", "reads file", "stranger.yaml"),
    ("stages.s", "reads file", "cal.json"), ("policy", "reads file", "../policy.json"),
    ("trace.langsmith", "contacts", "LangSmith"),
    ("trace.otel_content", "contacts", "the OpenTelemetry collector"),
}  # fmt: skip


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    (tmp_path / "inner.yaml").write_text(INNER, encoding="utf-8")
    (tmp_path / "ran.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    path = tmp_path / "stranger.yaml"
    path.write_text(GRAPH, encoding="utf-8")
    return path


def test_every_access_is_listed_and_none_is_made(stranger: Path) -> None:
    listed = list_accesses(stranger)
    assert {(part, access.action, access.target) for part, access in listed} == EXPECTED
    notes = {access.target: access.note for _, access in listed}
    assert notes["/etc/passwd"] == notes["../policy.json"] == "outside the graph's folder"
    assert "not sent: the key in SECRET may go to no host" in notes["SECRET"]
    assert not (stranger.parent / "ran").exists()
    assert not (stranger.parent / "p").exists()


def test_the_command_prints_them_in_text_and_json(stranger: Path) -> None:
    done = CliRunner().invoke(app, ["check", "--untrusted", str(stranger)])
    assert done.exit_code == 0
    assert len(done.output.splitlines()) == 1 + len(list_accesses(stranger))
    assert "models.own: runs code ran.py:function" in done.output
    rows = json.loads(CliRunner().invoke(app, ["check", "--untrusted", "--json", str(stranger)]).output)
    assert {(row["part"], row["action"], row["target"]) for row in rows["accesses"]} == EXPECTED


def test_a_file_that_is_no_graph_is_an_error(stranger: Path) -> None:
    (stranger.parent / "inner.yaml").write_text("name: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"models\.inner: .*inner\.yaml"):
        list_accesses(stranger)
