"""Calibrations of a graph: missing, broken, stale or foreign ones, and thresholds that they never reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf_maker import make_gguf
from scripting import scripted, write

from cascade.config.load import load_graph
from cascade.config.references import fingerprint
from cascade.errors import ConfigError
from cascade.policy.calibrate import Calibration, write_calibration

EXPERT = {"kind": "llamacpp", "path": "expert.gguf", "task": "pets"}


def graph(folder: Path, *, accept: float = 0.8, model: dict[str, Any] | None = None, **check: Any) -> Path:
    make_gguf(
        folder / "expert.gguf", tasks={"pets": ["cat", "dog", "cow", "hen"], "sides": ["left", "right"]}
    )
    confidence = {"by": "labels", "calibration": "calibration/first.json", **check}
    stage = {"name": "first", "ask": ["nano"], "confidence": confidence, "accept": accept}
    return write(folder, {"nano": model or EXPERT}, [stage])


def calibrate(path: Path, **fields: Any) -> None:
    """Write the calibration of the graph's only stage, as `cascade calibrate` would."""
    loaded = load_graph(path, calibrated=False)
    values = {
        "method": "isotonic", "x": (0.2, 0.9), "y": (0.1, 0.95), "by": "labels", "signal": "top1", "rows": 10,
        "accuracy": 0.8, "auroc": 0.9, "ece": 0.01, "brier": 0.1, "data_sha256": "0" * 64, "fitted": "2026",
        "model_fingerprint": fingerprint(loaded.graph.models["nano"], loaded.base),
    }  # fmt: skip
    write_calibration(Calibration(**values | fields), path.parent / "calibration" / "first.json")


def problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    [line] = caught.value.problems
    return line.split(": ", 1)[1]


def test_a_fresh_calibration_comes_with_the_graph(tmp_path: Path) -> None:
    path = graph(tmp_path)
    calibrate(path)
    assert load_graph(path).calibrations["first"].highest == 0.95


def test_a_missing_calibration_says_how_to_fit_one(tmp_path: Path) -> None:
    found = problem(graph(tmp_path))
    assert found.startswith(
        "stages.0.confidence.calibration: calibration file 'calibration/first.json' does not exist"
    )
    assert found.endswith("fit it: cascade calibrate GRAPH first --data ROWS")


def test_a_graph_without_its_calibration_loads_for_the_command_that_writes_it(tmp_path: Path) -> None:
    assert load_graph(graph(tmp_path), calibrated=False).calibrations == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 1}', b'{"version": 9}'])
def test_a_broken_calibration_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = graph(tmp_path)
    calibrate(path)
    (tmp_path / "calibration" / "first.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"graph\.yaml:\d+: stages\.0\.confidence\.calibration: "):
        load_graph(path)


def test_a_calibration_is_stale_when_the_models_file_has_changed(tmp_path: Path) -> None:
    path = graph(tmp_path)
    calibrate(path)
    make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog", "cow", "hen"]}, seed=7)
    found = problem(path)
    assert "'calibration/first.json' is stale: fitted for model " in found
    assert found.endswith("fit it: cascade calibrate GRAPH first --data ROWS")


def test_a_calibration_is_stale_when_the_model_has_another_task(tmp_path: Path) -> None:
    path = graph(tmp_path)
    calibrate(path)
    path.write_text(path.read_text().replace("task: pets", "task: sides"))
    assert "is stale" in problem(path)


def test_a_calibration_of_another_signal_is_an_error(tmp_path: Path) -> None:
    path = graph(tmp_path, signal="margin")
    calibrate(path)
    found = problem(path)
    assert "was fitted by 'labels', signal 'top1', but this stage goes by 'labels', signal 'margin'" in found


def test_a_calibration_does_not_fit_a_stage_of_several_models(tmp_path: Path) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog", "cow", "hen"]})
    confidence = {"by": "labels", "calibration": "calibration/first.json"}
    stage = {"name": "first", "ask": ["nano", "other"], "confidence": confidence, "accept": 0.8}
    other = scripted("cat", labels=["cat", "dog"])
    path = write(tmp_path, {"nano": EXPERT, "other": other}, [stage])
    calibrate(path)
    assert "belongs to one model, but this stage asks 'nano', 'other'" in problem(path)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (0.96, "0.96 can never be reached: the calibration gives at most 0.95; lower it"),
        (0.1, "0.1 can never fire: every confidence is at least 0.1; raise it"),
        (0.05, "0.05 can never fire: every confidence is at least 0.1; raise it"),
        (0.95, None),
        (0.11, None),
    ],
)
def test_a_threshold_lies_between_what_the_calibration_can_give(
    tmp_path: Path, accept: float, expected: str | None
) -> None:
    path = graph(tmp_path, accept=accept)
    calibrate(path)
    if expected is None:
        assert load_graph(path).graph.stages[0].accept == accept
    else:
        assert problem(path).startswith(f"stages.0.accept: {expected}")


