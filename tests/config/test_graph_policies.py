"""A graph's policy: one that is missing, broken, stale or of another graph is refused, with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from policies import policy, stage
from scripting import scripted, write

from cascade.config.load import load_graph
from cascade.config.policies import setup_hash
from cascade.errors import ConfigError
from cascade.policy.artifact import Policy, write_policy

TUNED = policy(stage("small", 0.7), stage("large"))


def graph(folder: Path, tuned: Policy | str | None = TUNED, **settings: Any) -> Path:
    first = {"name": "first", "ask": ["small"], "confidence": {"by": "logprob"}}
    stages = [first | settings.pop("first", {}), {"name": "last", "ask": ["large"]}]
    if isinstance(tuned, Policy):
        write_policy(tuned, folder / "policy.json")
    elif tuned is not None:
        (folder / "policy.json").write_text(tuned)
    models = {"small": scripted("a"), "large": scripted("b")}
    return write(folder, models, settings.pop("stages", stages), policy="policy.json", **settings)


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    return [text.removeprefix(str(path.parent) + "/") for text in caught.value.problems]


def test_a_policy_that_fits_comes_with_the_graph(tmp_path: Path) -> None:
    assert load_graph(graph(tmp_path)).policy == TUNED


def test_a_missing_or_broken_file_is_a_problem_of_its_line(tmp_path: Path) -> None:
    [line] = problems(graph(tmp_path, None))
    assert line.startswith("graph.yaml:")
    assert "policy: policy file 'policy.json' does not exist" in line
    [line] = problems(graph(tmp_path, "{"))
    assert "policy.json: policy: Invalid JSON" in line
    assert "cascade tune" in line
    [line] = problems(graph(tmp_path, TUNED.model_dump_json().replace('"large"', '"small"')))
    assert "each model may be asked once" in line


def test_a_feature_that_no_one_can_compute_is_refused(tmp_path: Path) -> None:
    text = TUNED.model_dump_json().replace('"kind":"confidence"', '"kind":"text"')
    assert "a feature of kind 'text' needs 'name'" in problems(graph(tmp_path, text))[0]


@pytest.mark.parametrize(
    ("tuned", "changes", "expected"),
    [
        (policy(stage("smal", 0.7), stage("large")), {}, "asks model 'smal', which this graph does not have"),
        (policy(stage("large", 0.7), stage("small")), {}, "the stages of this graph escalate in another"),
        (TUNED, {"first": {"accept": 0.5}}, "the policy decides what this stage accepts; remove 'accept'"),
        (TUNED, {"first": {"confidence": None}}, "the policy's score needs the confidence of 'small'"),
        (
            policy(stage("small"), stage("large")), {"first": {"audit_rate": 0.1}},
            "the policy accepts always at this stage, so there is nothing to audit",
        ),
        (
            TUNED, {"stages": [{"name": "both", "ask": ["small", "large"]}]},
            "decides about model 'small', but no stage asks it alone",
        ),
    ],
)  # fmt: skip
def test_a_policy_of_another_graph_is_refused(
    tmp_path: Path, tuned: Policy, changes: dict[str, Any], expected: str
) -> None:
    assert expected in "\n".join(problems(graph(tmp_path, tuned, **changes)))


def test_a_model_that_changed_since_makes_the_policy_stale(tmp_path: Path) -> None:
    loaded = load_graph(graph(tmp_path))
    now = setup_hash(loaded.graph, "small", loaded.base, {})
    path = graph(tmp_path, TUNED.model_copy(update={"setups": {"small": now}}))
    assert load_graph(path).policy is not None
    path.write_text(path.read_text().replace("by: logprob", "by: logprob, signal: min"))
    [line] = problems(path)
    assert "is stale: tuned for model 'small'" in line
