"""The recipe, step by step: teachers, transfer sets, labels, then one expert at a time.

Each step leaves files in the work folder; teachers and labels that are there already are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.errors import ConfigError
from cascade.lab.training import lexical, outliers, pool, targets, vocab, words
from cascade.lab.training import teacher as teachers
from cascade.lab.training.datasets import TASKS, Split, load
from cascade.lab.training.recipes import ASSISTANTS, LIMITS, RECIPES, TEACHERS, Recipe, TeacherPlan
from cascade.lab.training.report import Log

if TYPE_CHECKING:
    from cascade.lab.training.model import Student

COMMON = 20000
Part = tuple[tuple[str, ...], pool.PoolSettings]
POOLS: dict[str, tuple[Part, ...]] = {
    "assistants": ((ASSISTANTS, pool.PoolSettings()),),
    "fresh": (
        (("banking77",), pool.PoolSettings(variants=9, splices=8000, seed=11)),
        (("clinc150",), pool.PoolSettings(4, 8000, twins=1, questions=5000, hollow=3000, seed=11)),
    ),
    "tram": ((("tram",), pool.PoolSettings(variants=10, splices=8000)),),
}


@dataclass(slots=True)
class Workshop:
    """The data, the folder for what is made on the way, and a log."""

    data: Path
    work: Path
    log: Log

    def split(self, task: str) -> Split:
        """Return one task's rows."""
        return load(task, self.data)

    def labels(self) -> dict[str, list[str]]:
        """Return every task's labels."""
        return {task: self.split(task).labels for task in (*TASKS, "desk")}

    def file(self, name: str) -> Path:
        """Return a path in the work folder."""
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work / name

    def made(self, name: str, command: str) -> Path:
        """Return a file that `command` leaves in the work folder.

        Raises:
            ConfigError: it is not there.
        """
        path = self.work / name
        if not path.is_file():
            text = f"{path} does not exist; make it with: python -m cascade.lab.training {command}"
            raise ConfigError(f"{text}, or give its folder with --work")
        return path


def make_teachers(shop: Workshop) -> None:
    """Fine-tune each teacher."""
    reports = sorted({row.text for row in shop.split("tram").train})
    for plan in TEACHERS:
        path = shop.file(f"teacher_{plan.name}.pt")
        if not path.exists():
            extra = _outliers(shop, plan) + (reports if plan.reports else [])
            splits = [shop.split(task) for task in plan.tasks]
            teachers.save(teachers.fit(splits, extra, plan.settings, shop.log), path)


def _outliers(shop: Workshop, plan: TeacherPlan) -> list[str]:
    asked = outliers.questions(plan.questions, 0) if plan.questions else []
    rows = shop.split("clinc150").train
    return asked + outliers.hollow(rows, words.common_words(10000), plan.hollow, 0)


def make_pools(shop: Workshop) -> None:
    """Write the transfer sets."""
    common = words.common_words(COMMON)
    seen = words.frequent(row.text for task in TASKS for row in shop.split(task).train)
    vocabulary = list(dict.fromkeys([*common, *seen]))
    near = words.neighbours(vocabulary, words.embed_words(vocabulary))
    known: set[pool.Item] = set()
    for name, parts in POOLS.items():
        made = [
            pool.compose([shop.split(task) for task in tasks], common, near, settings)
            for tasks, settings in parts
        ]
        items = pool.join(made, known)
        known.update(items)
        pool.save(items, shop.file(f"pool_{name}.jsonl"))
        shop.log.say(f"{name}: {len(items)} sentences")


def make_marks(shop: Workshop) -> None:
    """Let every teacher label the transfer sets of its tasks."""
    for plan in TEACHERS:
        for name in POOLS:
            path = shop.file(f"marks_{name}_{plan.name}.npz")
            if _tasks_of(name) == set(plan.tasks) and not path.exists():
                rows, vectors = _labelled(shop, plan, name)
                np.savez(path, vectors=vectors, **rows)
                shop.log.say(f"teacher {plan.name} has labelled {len(vectors)} sentences")
    path = shop.file("marks_tram_lexical.npz")
    if not path.exists():
        model = lexical.fit(shop.split("tram"))
        np.savez(path, vectors=np.zeros((1, 1)), tram=lexical.predict(model, _texts(shop, "tram")))


def _labelled(shop: Workshop, plan: TeacherPlan, name: str) -> targets.Marks:
    import torch

    model = teachers.restore(shop.file(f"teacher_{plan.name}.pt"))
    model.encoder.to(torch.bfloat16)
    return teachers.predict(model, _texts(shop, name), batch=256)


def _tasks_of(name: str) -> set[str]:
    return {task for tasks, _ in POOLS[name] for task in tasks}