def test_an_uncalibrated_label_threshold_lies_above_chance(tmp_path: Path) -> None:
    path = graph(tmp_path, accept=0.25, calibration=None)
    assert problem(path).startswith("stages.0.accept: 0.25 can never fire: every confidence is at least 0.25")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            {**EXPERT, "task": None},
            "models.nano: 'expert.gguf' has several tasks; give 'task', one of: pets, sides",
        ),
        (
            {**EXPERT, "task": "pet"},
            "models.nano.task: unknown task 'pet' of 'expert.gguf'; known: pets, sides; did",
        ),
        (
            {**EXPERT, "labels": ["a", "b"]},
            "models.nano.labels: 'labels' cannot stand here: an expert's task has its own",
        ),
        ({**EXPERT, "prompt": "{text}"}, "models.nano.prompt: 'prompt' cannot stand here"),
        (
            {**EXPERT, "path": "expret.gguf"},
            "models.nano.path: GGUF file 'expret.gguf' does not exist; files there: expert",
        ),
        ({**EXPERT, "path": "graph.yaml"}, "models.nano.path: "),
    ],
)
def test_an_expert_that_is_not_what_the_graph_says_is_one_problem(
    tmp_path: Path, model: dict[str, Any], expected: str
) -> None:
    assert problem(graph(tmp_path, model=model, calibration=None)).startswith(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"confidence": {"by": "logprob"}},
            "stages.0.confidence.by: model 'nano' scores labels and writes no tokens",
        ),
        ({"samples": 3}, "stages.0.samples: 3 samples of 'nano' would be equal: it scores its labels"),
    ],
)
def test_an_expert_scores_its_labels_once_and_writes_no_tokens(
    tmp_path: Path, settings: dict[str, Any], expected: str
) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog"]})
    stage = {"name": "first", "ask": ["nano"], "confidence": {"by": "labels"}, "accept": 0.8, **settings}
    nano = {**EXPERT, "temperature": 1.0}
    assert problem(write(tmp_path, {"nano": nano}, [stage])).startswith(expected)


def test_the_price_of_a_label_is_that_of_one_token(tmp_path: Path) -> None:
    make_gguf(tmp_path / "expert.gguf", tasks={"pets": ["cat", "dog"]})
    nano = {**EXPERT, "price": {"input": 1.0, "output": 100.0}}
    stages = [{"name": "first", "ask": ["nano"]}]
    assert (
        load_graph(write(tmp_path, {"nano": nano}, stages, limits={"cost_usd": 0.0001})).graph.name == "test"
    )


def test_a_task_is_refused_where_the_file_has_none(tmp_path: Path) -> None:
    path = graph(tmp_path, calibration=None)
    make_gguf(tmp_path / "expert.gguf")
    with pytest.raises(ConfigError, match=r"models\.nano\.task: 'pets': 'expert\.gguf' has no tasks"):
        load_graph(path)


@pytest.mark.parametrize("samples", [1, 2, 3, 8])
def test_a_threshold_of_one_is_not_told_to_rise(tmp_path: Path, samples: int) -> None:
    model = scripted("yes")
    stage = {"name": "only", "ask": ["m"], "samples": samples, "confidence": {"by": "agreement"}}
    with pytest.raises(ConfigError) as caught:
        load_graph(write(tmp_path, {"m": model}, [stage | {"accept": 1 / samples}]))
    assert f"{1 / samples:g} can never fire" in str(caught.value)
    assert ("raise it" in str(caught.value)) == (samples > 1)
    assert ("such as several samples" in str(caught.value)) == (samples == 1)
