"""What `cascade check` refuses about shadows and canaries, and what counts as reachable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policies import policy, stage
from scripting import checked, scripted, write

from cascade.config.accesses import list_accesses
from cascade.config.draw import mermaid
from cascade.config.load import load_graph
from cascade.errors import ConfigError
from cascade.policy.calibrate import Calibration, write_calibration

MODELS = {"nano": scripted("yes"), "new": scripted("yes"), "large": scripted("yes")}
LAST = {"name": "last", "ask": ["large"]}
NEW = {"model": "new", "share": 0.1}
GATE = {"by": "keywords", "rules": {"a": ["l"], "b": ["r"]}, "to": {"a": "first", "b": "last"}}


def problems(folder: Path, stages: list, models: dict | None = None, **settings: object) -> list[str]:
    path = write(folder, models or MODELS, stages, **settings)
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    return [problem.split(": ", 1)[1] for problem in caught.value.problems]


def calibration(folder: Path, name: str, fingerprint: str) -> str:
    fitted = Calibration(
        method="isotonic", scores=(), x=(0.0, 1.0), y=(0.1, 0.9), by="logprob", signal="p10", rows=40,
        accuracy=0.5, auroc=0.5, ece=0.1, brier=0.2, data_sha256="0" * 64, model_fingerprint=fingerprint,
        fitted="2026-11-20",
    )  # fmt: skip
    write_calibration(fitted, folder / name)
    return name


@pytest.mark.parametrize("part", ["shadow", "canary"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "nwe"}, "model: unknown model 'nwe'"),
        ({"model": "nano"}, "model: stage 'first' asks 'nano' already"),
        ({"share": 0.0}, "share: 0.0 "),
        ({"share": 1.5}, "share: 1.5 "),
    ],
)
def test_the_model_and_the_share(tmp_path: Path, part: str, change: dict, said: str) -> None:
    models = {"nano": scripted("yes"), "new": scripted("yes")}
    stages = [checked("first", "nano", **{part: {**NEW, **change}}), {"name": "last", "ask": ["new"]}]
    (told,) = problems(tmp_path, stages, models)
    assert told.startswith(f"stages.0.{part}.{said}")


DOOR = {"name": "door", "gate": GATE, "shadow": NEW, "escalate": "last"}
FREE = {"name": "first", "ask": ["nano"]}


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([DOOR, checked("first", "nano"), LAST], "'shadow' cannot stand beside a gate's 'to'"),
        ([checked("first", "nano", "large", by="agreement", shadow=NEW)], "is compared with one model"),
        ([checked("first", "nano", canary={**NEW, "calibration": "no.json"}), LAST], "does not exist"),
        ([{**FREE, "canary": {**NEW, "accept": 0.5}}, LAST], "has no 'accept'"),
        ([{**FREE, "canary": {**NEW, "calibration": "c"}}, LAST], "no 'confidence'"),
    ],
)
def test_the_stage(tmp_path: Path, stages: list, said: str) -> None:
    assert said in "\n".join(problems(tmp_path, stages))


def test_a_person_is_not_compared(tmp_path: Path) -> None:
    models = {**MODELS, "new": {"kind": "human"}}
    told = problems(tmp_path, [checked("first", "nano", shadow=NEW), LAST], models)
    assert any("'new' is a person" in problem for problem in told)


def test_calls_must_leave_the_shadow_room(tmp_path: Path) -> None:
    stages = [checked("first", "nano", shadow=NEW), LAST]
    told = problems(tmp_path, stages, limits={"calls": 2})
    assert told == [
        "stages.0.shadow: limits.calls is 2, and the stages from 'first' on make up to 2: the shadow could "
        "never be asked; raise it to 3"
    ]
    load_graph(write(tmp_path, MODELS, stages, limits={"calls": 3}))


def test_a_canary_beside_a_calibration_needs_its_own(tmp_path: Path) -> None:
    plain = load_graph(write(tmp_path, MODELS, [checked("first", "nano", canary=NEW), LAST]))
    own = calibration(tmp_path, "nano.json", plain.fingerprint("nano"))
    first = checked("first", "nano", canary=NEW)
    first["confidence"]["calibration"] = own
    told = problems(tmp_path, [first, LAST])
    assert "needs its own 'calibration': 'nano.json' belongs to the stage's model" in told[0]
    first["canary"] = {**NEW, "calibration": calibration(tmp_path, "new.json", "f" * 64)}
    assert "is stale: fitted for model" in problems(tmp_path, [first, LAST])[0]
    first["canary"]["calibration"] = calibration(tmp_path, "new.json", plain.fingerprint("new"))
    loaded = load_graph(write(tmp_path, MODELS, [first, LAST]))
    assert set(loaded.calibrations) == {"first", "first/new"}


def test_a_policy_that_does_not_know_the_canary(tmp_path: Path) -> None:
    tuned = policy(stage("nano", "never"), stage("large", "always"))
    (tmp_path / "policy.json").write_text(json.dumps(tuned.model_dump(mode="json")))
    first = {"name": "first", "ask": ["nano"], "canary": NEW}
    told = problems(tmp_path, [first, LAST], policy="policy.json")
    assert any("does not know model 'new'" in problem for problem in told)
    shadowed = {"name": "first", "ask": ["nano"], "shadow": NEW}
    load_graph(write(tmp_path, MODELS, [shadowed, LAST], policy="policy.json"))


def test_the_models_that_are_tried_are_reachable(tmp_path: Path) -> None:
    remote = {"kind": "openai", "model": "m", "url": "https://elsewhere.example/v1", "local": True}
    canary = {"model": "large", "share": 0.1, "calibration": "canary.json"}
    path = write(tmp_path, {**MODELS, "new": remote}, [checked("first", "nano", shadow=NEW, canary=canary)])
    listed = {(part, access.target) for part, access in list_accesses(path)}
    assert ("models.new", "elsewhere.example") in listed
    assert ("stages.first", "canary.json") in listed


def test_the_drawing_names_them(tmp_path: Path) -> None:
    loaded = load_graph(write(tmp_path, MODELS, [checked("first", "nano", shadow=NEW, canary=NEW), LAST]))
    assert "shadow: new, 0.1 of requests" in mermaid(loaded.graph)
    assert "canary: new, 0.1 of requests" in mermaid(loaded.graph)
