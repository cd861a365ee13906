"""What does not fit the schema: one sentence for each place, with what is known and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.config.load import load_graph
from cascade.errors import ConfigError

GRAPH = """\
name: small
limits: {calls: 4}
models:
  nano: {kind: scripted, default: "yes", confidence: 0.9}
  path: {kind: openai, model: gpt-5.2, price: {input: 1, output: 2}}
stages:
  - {name: first, ask: [nano], confidence: {by: logprob}, accept: 0.5}
  - {name: last, ask: [path]}
"""


def problems(tmp_path: Path, old: str, new: str) -> list[str]:
    assert old in GRAPH
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    return [problem.removeprefix(str(path)) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "accept: 0.5",
            "acept: 0.5",
            ":7: stages.0.acept: unknown key 'acept'; known: name, ask, gate, samples, "
            "confidence, accept, audit_rate, on_drift, early_exit, on_truncated, hedge, shadow, canary, "
            "on_alarm, escalate; did you mean 'accept'?",
        ),
        ("name: small", "nam: small", ":1: name: missing key 'name'; keys here: name, description, limits"),
        ("{calls: 4}", "{calls: 4.5}", ":2: limits.calls: 4.5 is wrong: expected a whole number"),
        ("{calls: 4}", "{calls: '4'}", ":2: limits.calls: '4' is wrong: expected a whole number"),
        ("{calls: 4}", "{calls: 0}", ":2: limits.calls: 0 is wrong: it should be greater than or equal to 1"),
        ("{calls: 4}", "[4]", ":2: limits: [4] is wrong: expected a mapping"),
        ("{calls: 4}", "null", ":2: limits: null is wrong: expected a mapping"),
        ("accept: 0.5", "accept: true", ":7: stages.0.accept: true is wrong: expected a number"),
        (
            "accept: 0.5",
            "accept: 1.5",
            ":7: stages.0.accept: 1.5 is wrong: it should be less than or equal to 1",
        ),
        (
            "kind: scripted",
            "kind: scripter",
            ":4: models.nano: unknown kind 'scripter'; known: cascade, human, "
            "llamacpp, openai, python, scripted; did you mean 'scripted'?",
        ),
        ("kind: scripted", "kind: 7", ":4: models.nano: unknown kind '7'; known: cascade"),
        (
            "kind: scripted, ",
            "",
            ":4: models.nano: missing key 'kind'; known: cascade, human, llamacpp, openai, python, scripted",
        ),
        (
            "{by: logprob}",
            "{by: logprobs}",
            ":7: stages.0.confidence: unknown by 'logprobs'; known: agreement, labels, "
            "logprob, python; did you mean 'logprob'?",
        ),
        (
            "{by: logprob}",
            "{by: logprob, signal: p11}",
            ":7: stages.0.confidence.signal: unknown value 'p11'; known: "
            "mean, min, p10, p25, p50, margin, entropy; did you mean 'p10'?",
        ),
        ("{by: logprob}", "[logprob]", ":7: stages.0.confidence: ['logprob'] is wrong: "),
        ("gpt-5.2", "5.2", ":5: models.path.model: 5.2 is wrong: expected text; put it in quotes"),
        (
            "model: gpt-5.2",
            "labels: 5, model: gpt-5.2",
            ":5: models.path.labels: 5 is wrong: expected a list, or expected text; put it in quotes",
        ),
        (
            "output: 2",
            "outputs: 2",
            ":5: models.path.price.outputs: unknown key 'outputs'; known: input, output, cached; did",
        ),
        ("  nano:", "  'my nano':", ":4: models.my nano: 'my nano' is wrong: expected a name"),
        ("name: small", f"name: {'x' * 65}", ":1: name: 'xxx"),
        ("ask: [path]", "ask: path", ":8: stages.1.ask: 'path' is wrong: expected a list"),
        ("ask: [path]", "ask: [[path]]", ":8: stages.1.ask.0: ['path'] is wrong: expected text"),
    ],
)
def test_one_mistake_is_one_sentence(tmp_path: Path, old: str, new: str, expected: str) -> None:
    found = problems(tmp_path, old, new)
    assert any(line.startswith(expected) for line in found), found


def test_all_mistakes_are_reported_in_the_order_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(
        GRAPH.replace("calls: 4", "call: 4").replace("ask: [nano]", "aks: [nano]").replace("small", "1x")
    )
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    found = [problem.removeprefix(f"{path}:").split(" ")[:2] for problem in caught.value.problems]
    assert found == [["1:", "name:"], ["2:", "limits.call:"], ["7:", "stages.0.aks:"]]


def test_a_model_may_have_the_name_of_a_key(tmp_path: Path) -> None:
    found = problems(tmp_path, "model: gpt-5.2", "modell: gpt-5.2")
    assert any("models.path.modell: unknown key 'modell'; known: tier" in line for line in found)


def test_dates_and_yes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH.replace('default: "yes"', "default: no").replace("gpt-5.2", "2026-11-21"))
    graph = load_graph(path).graph
    assert graph.models["nano"].model_dump()["default"] == "no"
    assert graph.models["path"].model_dump()["model"] == "2026-11-21"
