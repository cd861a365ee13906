"""Checks of gates, confidence and calibrations: every threshold must be able to say both yes and no."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cascade.config.messages import suggest
from cascade.config.references import existing_file, fingerprint
from cascade.config.resources import Facts, worst_drafts
from cascade.config.source import Loc, Problem
from cascade.errors import ConfigError
from cascade.policy.calibrate import Calibration, read_calibration
from cascade.spec.gates import GateConfig, KeywordsGate
from cascade.spec.schema import (
    AgreementConfidence,
    Graph,
    HumanModel,
    LabelsConfidence,
    LlamaCppModel,
    LogprobConfidence,
    ModelConfig,
    OpenAIModel,
    Prompted,
    ScriptedModel,
    Stage,
)


def gate_problems(graph: Graph, facts: Facts) -> Iterator[Problem]:
    """Yield what is wrong with the gates: their candidates, `top` and `accept`."""
    for index, stage in enumerate(graph.stages):
        gate = stage.gate
        if gate is None:
            continue
        candidates = list(gate.to or stage.ask)
        here: Loc = ("stages", index, "gate")
        if gate.to is None and gate.top > len(stage.ask) > 0:
            yield Problem((*here, "top"), f"{gate.top} is more than the {len(stage.ask)} models in 'ask'")
        least = 1 / max(1, len(candidates))
        if gate.accept is not None and gate.accept <= least:
            text = f"{gate.accept:g} can never fire: the best of {len(candidates)} has at least {least:.3g}"
            yield Problem((*here, "accept"), f"{text}; raise it, or remove it")
        yield from _candidates(gate, candidates, here, graph, facts)


def _candidates(
    gate: GateConfig, candidates: Sequence[str], here: Loc, graph: Graph, facts: Facts
) -> Iterator[Problem]:
    if isinstance(gate, KeywordsGate):
        for name, words in gate.rules.items():
            if name not in candidates:
                text = f"unknown candidate {name!r}; {suggest(name, candidates)}"
                yield Problem((*here, "rules", name), text)
            for place, word in enumerate(words):
                if not word.strip():
                    yield Problem((*here, "rules", name, place), f"{word!r} is blank, so it never matches")
        missing = [name for name in candidates if name not in gate.rules]
        if missing:
            yield Problem((*here, "rules"), f"no words for {_list(missing)}; each candidate needs an entry")
        return
    model = graph.models.get(gate.model)
    if model is None or gate.model in facts.unknown:
        return
    labels = facts.labels[gate.model]
    trouble = _no_distribution(gate.model, model, facts)
    if trouble:
        yield Problem((*here, "model"), trouble)
    elif labels is not None and set(labels) != set(candidates):
        text = f"labels of {gate.model!r} are not the candidates: labels are {_list(labels)}"
        yield Problem((*here, "model"), f"{text}; candidates are {_list(candidates)}")


def _list(names: Sequence[str]) -> str:
    """Return names for people; of many, the first few."""
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def confidence_problems(graph: Graph, facts: Facts) -> Iterator[Problem]:
    """Yield the stages whose models cannot give the signal that their confidence needs."""
    for index, stage in enumerate(graph.stages):
        here: Loc = ("stages", index)
        models = [(name, graph.models[name]) for name in stage.ask if name in graph.models]
        people = [name for name, model in models if isinstance(model, HumanModel)]
        if people and (len(stage.ask) > 1 or stage.samples > 1):
            text = f"model {people[0]!r} is a person: ask them alone, with one sample"
            yield Problem((*here, "samples" if stage.samples > 1 else "ask"), text)
        for name, model in models:
            why = _always_the_same(name, model, facts)
            if stage.samples > 1 and why:
                text = f"{stage.samples} samples of {name!r} would be equal: {why}"
                yield Problem((*here, "samples"), text)
            trouble = _no_signal(stage, name, model, facts)
            if trouble:
                yield Problem((*here, "confidence", "by"), trouble)
        if isinstance(stage.confidence, AgreementConfidence) and stage.ask and worst_drafts(stage) < 2:
            text = "'agreement' of a single draft says nothing; give 'samples', or ask several models"
            yield Problem((*here, "confidence", "by"), text)


def _always_the_same(name: str, model: ModelConfig, facts: Facts) -> str | None:
    """Why every sample of `model` gives the same answer."""
    if isinstance(model, LlamaCppModel) and facts.labels.get(name):
        return "it scores its labels, which takes no chance; ask once"
    if isinstance(model, Prompted) and model.temperature == 0:
        return "its temperature is 0; raise it"
    return None


def _no_signal(stage: Stage, name: str, model: ModelConfig, facts: Facts) -> str | None:
    """Why `model` can never give the signal that the stage's confidence needs."""
    check = stage.confidence
    if isinstance(check, LabelsConfidence):
        if isinstance(model, LlamaCppModel) and model.label_scoring == "top1" and check.signal == "top1":
            return None  # a lower bound of the answer's probability
        return _no_distribution(name, model, facts)
    if not isinstance(check, LogprobConfidence):
        return None
    if isinstance(model, LlamaCppModel) and facts.labels.get(name):
        return f"model {name!r} scores labels and writes no tokens; use 'labels'"
    if isinstance(model, HumanModel):
        return f"model {name!r} is a person and reports no token log-probabilities"
    if isinstance(model, ScriptedModel) and model.confidence is None:
        return f"scripted model {name!r} has no 'confidence', so it reports no token log-probabilities"
    if isinstance(model, OpenAIModel) and not model.logprobs:
        return f"model {name!r} has 'logprobs: false', so it reports no token log-probabilities"
    if isinstance(model, OpenAIModel) and check.signal == "entropy":
        return f"model {name!r} is an endpoint, which reports a few tokens only: no entropy; use 'p10'"
    return None


