"""What a learned expert says of its own answer is a signal like any other, and is calibrated already."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from expert_maker import MOOD, make_expert

from cascade import Cascade, ConfigError
from cascade.confidence import estimate
from cascade.confidence.labels import LabelsConfidence, signals
from cascade.confidence.measurement import answers
from cascade.config.load import load_graph
from cascade.explain import explain, render_text
from cascade.models.base import Reply

GRAPH = """
name: moods
models:
  expert: {{kind: llamacpp, path: {path}}}
stages:
  - {{name: first, ask: [expert], confidence: {{by: labels, signal: {signal}}}, accept: {accept}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moods")
    make_expert(folder / "mood.gguf", {"mood": MOOD})
    return folder


def graph(folder: Path, signal: str, accept: float = 0.2, path: str = "mood.gguf") -> Path:
    file = folder / f"{signal}.yaml"
    file.write_text(GRAPH.format(signal=signal, accept=accept, path=path))
    return file


def reply(expert: Any) -> Reply:
    return Reply("a", labels={"a": 0.7, "b": 0.3}, meta={"expert": expert})


def test_both_signals_stand_beside_those_of_the_distribution() -> None:
    found = signals(reply({"confidence": 0.91, "known": 0.4}))
    assert (found["expert"], found["known"], found["top1"]) == (0.91, 0.4, 0.7)


@pytest.mark.parametrize(
    "expert", [None, "sure", {}, {"confidence": None, "known": "x"}, {"confidence": math.nan, "known": 1.5}]
)
def test_what_is_no_share_is_left_out(expert: Any) -> None:
    assert set(signals(reply(expert))) == {"top1", "margin", "entropy"}


def test_only_the_experts_own_confidence_counts_as_calibrated() -> None:
    measured = [(0, signals(reply({"confidence": 0.91, "known": 0.4})))]
    for signal, calibrated in (("expert", True), ("known", False), ("top1", False)):
        config = LabelsConfidence.model_validate({"by": "labels", "signal": signal})
        found = estimate(config, measured, None)
        assert found is not None
        assert found.calibrated is calibrated
    missing = LabelsConfidence(by="labels", signal="expert")
    assert estimate(missing, [(0, signals(reply(None)))], None) is None


def test_a_run_is_decided_by_the_experts_confidence_and_the_trace_keeps_it(folder: Path) -> None:
    with Cascade.load(graph(folder, "expert")) as cascade:
        result = cascade.invoke("I love this")
        assert result.status == "accepted"
        assert result.text == "good"
        assert result.calibrated is True
        found = result.trace[0].estimate
        assert found is not None
        assert found.score == found.confidence == result.trace[0].calls[0].meta["expert"]["confidence"]
        recorded = answers(result.trace)["expert"]
        assert {"expert", "known", "top1"} <= set(recorded.signals)
        text = render_text(explain(result, cascade.loaded.graph))
    assert "is itself a calibrated chance of being right" in text


def test_a_model_without_a_head_is_refused_with_what_to_use(folder: Path) -> None:
    for signal in ("expert", "known"):
        with pytest.raises(ConfigError, match=r"model 'expert' has no learned head.*use signal 'top1'"):
            load_graph(graph(folder, signal, path="'bundled:tiny', task: desk"))
    assert load_graph(graph(folder, "known")).facts["expert"].learned
