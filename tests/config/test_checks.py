"""Static checks: each rule of a graph has a case that breaks it, and a graph beside it that keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripting import checked, scripted, write

from cascade.config.load import load_graph
from cascade.errors import ConfigError

LABELS = ["left", "right"]
OPENAI = {"kind": "openai", "model": "gpt-5.2"}
GATE = {"by": "keywords", "rules": {"left": ["l"], "right": ["r"]}, "to": {"left": "first", "right": "last"}}


def problems(folder: Path, models: dict, stages: list, **settings: object) -> list[str]:
    path = write(folder, models, stages, **settings)
    try:
        load_graph(path)
    except ConfigError as error:
        return [problem.split(": ", 1)[1] for problem in error.problems]
    return []


def asks(name: str, *models: str, **settings: object) -> dict:
    return {"name": name, "ask": list(models), **settings}


NANO = {"nano": scripted("yes")}
TWO = {"nano": scripted("yes"), "large": scripted("yes")}
SPLIT = {"nano": scripted("left", labels=LABELS), "large": scripted("left", labels=LABELS)}
HERE = "model 'nano'"


def door(**gate: object) -> list[dict]:
    return [
        {"name": "door", "gate": {**GATE, **gate}, "escalate": "last"},
        asks("first", "nano"),
        asks("last", "large"),
    ]


def judge(**gate: object) -> dict:
    return {"by": "classifier", "model": "nano", "to": {"left": "first", "right": "last"}, **gate}


@pytest.mark.parametrize(
    ("models", "stages", "settings"),
    [
        (NANO, [asks("first", "nano")], {}),
        (NANO, [checked("first", "nano")], {}),
        (TWO, [checked("first", "nano"), asks("last", "large")], {"baseline": "large"}),
        (TWO, [asks("first", "nano", escalate="end")], {"baseline": "large"}),
        (TWO, door(), {}),
        (
            SPLIT,
            [{"name": "door", "gate": judge(accept=0.6)}, asks("first", "nano"), asks("last", "large")],
            {},
        ),
        (TWO, [checked("first", "nano", "large", by="agreement")], {}),
        (NANO, [checked("first", "nano", by="agreement", samples=3)], {}),
        (
            TWO,
            [asks("first", "nano", "large", gate={"by": "keywords", "rules": {"nano": ["n"], "large": []}})],
            {},
        ),
        ({"me": {"kind": "human"}}, [asks("first", "me")], {}),
        ({"big": {**OPENAI, "temperature": 1.0}}, [checked("first", "big", by="agreement", samples=3)], {}),
        ({"big": OPENAI}, [checked("first", "big")], {"limits": {"cost_usd": 0.01}}),
        ({"mine": {"kind": "openai", "model": "mine", "local": True}}, [asks("first", "mine")], {}),
        ({"hub": {"kind": "llamacpp", "path": "hf:a/b/c.gguf"}}, [checked("first", "hub", by="labels")], {}),
    ],
)
def test_a_sound_graph_has_no_problems(tmp_path: Path, models: dict, stages: list, settings: dict) -> None:
    assert problems(tmp_path, models, stages, **settings) == []


@pytest.mark.parametrize(
    ("models", "stages", "settings", "expected"),
    [
        # names
        (
            NANO,
            [asks("first", "nno")],
            {},
            "stages.0.ask.0: unknown model 'nno'; known: nano; did you mean 'nano'?",
        ),
        (TWO, [asks("first", "nano")], {}, "models.large: model 'large' is never asked"),
        (NANO, [asks("first", "nano")], {"baseline": "opus"}, "baseline: unknown model 'opus'; known: nano"),
        (
            NANO,
            [asks("first", "nano", escalate="lst")],
            {},
            "stages.0.escalate: unknown stage 'lst'; known: first, end",
        ),
        (
            TWO,
            door(to={"left": "first", "right": "end"}),
            {},
            "stages.0.gate.to.right: unknown stage 'end'; known: door",
        ),
        (TWO, door(by="classifier", model="nan", rules=None), {}, "stages.0.gate.rules: unknown key 'rules'"),
        (
            SPLIT,
            [{"name": "door", "gate": judge(model="nan")}, asks("first", "nano"), asks("last", "large")],
            {},
            "stages.0.gate.model: unknown model 'nan'; known: large, nano; did you mean 'nano'?",
        ),
        (
            NANO,
            [asks("a", "nano"), asks("a", "nano")],
            {},
            "stages.1.name: stage name 'a' is already that of stages.0",
        ),
        (NANO, [asks("end", "nano")], {}, "stages.0.name: 'end' is the word for the end"),
        # shapes
        (NANO, [{"name": "first"}], {}, "stages.0: stage 'first' asks nobody"),
        (
            NANO,
            [asks("first", "nano", gate={"by": "keywords", "rules": {}, "to": {}})],
            {},
            "stages.0.gate.to: no branches",
        ),
        (TWO, [{**door()[0], "ask": ["nano"]}, *door()[1:]], {}, "stages.0.ask: 'ask' cannot stand beside"),
        (
            TWO,
            [{**door()[0], "accept": 0.5}, *door()[1:]],
            {},
            "stages.0.accept: 'accept' cannot stand beside",
        ),
        (TWO, door(top=1), {}, "stages.0.gate.top: 'top' cannot stand beside 'to'"),
        (
            NANO,
            [asks("first", "nano", "nano")],
            {},
            "stages.0.ask.1: model 'nano' is asked twice; use 'samples'",
        ),
        (
            NANO,
            [asks("first", "nano", accept=0.5)],
            {},
            "stages.0.accept: 'accept' needs 'confidence' beside it",
        ),
        (
            NANO,
            [asks("first", "nano", confidence={"by": "logprob"})],
            {},
            "stages.0.confidence: 'confidence' needs 'accept'",
        ),
        # flow
        (
            NANO,
            [asks("a", "nano", escalate="end"), asks("b", "nano")],
            {},
            "stages.1: stage 'b' can never be reached",
        ),
        (NANO, [asks("a", "nano", escalate="a")], {}, "stages.0: cycle: a → a;"),
        (
            NANO,
            [asks("a", "nano"), asks("b", "nano"), asks("c", "nano", escalate="b")],
            {},
            "stages.2: cycle: b → c → b;",
        ),
        (
            TWO,
            [*door(to={"left": "first", "right": "first"})[:2], asks("last", "large", escalate="door")],
            {},
            "stages.2: cycle: door → first → last → door;",
        ),
        # gates
        (TWO, door(rules={"left": ["l"]}), {}, "stages.0.gate.rules: no words for 'right'"),
        (
            TWO,
            door(rules={"left": ["l"], "right": ["r"], "rigth": []}),
            {},
            "stages.0.gate.rules.rigth: unknown candidate 'rigth'; known: left, right; did you mean 'right'?",
        ),
        (
            TWO,
            door(rules={"left": ["l"], "right": ["r", " "]}),
            {},
            "stages.0.gate.rules.right.1: ' ' is blank",
        ),
        (
            TWO,
            door(accept=0.5),
            {},
            "stages.0.gate.accept: 0.5 can never fire: the best of 2 has at least 0.5",
        ),
        (
            TWO,
            [
                asks(
                    "first",
                    "nano",
                    "large",
                    gate={"by": "keywords", "rules": {"nano": [], "large": []}, "top": 3},
                )
            ],
            {},
            "stages.0.gate.top: 3 is more than the 2 models in 'ask'",
        ),
        (
            SPLIT,
            [
                {"name": "door", "gate": judge(to={"left": "first", "up": "last"})},
                asks("first", "nano"),
                asks("last", "large"),
            ],
            {},
            "stages.0.gate.model: labels of 'nano' are not the candidates: labels are 'left', 'right'; ",
        ),
        (
            TWO,
            [{"name": "door", "gate": judge()}, asks("first", "nano"), asks("last", "large")],
            {},
            "stages.0.gate.model: model 'nano' has no labels",
        ),
        (
            {**TWO, "nano": {**OPENAI, "labels": LABELS}},
            [{"name": "door", "gate": judge()}, asks("first", "nano"), asks("last", "large")],
            {},
            "stages.0.gate.model: model 'nano' is an endpoint, which reports no distribution",
        ),
        # confidence
        (
            NANO,
            [checked("first", "nano", by="labels")],
            {},
            "stages.0.confidence.by: model 'nano' has no labels",
        ),
        (
            {"nano": scripted("left", labels=LABELS, confidence=None)},
            [checked("first", "nano", by="labels")],
            {},
            "stages.0.confidence.by: scripted model 'nano' has no 'confidence'",
        ),
        (
            {"nano": scripted("yes", confidence=None)},
            [checked("first", "nano")],
            {},
            "stages.0.confidence.by: scripted",
        ),
        (
            {"nano": {**OPENAI, "labels": LABELS}},
            [checked("first", "nano", by="labels")],
            {},
            "stages.0.confidence.by: model 'nano' is an endpoint",
        ),
        (
            {"nano": {**OPENAI, "logprobs": False}},
            [checked("first", "nano")],
            {},
            "stages.0.confidence.by: model 'nano' has 'logprobs: false'",
        ),
        (
            {"nano": OPENAI},
            [checked("first", "nano", confidence={"by": "logprob", "signal": "entropy"})],
            {},
            "stages.0.confidence.by: model 'nano' is an endpoint, which reports a few tokens only",
        ),
        (
            {"me": {"kind": "human"}},
            [checked("first", "me")],
            {},
            "stages.0.confidence.by: model 'me' is a person",
        ),
        (
            {"me": {"kind": "human"}},
            [checked("first", "me", by="labels")],
            {},
            "stages.0.confidence.by: model 'me' has no",
        ),
        (
            NANO,
            [checked("first", "nano", by="agreement")],
            {},
            "stages.0.confidence.by: 'agreement' of a single draft",
        ),
        (
            TWO,
            [
                checked(
                    "first",
                    "nano",
                    "large",
                    by="agreement",
                    gate={"by": "keywords", "rules": {"nano": [], "large": []}},
                )
            ],
            {},
            "stages.0.confidence.by: 'agreement' of a single draft",
        ),
        (
            {"nano": OPENAI},
            [asks("first", "nano", samples=2)],
            {},
            "stages.0.samples: 2 samples of 'nano' would be equal",
        ),
        (
            {**NANO, "me": {"kind": "human"}},
            [asks("first", "nano", "me")],
            {},
            "stages.0.ask: model 'me' is a person",
        ),
        (
            {"me": {"kind": "human"}},
            [asks("first", "me", samples=2)],
            {},
            "stages.0.samples: model 'me' is a person",
        ),
        # thresholds
        (
            NANO,
            [checked("first", "nano", accept=0)],
            {},
            "stages.0.accept: 0 can never fire: every confidence is at least 0",
        ),
        (
            NANO,
            [checked("first", "nano", by="agreement", samples=4, accept=0.25)],
            {},
            "stages.0.accept: 0.25 can never fire: every confidence is at least 0.25",
        ),
        # models
        (
            {"nano": {**OPENAI, "model": "my-own"}},
            [asks("first", "nano")],
            {},
            "models.nano.model: no price for 'my-own' is known; give one in USD per million tokens",
        ),
        (
            {"nano": {**OPENAI, "url": "localhost:80/v1"}},
            [asks("first", "nano")],
            {},
            "models.nano.url: 'localhost:80/v1'",
        ),
        (
            {"nano": {**OPENAI, "prompt": "Answer."}},
            [asks("first", "nano")],
            {},
            "models.nano.prompt: '{text}' is missing",
        ),
        (
            {"nano": {**OPENAI, "prompt": "{text} {lables}"}},
            [asks("first", "nano")],
            {},
            "models.nano.prompt: unknown placeholder '{lables}'; did you mean '{labels}'?",
        ),
        (
            {"nano": {**OPENAI, "prompt": "{text} {labels}"}},
            [asks("first", "nano")],
            {},
            "models.nano.prompt: '{labels}' is used, but the model has no 'labels'",
        ),
        (
            {"me": {"kind": "human", "question": "What?"}},
            [asks("first", "me")],
            {},
            "models.me.question: '{text}' is missing",
        ),
        (
            {"nano": {**OPENAI, "labels": ["a"]}},
            [asks("first", "nano")],
            {},
            "models.nano.labels: 1 labels; give at least two",
        ),
        (
            {"nano": {**OPENAI, "labels": ["a", "b", "a", ""]}},
            [asks("first", "nano")],
            {},
            "models.nano.labels.2: label 'a' is given twice",
        ),
        (
            {"nano": {"kind": "llamacpp", "path": "bundled:tiny", "task": "route", "memory_mb": 4096}},
            [asks("first", "nano")],
            {},
            "models.nano.memory_mb: 'memory_mb' limits a process of its own; add 'isolate: process'",
        ),
        (
            {"nano": {**OPENAI, "labels": "clinc"}},
            [asks("first", "nano")],
            {},
            "models.nano.labels: 'clinc' names no label set",
        ),
        # limits
        (
            NANO,
            [asks("first", "nano", samples=5)],
            {"limits": {"calls": 4}},
            "limits.calls: 4 calls: stage 'first' makes up to 5",
        ),
        (
            {"nano": OPENAI},
            [asks("first", "nano")],
            {"limits": {"cost_usd": 0.001}},
            "limits.cost_usd: $0.001: stage 'first' may cost $0.007168 for its answers alone",
        ),
    ],
)
def test_a_broken_rule_is_one_problem(
    tmp_path: Path, models: dict, stages: list, settings: dict, expected: str
) -> None:
    found = problems(tmp_path, models, stages, **settings)
    assert any(line.startswith(expected) for line in found), found


def test_what_is_wrong_in_many_places_is_reported_at_once(tmp_path: Path) -> None:
    models = {**NANO, "nano2": {**OPENAI, "model": "my-own"}}
    stages = [checked("a", "nano", by="labels"), checked("b", "nanoo", accept=0)]
    found = problems(tmp_path, models, stages, limits={"calls": 1})
    assert len(found) == 5, found


def test_a_cycle_is_found_in_a_graph_of_hundreds_of_stages(tmp_path: Path) -> None:
    stages = [asks(f"s{index}", "nano") for index in range(400)]
    assert problems(tmp_path, NANO, stages) == []
    stages[-1]["escalate"] = "s0"
    [found] = problems(tmp_path, NANO, stages)
    assert found.startswith("stages.399: cycle: s0 → s1 → s2")


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([checked("first", "nano", audit_rate=0.1), asks("last", "large")], None),
        ([asks("first", "nano", audit_rate=0.1), asks("last", "large")], "'audit_rate' needs 'confidence'"),
        (
            [checked("first", "nano"), checked("last", "large", audit_rate=0.1)],
            "no stage follows 'last' to grade its answers",
        ),
        ([checked("first", "nano", audit_rate=1.1), asks("last", "large")], "1.1 is wrong"),
    ],
)
def test_audits_need_a_check_and_a_stage_that_grades(
    stages: list[dict], problem: str | None, tmp_path: Path
) -> None:
    found = problems(tmp_path, TWO, stages)
    assert found == [] if problem is None else problem in found[0]