def _no_distribution(name: str, model: ModelConfig, facts: Facts) -> str | None:
    """Why `model` can never report a distribution over labels."""
    if isinstance(model, OpenAIModel):
        return f"model {name!r} is an endpoint, which reports no distribution over all labels"
    if name not in facts.unknown and facts.labels.get(name) is None:
        return f"model {name!r} has no labels, so there is no distribution over them"
    if isinstance(model, LlamaCppModel) and model.label_scoring == "top1":
        return f"model {name!r} has 'label_scoring: top1', which finds the best label only; use exact"
    if isinstance(model, ScriptedModel) and model.confidence is None:
        return f"scripted model {name!r} has no 'confidence', so it reports no distribution"
    return None


def read_calibrations(graph: Graph, facts: Facts, base: Path) -> tuple[dict[str, Calibration], list[Problem]]:
    """Return the calibration of each stage that has one, and what is wrong with them."""
    found: dict[str, Calibration] = {}
    problems = []
    for index, stage in enumerate(graph.stages):
        if stage.confidence is None or stage.confidence.calibration is None:
            continue
        try:
            path = existing_file(stage.confidence.calibration, base, "calibration file")
            found[stage.name] = calibration = read_calibration(path)
            trouble = _mismatch(graph, stage, calibration, facts, base)
        except ConfigError as error:
            trouble = str(error)
        if trouble:
            text = f"{trouble}; fit it: cascade calibrate GRAPH {stage.name} --data ROWS"
            problems.append(Problem(("stages", index, "confidence", "calibration"), text))
    return found, problems


def _mismatch(graph: Graph, stage: Stage, calibration: Calibration, facts: Facts, base: Path) -> str | None:
    """Why `calibration` is not one of this stage."""
    check = stage.confidence
    if check is None:
        return None
    signal = "agreement" if isinstance(check, AgreementConfidence) else check.signal
    if (calibration.by, calibration.signal) != (check.by, signal):
        was = f"by {calibration.by!r}, signal {calibration.signal!r}"
        now = f"by {check.by!r}, signal {signal!r}"
        return f"{check.calibration!r} was fitted {was}, but this stage goes {now}"
    if len(stage.ask) > 1:
        return f"{check.calibration!r} belongs to one model, but this stage asks {_list(stage.ask)}"
    name = stage.ask[0] if stage.ask else ""
    model = graph.models.get(name)
    if model is None or name in facts.unknown:
        return None
    now = fingerprint(model, base)
    if now == calibration.model_fingerprint:
        return None
    old = calibration.model_fingerprint[:12]
    return f"{check.calibration!r} is stale: fitted for model {old}…, {name!r} is {now[:12]}… now"


def accept_problems(graph: Graph, facts: Facts, calibrations: dict[str, Calibration]) -> Iterator[Problem]:
    """Yield the thresholds that accept nothing, or everything."""
    for index, stage in enumerate(graph.stages):
        check = stage.confidence
        if check is None or stage.accept is None:
            continue
        calibration = calibrations.get(stage.name)
        if check.calibration is not None and calibration is None:
            continue  # its file is already a problem
        loc: Loc = ("stages", index, "accept")
        if calibration is not None:
            low, high = calibration.lowest, calibration.highest
        else:
            low, high = _lowest_score(graph, stage, facts), 1.0
        if stage.accept > high:
            text = f"{stage.accept:g} can never be reached: the calibration gives at most {high:.6g}"
            yield Problem(loc, f"{text}; lower it, or nothing is ever accepted")
        elif stage.accept <= low:
            text = f"{stage.accept:g} can never fire: every confidence is at least {low:.6g}"
            yield Problem(loc, f"{text}; raise it, or remove 'confidence' and 'accept' to accept unchecked")


def _lowest_score(graph: Graph, stage: Stage, facts: Facts) -> float:
    """The least score that an uncalibrated check can give."""
    if isinstance(stage.confidence, AgreementConfidence):
        return 1 / max(1, worst_drafts(stage))
    if not isinstance(stage.confidence, LabelsConfidence) or stage.confidence.signal != "top1":
        return 0.0
    counts = [len(facts.labels.get(name) or ()) for name in stage.ask]
    played = any(isinstance(graph.models.get(name), ScriptedModel) for name in stage.ask)
    return 0.0 if played or 0 in counts else min((1 / count for count in counts), default=0.0)