def _texts(shop: Workshop, name: str) -> list[str]:
    return [item.text for item in pool.restore(shop.file(f"pool_{name}.jsonl"))]


def make_vocabulary(shop: Workshop, recipe: Recipe) -> tuple[vocab.Vocabulary, Any]:
    """Learn an expert's vocabulary, and the teacher's vectors of its pieces."""
    tasks = {task: shop.split(task).labels for task in recipe.tasks}
    texts = [row.text for task in recipe.tasks if task in TASKS for row in shop.split(task).train]
    counts = words.word_counts(texts + outliers.questions(5000, 7), words.common_words(COMMON))
    made = vocab.learn(counts, recipe.vocab, tasks)
    pieces = [made.tokenizer.decode([token]).strip() or "." for token in range(made.plain)]
    return made, words.embed_words(pieces)


def gather(shop: Workshop, recipe: Recipe, source: str) -> tuple[list[pool.Item], targets.Targets]:
    """Return an expert's transfer set and what its teachers say of it."""
    reports = pool.restore(shop.made("pool_tram.jsonl", "teacher"))
    known = sum(bool(item.label) for item in reports)
    share = 1 if "tram" in recipe.tasks else recipe.desk_share
    keep = np.array([i for i in range(len(reports)) if i < known or i % share == 0])
    marks = [
        _cut(targets.load_marks(shop.made(f"marks_tram_{name}.npz", "teacher")), keep)
        for name in ("tram", "lexical")
    ]
    reports, labels = [reports[i] for i in keep], shop.labels()
    made = targets.build(reports, marks, labels)
    if not set(ASSISTANTS) & set(recipe.tasks):
        return reports, made
    made.vectors = np.zeros_like(made.vectors)  # another teacher's space
    items = pool.restore(shop.made(f"pool_{source}.jsonl", "teacher"))
    marks = [targets.load_marks(shop.made(f"marks_{source}_{name}.npz", "teacher")) for name in ("a", "b")]
    return items + reports, targets.join(targets.build(items, marks, labels), made)


def _cut(marks: targets.Marks, keep: Any) -> targets.Marks:
    logits, vectors = marks
    return {task: rows[keep] for task, rows in logits.items()}, vectors[keep] if len(vectors) > 1 else vectors


def make_expert(shop: Workshop, name: str, seed: int | None) -> None:
    """Train one expert."""
    _train(shop, RECIPES[name] if seed is None else replace(RECIPES[name], seed=seed), f"{name}.pt")


def polish_expert(shop: Workshop, name: str, branch: int) -> None:
    """Train a finished expert a little more, on fresh sentences; `export` takes the mean."""
    recipe = RECIPES[name]
    rate, passes, seed = recipe.polish_rate, recipe.polish_passes, recipe.seed + 100 * branch
    recipe = replace(recipe, rate=rate, passes=passes, seed=seed, vector_weight=0.0)
    _train(shop, recipe, f"{name}.branch{branch}.pt", start=shop.made(f"{name}.pt", f"train {name}"))


def _train(shop: Workshop, recipe: Recipe, name: str, start: Path | None = None) -> None:
    from cascade.lab.training import train

    items, wanted = gather(shop, recipe, "fresh" if start else "assistants")
    made, vectors = make_vocabulary(shop, recipe)
    run = train.prepare(recipe, made, [item.text for item in items], wanted, vectors)
    if start is not None:
        run.student.load_state_dict(train.restore(start)[0].state_dict())
    train.fit(run, {task: shop.split(task) for task in recipe.tasks}, shop.log, shop.file(name))


def finished(shop: Workshop, name: str) -> tuple[Student, vocab.Vocabulary]:
    """Return the mean of an expert's checkpoint and its branches, temperatures folded in."""
    start = shop.made(f"{name}.pt", f"train {name}")
    from cascade.lab.training import temper, train

    branches = [start, *sorted(shop.work.glob(f"{name}.branch*.pt"))]
    student, made = train.mean([train.restore(path) for path in branches])
    heat = temper.fold(student, made, {task: shop.split(task) for task in RECIPES[name].tasks})
    shop.log.say(f"{len(branches)} checkpoints, temperatures {json.dumps(heat)}")
    return student, made


def export_expert(shop: Workshop, name: str, out: Path) -> Path:
    """Write a finished expert's GGUF file."""
    from cascade.lab.training import export

    recipe = RECIPES[name]
    student, made = finished(shop, name)
    prompts = export.prompts(made, {task: LIMITS[task] for task in recipe.tasks}, student.shape.causal)
    path = out / f"{name}.gguf"
    export.write(student, made, prompts, path, recipe.kind)
    return path
