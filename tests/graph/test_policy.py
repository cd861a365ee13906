"""A policy in a graph: live decisions equal those on the outcome table, and the trace says who decided."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import policy as hand_made
from policies import stage as policy_stage
from scripting import scripted, write

from cascade import Cascade
from cascade.explain import describe, explain, render_text
from cascade.lab.tables.collect import collect_outcomes
from cascade.lab.tables.rows import LabelledRow
from cascade.lab.tuning.tune import tune
from cascade.policy.apply import apply_policy
from cascade.policy.artifact import Feature, Goal, Policy, PolicyStage, PromptGate, Score, Term, write_policy
from cascade.policy.table import Outcomes
from cascade.records import Result


def table_of(path: Path, rows: list[LabelledRow]) -> Outcomes:
    """Ask every model of a graph about every row, as `cascade outcomes` does."""
    table = collect_outcomes(path, rows, path.with_suffix(".jsonl"))
    index = {name: row for row, name in enumerate(table.ids)}
    return table.take(np.array([index[row.id] for row in rows]))


def live(path: Path, table: Outcomes) -> list[Result]:
    with Cascade.load(path, record=False) as cascade:
        return cascade.batch([prompt or "" for prompt in table.prompts])


def same(policy: Policy, table: Outcomes, results: list[Result]) -> None:
    """Every live run ended, cost and was judged as its row."""
    decided = apply_policy(policy, table)
    for row, result in enumerate(results):
        index = int(decided.answered_by[row])
        assert (result.model if result.status == "accepted" else None) == (
            policy.chain[index] if index >= 0 else None
        )
        assert result.cost_usd == pytest.approx(decided.cost_usd[row])
        if np.isfinite(decided.confidence[row]):
            assert result.confidence == pytest.approx(decided.confidence[row], abs=1e-12)
        for step in result.trace:
            if step.estimate is not None and step.estimate.by == "policy":
                score = decided.scores[step.calls[0].model][row]
                assert step.estimate.score == pytest.approx(score, abs=1e-12)


def questions(count: int) -> tuple[list[LabelledRow], dict[str, dict[str, str]]]:
    """Rows whose difficulty shows in the prompt and in whether two small models agree."""
    draw, rows, replies = random.Random(1), [], {"haiku": {}, "sonnet": {}, "opus": {}}
    for number in range(count):
        hard = draw.random()
        text = f"q{number}-{'x' * int(30 * hard)}"
        rows.append(LabelledRow(str(number), text, f"answer {number % 7}"))
        for name, skill in (("haiku", 0.9), ("sonnet", 1.2), ("opus", 2.0)):
            right = draw.random() < skill - hard
            replies[name][text] = rows[-1].label if right else f"guess {draw.randrange(20)}"
    return rows, replies


def graph(folder: Path, replies: dict[str, dict[str, str]], **settings: Any) -> Path:
    models = {
        name: scripted(replies=replies[name], price={"input": price, "output": price}, confidence=0.7)
        for name, price in (("haiku", 1.0), ("sonnet", 5.0), ("opus", 100.0))
    }
    check = {"confidence": {"by": "logprob"}}
    stages = [{"name": name, "ask": [name], **check} for name in ("haiku", "sonnet", "opus")]
    if "policy" not in settings:
        stages = [{**stage, "accept": 0.8} for stage in stages]
    return write(folder, models, stages, **settings)


@pytest.mark.parametrize(
    "goal",
    [
        Goal(kind="lambda", value=300.0),
        Goal(kind="lambda", value=100.0, abstention_price=0.45),
        Goal(kind="max_loss", value=0.2, delta=0.1),
    ],
    ids=["price", "abstaining", "loss"],
)
def test_live_decisions_equal_the_table(tmp_path: Path, goal: Goal) -> None:
    rows, replies = questions(160)
    table = table_of(graph(tmp_path, replies), rows)
    policy = tune(table, goal)
    assert isinstance(policy, Policy)
    write_policy(policy, tmp_path / "policy.json")
    path = graph(tmp_path, replies, policy="policy.json")
    decided = apply_policy(policy, table).answered_by
    assert len(set(decided.tolist())) > 1, "the test needs a policy that decides"
    same(policy, table, live(path, table))


def test_a_gate_skips_and_a_failed_call_escalates_as_in_the_table(tmp_path: Path) -> None:
    rows, replies = questions(60)
    for row in rows[:12]:
        del replies["haiku"][row.text]  # no reply: the call fails
    table = table_of(graph(tmp_path, replies), rows)
    length = Term(feature=Feature(kind="prompt", name="chars"), weight=1.0)
    agree = Feature(kind="agreement", model="haiku", other="sonnet")
    policy = Policy(
        **hand_made(policy_stage("haiku")).model_dump(exclude={"stages", "gate"}),
        gate=PromptGate(score=Score(bias=-3.2, terms=(length,)), skip_at=0.5, to="opus"),
        stages=(
            PolicyStage(model="haiku", accept="never"),
            PolicyStage(
                model="sonnet",
                accept=0.6,
                score=Score(bias=-2.0, terms=(Term(feature=agree, weight=4.0),)),
            ),
            PolicyStage(model="opus", accept="always"),
        ),
    )
    write_policy(policy, tmp_path / "policy.json")
    results = live(graph(tmp_path, replies, policy="policy.json"), table)
    same(policy, table, results)
    rules = [tuple(step.decision.rule for step in result.trace) for result in results]
    assert ("policy_skip", "policy_skip", "policy_accept") in rules
    assert ("no_draft", "no_estimate", "policy_accept") in rules
    assert ("policy_below", "policy_accept") in rules
    failed = results[rules.index(("no_draft", "no_estimate", "policy_accept"))]
    assert "agreement haiku sonnet" in (describe(failed.trace[1].decision) or "")
    assert f"policy {policy.digest}" in render_text(explain(failed), width=200)


def test_stages_that_the_policy_does_not_name_are_passed_over(tmp_path: Path) -> None:
    rows, replies = questions(6)
    policy = hand_made(policy_stage("sonnet", 0.5), policy_stage("opus"))
    write_policy(policy, tmp_path / "policy.json")
    path = graph(tmp_path, replies, policy="policy.json")
    result = live(path, Outcomes(["0"], [rows[0].text], {}))[0]
    assert [step.decision.rule for step in result.trace] == ["policy_skip", "policy_accept"]
    assert result.trace[1].estimate is not None
    assert result.trace[1].estimate.signals == {"confidence sonnet": pytest.approx(np.log(0.7 / 0.3))}


def test_bundled_experts_decide_live_as_in_the_table(tmp_path: Path) -> None:
    texts = [
        f"{verb} my {thing}{end}"
        for verb in ("where is", "cancel", "freeze", "tell me about", "please translate")
        for thing in ("card", "account", "flight to Rome", "banana")
        for end in ("", " now please")
    ]
    models: dict[str, Any] = {
        "haiku": {"kind": "llamacpp", "path": "bundled:tiny", "task": "clinc150"},
        "person": scripted("oos", price={"input": 1e4, "output": 1e4}),
    }
    stages: list[dict[str, Any]] = [{"name": "first", "ask": ["haiku"], "confidence": {"by": "labels"}}]
    before = write(tmp_path, models, [{**stages[0], "accept": 0.5}, {"name": "last", "ask": ["person"]}])
    rows = [LabelledRow(str(place), text, "oos") for place, text in enumerate(texts)]
    table = table_of(before, rows)
    policy = tune(table, Goal(kind="lambda", value=8.0))
    assert isinstance(policy, Policy)
    if policy.stages[0].score is None:  # whatever was tuned, the score must be compared
        policy = hand_made(policy_stage("haiku", 0.5), policy_stage("person"))
    write_policy(policy, tmp_path / "policy.json")
    path = write(tmp_path, models, [*stages, {"name": "last", "ask": ["person"]}], policy="policy.json")
    results = live(path, table)
    assert {result.model for result in results} == {"haiku", "person"}
    same(policy, table, results)
