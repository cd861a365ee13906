"""Asking a general model the same rows as experts, within a price cap, and saying who should go."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from cascade.confidence.same import normalise
from cascade.config.load import LoadedGraph, load_graph
from cascade.config.messages import suggest
from cascade.config.references import gguf_tasks, local_model_path
from cascade.config.source import parse, read_bytes
from cascade.errors import ConfigError, RequestError
from cascade.lab.inventory.contest import Contest, contest
from cascade.lab.reading.from_traces import TraceOptions, rows_from_traces
from cascade.lab.reading.sources import GRADE, TRUSTED
from cascade.lab.tables.collect import Asked, OnProgress, ask_all, how_asked, open_models, run_to_end
from cascade.lab.tables.rows import LabelledRow, labelled_rows
from cascade.models.base import Model, Prompt, cost
from cascade.records import Record, Request
from cascade.spec.registry import MODELS

MIN_ROWS = 30
_FAILED = 0.2  # share of the rows that a model may leave unanswered
_CONCURRENCY = 8
_PROMPT = (
    "Which label does this text have?\n"
    "Answer with one line of this list, copied exactly, and nothing else:\n{labels}\n\nText: {text}\n"
)


class Challenger(Record):
    """A model that is asked: one of the graph by its name, or else any model of a kind that has an endpoint.

    `price` is in USD per million prompt and generated tokens, where no price list knows the model. `keyed`
    says whether the server at `url` needs a key.
    """

    name: str
    kind: str = "openai"
    url: str | None = None
    price: tuple[float, float] | None = None
    keyed: bool = True


class Duel(Record):
    """An expert against the challenger.

    Attributes:
        expert: its name in the graph.
        accept: the threshold above which it answers in the graph; None without one.
        everywhere: on all rows.
        answering: on the rows that it would answer, which is what it is for; None without a threshold.
        usd_a_thousand: what 1,000 requests cost, of the expert and of the challenger.
        median_seconds: of a request, likewise.
    """

    expert: str
    accept: float | None
    everywhere: Contest
    answering: Contest | None
    usd_a_thousand: tuple[float, float]
    median_seconds: tuple[float, float]

    @property
    def judged(self) -> Contest:
        """The comparison that decides: where the expert would answer, if that is known and enough."""
        if self.answering is None or self.answering.rows < MIN_ROWS:
            return self.everywhere
        return self.answering


class ChallengeReport(Record):
    """What a challenge found.

    Attributes:
        challenger: the general model.
        rows: how many were asked.
        spent_usd: what the challenger's answers cost.
        most_usd: the most that they could cost, priced before.
        graded: rows whose label is an answer of the graph that was graded right, which favours its models.
        duels: the experts.
        remarks: what was left out.
    """

    challenger: str
    rows: int
    spent_usd: float
    most_usd: float
    graded: int
    duels: tuple[Duel, ...]
    remarks: tuple[str, ...]


class _Rows(NamedTuple):
    rows: list[LabelledRow]
    graded: frozenset[str]


@dataclass(frozen=True)
class _Setting:
    """The graph that is asked, the names of its experts and of the challenger."""

    loaded: LoadedGraph
    experts: list[str]
    challenger: str


def challenge(
    target: str | Path,
    challenger: Challenger,
    *,
    data: str | Path | None = None,
    rows: int = 200,
    budget: float = 1.0,
    margin: float = 0.02,
    trace_db: str | None = None,
    since: str | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> ChallengeReport:
    """Ask the challenger and the experts the same labelled rows, and compare them row by row.

    Args:
        target: a graph file, whose experts are all challenged; or an expert: a GGUF file or `bundled:NAME`,
            with `#TASK` behind it if it has several tasks.
        challenger: the general model.
        data: labelled rows; default: rows of the graph's stored runs that a person answered or graded right.
        rows: ask at most so many, drawn at random.
        budget: the most that the challenger's answers may cost, in USD: a bound that is checked before.
        margin: the difference in accuracy that matters.
        trace_db: the trace store; default: the usual one.
        since: of stored runs, only those that started then or later.
        seed: seed of the draw.
        on_progress: called with (answers so far, answers in all); experts are asked first, and each row of
            them counts once.

    Raises:
        ConfigError: the graph, the expert or the challenger is wrong.
        RequestError: there are too few rows, they may cost too much, or a model cannot be asked.
        TraceError: the trace store cannot be read.
    """
    setting = _setting(target, challenger)
    found = _rows(setting.loaded, target, data, since, trace_db)
    known, remarks = _answerable(setting, found.rows)
    drawn = random.Random(seed).sample(found.rows, min(rows, len(found.rows)))  # noqa: S311
    if len(drawn) < MIN_ROWS:
        raise RequestError(
            f"{len(drawn)} labelled rows are too few to judge an expert: at least {MIN_ROWS} are needed, and "
            "some hundred to tell two good models apart; give more with --data, or a larger --rows"
        )
    setting = _Setting(setting.loaded, known, setting.challenger)
    asked = run_to_end(_ask(setting, drawn, budget, on_progress))
    duels = [_duel(setting, name, asked.answers, margin) for name in known]
    spent = sum(each[setting.challenger].get("cost_usd", 0.0) for each in asked.answers)
    return ChallengeReport(
        challenger=challenger.name,
        rows=len(drawn),
        spent_usd=spent,
        most_usd=asked.most_usd,
        graded=sum(row.id in found.graded for row in drawn),
        duels=tuple(duels),
        remarks=tuple(remarks),
    )


def _setting(target: str | Path, challenger: Challenger) -> _Setting:
    path = Path(target)
    if path.suffix in (".yaml", ".yml"):
        values, _ = parse(read_bytes(path), str(path))
        return _with_challenger(path, values, challenger)
    return _with_challenger(Path("challenge.yaml"), _expert_graph(str(target)), challenger)


def _expert_graph(target: str) -> dict[str, Any]:
    """Return a graph of one expert."""
    name, _, task = target.partition("#")
    file = local_model_path(name, Path())
    tasks = {} if file is None else gguf_tasks(file)
    if not tasks:
        raise ConfigError(f"{target}: has no tasks, so it is no expert; give an expert's file, or a graph")
    if len(tasks) > 1 and not task:
        named = ", ".join(f"{name}#{each}" for each in tasks)
        raise ConfigError(f"{target}: has several tasks; give one of {named}")
    model = {"kind": "llamacpp", "path": name, **({"task": task} if task else {})}
    return {"name": "challenge", "models": {"expert": model}, "stages": [_stage("expert")]}


def _stage(model: str) -> dict[str, Any]:
    return {"name": model, "ask": [model]}


def _with_challenger(path: Path, values: dict[str, Any], challenger: Challenger) -> _Setting:
    """Load a graph, with the challenger as one more model where it is none of the graph's."""
    models = values.get("models")
    if isinstance(models, dict) and challenger.name not in models:
        # The graph is checked whole, so that its own problems are told first.
        loaded = load_graph(path, data=json.dumps(values).encode(), tuned=False, tightened=False)
        name = next(each for each in ("challenger", "challenger-2") if each not in models)
        added = _settings(loaded, challenger)
        values = {**values, "models": {**models, name: added}, "stages": [*values["stages"], _stage(name)]}
    else:
        name = challenger.name
    loaded = load_graph(path, data=json.dumps(values).encode(), tuned=False, tightened=False)
    experts = [each for each in _experts(loaded) if each != name]
    if not experts:
        what = "one whose weights are here and whose answers are a closed set"
        raise RequestError(f"{path}: no model of it is an expert: {what}")
    return _Setting(loaded, experts, name)


