"""Checks of the models themselves: files, tasks, labels, prompts, prices, and limits they can never meet."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cascade.config.output import resolve_grammar
from cascade.config.prices import lookup
from cascade.config.references import (
    existing_file,
    local_model_path,
    model_tasks,
    pick_task,
    resolve_labels,
)
from cascade.config.source import Problem
from cascade.errors import ConfigError
from cascade.formats.adapter import check_adapter_of
from cascade.formats.gguf import TEMPLATE_KEY, read_metadata
from cascade.spec.gates import ClassifierGate
from cascade.spec.schema import (
    CascadeModel,
    Graph,
    HumanModel,
    LlamaCppModel,
    ModelConfig,
    OpenAIModel,
    Price,
    Stage,
)

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass
class Facts:
    """What is known about the models of a graph.

    Attributes:
        labels: model name → its closed label set; None if it answers freely.
        unknown: models whose labels cannot be known: their file is not downloaded yet, or is broken.
    """

    labels: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


def inspect(graph: Graph, base: Path) -> tuple[Facts, list[Problem]]:
    """Look at every model of `graph`; return what is known about them and what is wrong with them."""
    facts, problems = Facts(), []
    for name, model in graph.models.items():
        found = [*_file(model, base, facts, name)]
        if not found:
            found = [*_labels(model, base, facts, name), *_prompt(model, facts, name), *_endpoint(model)]
            found += _decoding(model, base, scores=facts.labels.get(name) is not None)
        problems += [Problem(("models", name, *problem.loc), problem.text) for problem in found]
        facts.labels.setdefault(name, None)
        if found:
            facts.unknown.add(name)
    problems += _prices(graph)
    return facts, problems


def _file(model: ModelConfig, base: Path, facts: Facts, name: str) -> Iterator[Problem]:
    if not isinstance(model, LlamaCppModel):
        return
    if model.memory_mb is not None and model.isolate != "process":
        yield Problem(("memory_mb",), "'memory_mb' limits a process of its own; add 'isolate: process'")
    try:
        tasks = model_tasks(model, base)
    except ConfigError as error:
        yield Problem(("path",), str(error))
        return
    if tasks is None:
        facts.unknown.add(name)
    elif not tasks:
        if model.task is not None:
            text = f"{model.task!r}: {model.path!r} has no tasks; give 'labels' and 'prompt' instead"
            yield Problem(("task",), text)
    else:
        try:
            pick_task(model, tasks)
        except ConfigError as error:
            yield Problem(("task",) if model.task is not None else (), str(error))
        for key in ("labels", "prompt", "system", "examples"):
            if getattr(model, key) is not None:
                yield Problem((key,), f"{key!r} cannot stand here: an expert's task has its own; remove it")


def _labels(model: ModelConfig, base: Path, facts: Facts, name: str) -> Iterator[Problem]:
    try:
        labels = resolve_labels(model, base)
    except ConfigError as error:
        yield Problem(("labels",), str(error))
        facts.unknown.add(name)
        return
    facts.labels[name] = labels
    if labels is None:
        return
    facts.unknown.discard(name)
    if len(labels) < 2:
        yield Problem(("labels",), f"{len(labels)} labels; give at least two answers to choose from")
    given = None if isinstance(model, HumanModel | CascadeModel) else model.labels
    given = given if isinstance(given, list) else []
    for index, label in enumerate(given):
        if not label.strip():
            yield Problem(("labels", index), f"label {label!r} is blank")
        elif label in given[:index]:
            yield Problem(("labels", index), f"label {label!r} is given twice")


def _prompt(model: ModelConfig, facts: Facts, name: str) -> Iterator[Problem]:
    if isinstance(model, LlamaCppModel | OpenAIModel):
        key, template = "prompt", model.prompt
    elif isinstance(model, HumanModel):
        key, template = "question", model.question
    else:
        return
    if template is None:
        return
    known = ["text", "labels"] if key == "prompt" else ["text"]
    used = _PLACEHOLDER.findall(template)
    if "text" not in used:
        yield Problem((key,), "'{text}' is missing, so the request would never be seen")
    for word in used:
        close = difflib.get_close_matches(word, known, n=1)
        if word not in known and close:
            yield Problem((key,), f"unknown placeholder '{{{word}}}'; did you mean '{{{close[0]}}}'?")
    if "labels" in used and key == "prompt" and facts.labels.get(name) is None and name not in facts.unknown:
        yield Problem((key,), "'{labels}' is used, but the model has no 'labels'")


def _decoding(model: ModelConfig, base: Path, *, scores: bool) -> Iterator[Problem]:
    """Check what only local models have: a grammar or schema of their answers, and an adapter."""
    if not isinstance(model, LlamaCppModel):
        return
    if model.system is not None and (text := _no_system(model, base)):
        yield Problem(("system",), text)
    yield from _examples(model)
    key = "grammar" if model.grammar is not None else "output_schema"
    if getattr(model, key) is not None and scores:
        yield Problem((key,), f"{key!r} cannot stand here: the model only chooses among its labels; drop one")
    for what, load in ((key, resolve_grammar), ("lora", _adapter), ("prefix_dir", _prefix_dir)):
        try:
            load(model, base)
        except ConfigError as error:
            yield Problem((what,), str(error))


def _examples(model: LlamaCppModel) -> Iterator[Problem]:
    if model.examples is None:
        return
    if model.labels is not None:
        yield Problem(("examples",), "'examples' and 'labels' exclude each other; examples name the labels")
    for label, texts in model.examples.items():
        for index, text in enumerate(texts):
            if not text.strip():
                yield Problem(("examples", label, index), f"example {text!r} is blank; give a text")
    if model.lora is not None:
        yield Problem(("lora",), "'lora' cannot stand beside 'examples'; merge it into the embedding model")


def _no_system(model: LlamaCppModel, base: Path) -> str:
    """Return why the model would never see its system message; nothing if it does, or nobody knows."""
    if model.examples is not None:
        return (
            "'system' has no effect beside 'examples', which are compared with the text; put it into 'prompt'"
        )
    path = local_model_path(model.path, base)
    if path is None or read_metadata(path, {TEMPLATE_KEY}):
        return ""
    return f"{model.path!r} has no chat template for a system message; put that text into 'prompt'"


def _prefix_dir(model: LlamaCppModel, base: Path) -> None:
    if model.prefix_dir is None:
        return
    for key in ("task", "examples", "reproducible", "prompt_statistics"):
        if getattr(model, key):
            raise ConfigError(
                f"'prefix_dir' has no effect beside {key!r}, which takes nothing over; drop one"
            )
    folder = base / model.prefix_dir
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{model.prefix_dir!r} is not a folder; give one, which is made if it is missing")


def _adapter(model: LlamaCppModel, base: Path) -> None:
    if model.lora is None:
        return
    path, whole = existing_file(model.lora, base, "adapter"), local_model_path(model.path, base)
    if whole is not None:  # else it is not downloaded yet
        check_adapter_of(path, whole)


def _endpoint(model: ModelConfig) -> Iterator[Problem]:
    url = model.url if isinstance(model, OpenAIModel) else None
    if url is not None and not re.match(r"https?://[^/\s]+", url):
        yield Problem(("url",), f"{url!r} is not a URL; expected http://… or https://…")


def _prices(graph: Graph) -> Iterator[Problem]:
    for name, model in graph.models.items():
        if isinstance(model, OpenAIModel) and price_of(model) is None:
            text = f"no price for {model.model!r} is known; give one in USD per million tokens"
            yield Problem(("models", name, "model"), f"{text}: price: {{input: …, output: …}}")


def price_of(model: ModelConfig) -> Price | None:
    """Return what a million tokens of `model` cost; None if that is unknown, or not by the token."""
    if isinstance(model, CascadeModel):
        return None
    if model.price is not None or not isinstance(model, OpenAIModel):
        return model.price
    if model.local:
        return Price(input=0.0, output=0.0)
    return lookup(model.model)


def worst_drafts(stage: Stage) -> int:
    """Return how many drafts a stage asks for at most."""
    asked = min(stage.gate.top, len(stage.ask)) if stage.gate is not None else len(stage.ask)
    return asked * stage.samples


def limit_problems(graph: Graph, facts: Facts) -> Iterator[Problem]:
    """Yield the limits under which a stage could never start, whatever the request."""
    limits = graph.limits
    for stage in graph.stages:
        calls = worst_drafts(stage) + isinstance(stage.gate, ClassifierGate)
        if limits.calls is not None and calls > limits.calls:
            text = f"{limits.calls} calls: stage {stage.name!r} makes up to {calls}, so it could never start"
            yield Problem(("limits", "calls"), f"{text}; raise the limit")
        least = _least_worst_cost(graph, stage, facts)
        if limits.cost_usd is not None and least > limits.cost_usd:
            text = f"${limits.cost_usd:g}: stage {stage.name!r} may cost ${least:g} for its answers alone"
            yield Problem(("limits", "cost_usd"), f"{text}; it can never start; raise it or lower max_tokens")


def _least_worst_cost(graph: Graph, stage: Stage, facts: Facts) -> float:
    """The worst case of a stage for an empty prompt, in USD; 0 where a price is unknown."""
    costs = []
    for name in stage.ask:
        model = graph.models.get(name)
        price = None if model is None else price_of(model)
        scores = isinstance(model, LlamaCppModel) and (facts.labels.get(name) or name in facts.unknown)
        tokens = 1 if scores else getattr(model, "max_tokens", 0)  # a label is one token
        costs.append(tokens * price.output / 1e6 if price else 0.0)
    dearest = sorted(costs, reverse=True)[: stage.gate.top if stage.gate is not None else len(costs)]
    return stage.samples * sum(dearest)
