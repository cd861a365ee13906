"""Without the extras: what works all the same, and what says which extra to install."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from loopback import Loopback, stream
from policies import policy, stage
from scripting import checked, scripted, write
from without import EXTRAS, cascade_without, python_without

from cascade.policy.artifact import write_policy

REMOTE = """\
name: remote
models:
  big: {{kind: openai, tier: opus, model: gpt-4.1, url: "{url}", key_env: REMOTE_KEY, logprobs: false}}
stages: [{{name: only, ask: [big]}}]
"""


def test_the_package_and_all_graphs_are_checked_and_drawn_without_any_extra(root: Path) -> None:
    graphs = sorted(str(path) for path in (root / "graphs").glob("*.yaml"))
    checked = cascade_without(EXTRAS, root, "check", *graphs)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("ok: ") == len(graphs)
    drawn = cascade_without(EXTRAS, root, "draw", "graphs/support.yaml")
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.startswith("flowchart")


def test_a_graph_of_remote_models_runs_and_is_explained_without_any_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOTE_KEY", "k")
    with Loopback() as server:
        server.answers = [stream(["Paris"])]
        (tmp_path / "remote.yaml").write_text(REMOTE.format(url=server.url))
        answered = cascade_without(EXTRAS, tmp_path, "run", "remote.yaml", "Capital of France?", "--json")
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["text"] == "Paris"
    for command in (["trace", "list"], ["trace", "list", "--tier", "opus"], ["trace", "verify"]):
        shown = cascade_without(EXTRAS, tmp_path, *command)
        assert shown.returncode == 0, shown.stderr
    explained = cascade_without(EXTRAS, tmp_path, "trace", "explain", "last")
    assert explained.returncode == 0, explained.stderr
    assert "Paris" in explained.stdout


def test_a_local_model_without_its_extra_is_an_error_with_the_command_to_run(root: Path) -> None:
    refused = cascade_without(EXTRAS, root, "run", "graphs/support.yaml", "hello")
    advice = "model 'nano' (kind llamacpp) needs llama_cpp; pip install 'cascade-moe[local]'"
    assert (refused.returncode, refused.stderr) == (1, f"error: {advice}\n")
    code = (
        "from cascade import Cascade, ConfigError\n"
        "try:\n    Cascade.load('graphs/support.yaml')\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    assert python_without(EXTRAS, code, root).stdout == f"{advice}\n"


def test_a_tuned_policy_without_its_extra_is_checked_and_not_run(tmp_path: Path) -> None:
    models = {"nano": scripted("yes"), "big": scripted("yes")}
    stages = [
        {"name": "first", "ask": ["nano"], "confidence": {"by": "logprob"}},
        {"name": "last", "ask": ["big"]},
    ]
    write(tmp_path, models, stages, policy="policy.json")
    write_policy(policy(stage("nano", 0.9), stage("big")), tmp_path / "policy.json")
    assert cascade_without(EXTRAS, tmp_path, "check", "graph.yaml").returncode == 0
    refused = cascade_without(EXTRAS, tmp_path, "run", "graph.yaml", "hello")
    advice = "graph.yaml: policy 'policy.json' needs numpy; pip install 'cascade-moe[tune]'"
    assert (refused.returncode, refused.stderr) == (1, f"error: {advice}\n")


@pytest.mark.parametrize(
    "command",
    [
        ["tune", "--outcomes", "table.jsonl", "--max-risk", "0.1", "--out", "policy.json"],
        ["evaluate", "--outcomes", "table.jsonl", "--policy", "policy.json"],
        ["outcomes", "graph.yaml", "--data", "rows.jsonl", "--out", "made.jsonl"],
        ["calibrate", "graph.yaml", "only", "--data", "rows.jsonl", "--out", "calibration.json"],
    ],
    ids=lambda command: command[0],
)
def test_commands_on_recorded_data_name_the_extra_tune(tmp_path: Path, command: list[str]) -> None:
    row = {"id": "1", "prompt": "p", "models": {"a": {"quality": 1, "cost_usd": 0, "confidence": 0.5}}}
    (tmp_path / "table.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "rows.jsonl").write_text(
        '{"text": "a", "label": "yes"}\n{"text": "b", "label": "yes"}\n' * 20
    )
    stages = [checked("only", "small"), {"name": "last", "ask": ["big"]}]
    write(tmp_path, {"small": scripted("yes"), "big": scripted("yes")}, stages)
    refused = cascade_without(EXTRAS, tmp_path, *command)
    assert refused.returncode == 1
    advice = (
        r"error: (this command needs numpy|cascade calibrate needs scipy); pip install 'cascade-moe\[tune\]'"
    )
    assert re.fullmatch(advice, refused.stderr.strip())
    assert not (tmp_path / "made.jsonl").exists()


def test_functions_on_recorded_data_name_the_extra_tune(root: Path) -> None:
    code = "try:\n    from cascade.lab import tune\nexcept ImportError as error:\n    print(error)\n"
    advice = "cascade.lab.tune needs numpy; pip install 'cascade-moe[tune]'\n"
    assert python_without(EXTRAS, code, root).stdout == advice


@pytest.mark.parametrize("command", ["serve", "ui"])
def test_the_server_and_the_viewer_name_the_extra_serve(root: Path, command: str) -> None:
    refused = cascade_without(EXTRAS, root, command, "graphs/support.yaml")
    assert refused.returncode == 1
    assert refused.stderr.endswith("; pip install 'cascade-moe[serve]'\n")