def _experts(loaded: LoadedGraph) -> list[str]:
    models = loaded.graph.models
    asked = dict.fromkeys(name for stage in loaded.graph.stages for name in stage.ask)
    return [
        name for name in asked
        if models[name].weights(loaded.base) is not None and loaded.facts[name].labels is not None
    ]  # fmt: skip


def _settings(loaded: LoadedGraph, challenger: Challenger) -> dict[str, Any]:
    """Return the settings of a challenger that the graph does not have.

    It gets the prompt and labels of the graph's last endpoint, or else all labels of the experts.
    """
    endpoints = [model for model in loaded.graph.models.values() if model.is_endpoint]
    labels = list(dict.fromkeys(x for name in _experts(loaded) for x in loaded.facts[name].labels or ()))
    shared: dict[str, Any] = {"labels": labels, "prompt": _PROMPT}
    if endpoints:
        own = endpoints[-1].model_dump(mode="json", exclude_unset=True)
        shared = {key: own[key] for key in ("labels", "prompt", "system", "temperature") if key in own}
    given: dict[str, Any] = {"model": challenger.name, "logprobs": False, **shared}
    if challenger.price is not None:
        given["price"] = dict(zip(("input", "output"), challenger.price, strict=True))
    if challenger.url is not None:
        given |= {"url": challenger.url} | ({} if challenger.keyed else {"key_env": None})
    known = MODELS.kinds()
    if challenger.kind not in known:
        raise ConfigError(f"unknown kind {challenger.kind!r}; {suggest(challenger.kind, known)}")
    fields = known[challenger.kind].model_fields
    return {"kind": challenger.kind, **{key: value for key, value in given.items() if key in fields}}


def _rows(
    loaded: LoadedGraph, target: str | Path, data: str | Path | None, since: str | None, trace_db: str | None
) -> _Rows:
    if data is not None:
        return _Rows(labelled_rows(data), frozenset())
    if Path(target).suffix not in (".yaml", ".yml"):
        raise RequestError("an expert alone has no stored runs: give labelled rows with --data, or its graph")
    read = rows_from_traces(target, TraceOptions(since=since, trace_db=trace_db))
    pairs = [
        (row, place.source)
        for row, place in zip(read.rows, read.places, strict=True)
        if place.source in TRUSTED
    ]
    if not pairs:
        raise RequestError(
            f"no stored run of {loaded.graph.name} has a label that a person gave; answers of the strongest "
            "model prove nothing here: grade runs (cascade grade), or give --data"
        )
    return _Rows([row for row, _ in pairs], frozenset(row.id for row, source in pairs if source == GRADE))


def _answerable(setting: _Setting, rows: Sequence[LabelledRow]) -> tuple[list[str], list[str]]:
    """Return the experts whose labels most rows have, and remarks on the others."""
    known, remarks = [], []
    for name in setting.experts:
        own = {normalise(label) for label in setting.loaded.facts[name].labels or ()}
        share = sum(normalise(row.label) in own for row in rows) / max(1, len(rows))
        if 2 * share > 1:
            known.append(name)
        else:
            remarks.append(f"left out: {name}: {share:.0%} of the rows have a label that it knows")
    if not known and rows:
        raise RequestError(f"the rows' labels are none that an expert knows; {'; '.join(remarks)}")
    return known, remarks


class _Answers(NamedTuple):
    answers: list[dict[str, dict[str, Any]]]
    most_usd: float


async def _ask(
    setting: _Setting,
    rows: Sequence[LabelledRow],
    budget: float,
    on_progress: OnProgress | None,
) -> _Answers:
    """Ask the models, if the challenger's worst case fits within the budget."""
    async with open_models(setting.loaded, [*setting.experts, setting.challenger]) as models:
        for name, model in models.items():
            if (reason := model.unavailable()) is not None:
                raise RequestError(f"model {name!r} cannot be asked: {reason}")
        most = _worst(models[setting.challenger], rows)
        if most > budget:
            fits = int(len(rows) * budget / most)
            fix = f"give --budget {most:.2g} or more, or --rows {fits} or fewer; nothing was asked"
            raise RequestError(
                f"asking {setting.challenger} {len(rows)} rows may cost up to ${most:.4f}, more than "
                f"--budget {budget:g}; {fix}"
            )
        found: dict[str, dict[str, dict[str, Any]]] = {row.id: {} for row in rows}
        done = 0

        def keep(row: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            found[row["id"]] |= {**row["models"], **row.get("failed", {})}
            if on_progress is not None:
                on_progress(done, 2 * len(rows))

        asked = {each.model.name: each for each in _asked(setting, models)}
        theirs = asked.pop(setting.challenger)
        # One after the other, or the time that an expert takes would be that of waiting for the others.
        await ask_all([*asked.values()], rows, keep, 1)
        await ask_all([theirs], rows, keep, _CONCURRENCY)
    return _Answers(list(found.values()), most)


def _asked(setting: _Setting, models: Mapping[str, Model]) -> list[Asked]:
    return how_asked(setting.loaded.graph, models, setting.loaded.calibrations)


def _worst(model: Model, rows: Sequence[LabelledRow]) -> float:
    return sum(cost(model.price, *model.worst_case(Prompt(Request(text=row.text)))) for row in rows)


def _duel(
    setting: _Setting, expert: str, answers: Sequence[Mapping[str, dict[str, Any]]], margin: float
) -> Duel:
    names = (expert, setting.challenger)
    both = [each for each in answers if all("correct" in each[name] for name in names)]
    if len(both) < (1 - _FAILED) * len(answers):
        errors = (each[name]["error"] for each in answers for name in names if "error" in each[name])
        raise RequestError(
            f"{len(answers) - len(both)} of {len(answers)} rows got no answer from {expert} or "
            f"{setting.challenger}, so nothing can be said; the first error: {next(errors)}"
        )
    stage = next((s for s in setting.loaded.graph.stages if s.ask == [expert]), None)
    accept = None if stage is None or stage.confidence is None else stage.accept
    sure = [each for each in both if accept is not None and each[expert].get("confidence", -1.0) >= accept]

    def fight(rows: Sequence[Mapping[str, dict[str, Any]]]) -> Contest:
        right = [[bool(each[name]["correct"]) for each in rows] for name in names]
        return contest(right[0], right[1], margin=margin, compared=len(setting.experts))

    def of_both(key: str, fold: Callable[[list[float]], float]) -> tuple[float, float]:
        mine, other = (fold([each[n][key] for each in both]) for n in names)
        return mine, other

    return Duel(
        expert=expert,
        accept=accept,
        everywhere=fight(both),
        answering=fight(sure) if sure else None,
        usd_a_thousand=of_both("cost_usd", lambda usd: 1000 * sum(usd) / len(usd)),
        median_seconds=of_both("seconds", median),
    )
