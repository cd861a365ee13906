"""The training steps: teachers, transfer sets, their labels, then one expert at a time.

Each step writes files to the work folder. Teachers and labels that already exist are kept.
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
class Workspace:
    """The data folder, the folder of intermediate files, and a log."""

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

    def existing(self, name: str, command: str) -> Path:
        """Return a file that `command` writes to the work folder.

        Raises:
            ConfigError: the file does not exist.
        """
        path = self.work / name
        if not path.is_file():
            text = f"{path} does not exist; make it with: python -m cascade.lab.training {command}"
            raise ConfigError(f"{text}, or give its folder with --work")
        return path


def make_teachers(workspace: Workspace) -> None:
    """Fine-tune each teacher."""
    reports = sorted({row.text for row in workspace.split("tram").train})
    for plan in TEACHERS:
        path = workspace.file(f"teacher_{plan.name}.pt")
        if not path.exists():
            extra = _outliers(workspace, plan) + (reports if plan.reports else [])
            splits = [workspace.split(task) for task in plan.tasks]
            teachers.save(teachers.fit(splits, extra, plan.settings, workspace.log), path)


def _outliers(workspace: Workspace, plan: TeacherPlan) -> list[str]:
    asked = outliers.questions(plan.questions, 0) if plan.questions else []
    rows = workspace.split("clinc150").train
    return asked + outliers.hollow(rows, words.common_words(10000), plan.hollow, 0)


def make_pools(workspace: Workspace) -> None:
    """Write the transfer sets."""
    common = words.common_words(COMMON)
    seen = words.frequent(row.text for task in TASKS for row in workspace.split(task).train)
    vocabulary = list(dict.fromkeys([*common, *seen]))
    near = words.neighbours(vocabulary, words.embed_words(vocabulary))
    known: set[pool.Item] = set()
    for name, parts in POOLS.items():
        composed = [
            pool.compose([workspace.split(task) for task in tasks], common, near, settings)
            for tasks, settings in parts
        ]
        items = pool.join(composed, known)
        known.update(items)
        pool.save(items, workspace.file(f"pool_{name}.jsonl"))
        workspace.log.say(f"{name}: {len(items)} sentences")


def make_marks(workspace: Workspace) -> None:
    """Have every teacher label the transfer sets of its tasks."""
    for plan in TEACHERS:
        for name in POOLS:
            path = workspace.file(f"marks_{name}_{plan.name}.npz")
            if _tasks_of(name) == set(plan.tasks) and not path.exists():
                rows, vectors = _labelled(workspace, plan, name)
                np.savez(path, vectors=vectors, **rows)
                workspace.log.say(f"teacher {plan.name} has labelled {len(vectors)} sentences")
    path = workspace.file("marks_tram_lexical.npz")
    if not path.exists():
        model = lexical.fit(workspace.split("tram"))
        np.savez(path, vectors=np.zeros((1, 1)), tram=lexical.predict(model, _texts(workspace, "tram")))


def _labelled(workspace: Workspace, plan: TeacherPlan, name: str) -> targets.Marks:
    import torch

    model = teachers.restore(workspace.file(f"teacher_{plan.name}.pt"))
    model.encoder.to(torch.bfloat16)
    return teachers.predict(model, _texts(workspace, name), batch=256)


def _tasks_of(name: str) -> set[str]:
    return {task for tasks, _ in POOLS[name] for task in tasks}


def _texts(workspace: Workspace, name: str) -> list[str]:
    return [item.text for item in pool.restore(workspace.file(f"pool_{name}.jsonl"))]


def make_vocabulary(workspace: Workspace, recipe: Recipe) -> tuple[vocab.Vocabulary, Any]:
    """Learn an expert's vocabulary; return it with the teacher's vectors of its pieces."""
    tasks = {task: workspace.split(task).labels for task in recipe.tasks}
    texts = [row.text for task in recipe.tasks if task in TASKS for row in workspace.split(task).train]
    counts = words.word_counts(texts + outliers.questions(5000, 7), words.common_words(COMMON))
    vocabulary = vocab.learn(counts, recipe.vocab, tasks)
    tokens = range(vocabulary.plain)
    pieces = [vocabulary.tokenizer.decode([token]).strip() or "." for token in tokens]
    return vocabulary, words.embed_words(pieces)


def gather(workspace: Workspace, recipe: Recipe, source: str) -> tuple[list[pool.Item], targets.Targets]:
    """Return an expert's transfer set and its teachers' labels."""
    reports = pool.restore(workspace.existing("pool_tram.jsonl", "teacher"))
    known = sum(bool(item.label) for item in reports)
    share = 1 if "tram" in recipe.tasks else recipe.desk_share
    keep = np.array([i for i in range(len(reports)) if i < known or i % share == 0])
    marks = [
        _cut(targets.load_marks(workspace.existing(f"marks_tram_{name}.npz", "teacher")), keep)
        for name in ("tram", "lexical")
    ]
    reports, labels = [reports[i] for i in keep], workspace.labels()
    report_targets = targets.build(reports, marks, labels)
    if not set(ASSISTANTS) & set(recipe.tasks):
        return reports, report_targets
    report_targets.vectors = np.zeros_like(report_targets.vectors)  # they are in another teacher's space
    items = pool.restore(workspace.existing(f"pool_{source}.jsonl", "teacher"))
    marks = [
        targets.load_marks(workspace.existing(f"marks_{source}_{name}.npz", "teacher")) for name in ("a", "b")
    ]
    return items + reports, targets.join(targets.build(items, marks, labels), report_targets)


def _cut(marks: targets.Marks, keep: Any) -> targets.Marks:
    logits, vectors = marks
    return {task: rows[keep] for task, rows in logits.items()}, vectors[keep] if len(vectors) > 1 else vectors


def make_expert(workspace: Workspace, name: str, seed: int | None) -> None:
    """Train one expert."""
    _train(workspace, RECIPES[name] if seed is None else replace(RECIPES[name], seed=seed), f"{name}.pt")


def polish_expert(workspace: Workspace, name: str, branch: int) -> None:
    """Train a finished expert a little more on fresh sentences; `export` averages the results."""
    recipe = RECIPES[name]
    rate, passes, seed = recipe.polish_rate, recipe.polish_passes, recipe.seed + 100 * branch
    recipe = replace(recipe, rate=rate, passes=passes, seed=seed, vector_weight=0.0)
    _train(
        workspace,
        recipe,
        f"{name}.branch{branch}.pt",
        start=workspace.existing(f"{name}.pt", f"train {name}"),
    )


def _train(workspace: Workspace, recipe: Recipe, name: str, start: Path | None = None) -> None:
    from cascade.lab.training import train

    items, wanted = gather(workspace, recipe, "fresh" if start else "assistants")
    vocabulary, vectors = make_vocabulary(workspace, recipe)
    run = train.prepare(recipe, vocabulary, [item.text for item in items], wanted, vectors)
    if start is not None:
        run.student.load_state_dict(train.restore(start)[0].state_dict())
    train.fit(
        run, {task: workspace.split(task) for task in recipe.tasks}, workspace.log, workspace.file(name)
    )


def finished(workspace: Workspace, name: str) -> tuple[Student, vocab.Vocabulary]:
    """Return the mean of an expert's checkpoint and its branches, with temperatures folded in."""
    start = workspace.existing(f"{name}.pt", f"train {name}")
    from cascade.lab.training import temper, train

    branches = [start, *sorted(workspace.work.glob(f"{name}.branch*.pt"))]
    student, vocabulary = train.mean([train.restore(path) for path in branches])
    temperatures = temper.fold(
        student, vocabulary, {task: workspace.split(task) for task in RECIPES[name].tasks}
    )
    workspace.log.say(f"{len(branches)} checkpoints, temperatures {json.dumps(temperatures)}")
    return student, vocabulary


def export_expert(workspace: Workspace, name: str, out: Path) -> Path:
    """Write a finished expert's GGUF file."""
    from cascade.lab.training import export

    recipe = RECIPES[name]
    student, vocabulary = finished(workspace, name)
    prompts = export.prompts(vocabulary, {task: LIMITS[task] for task in recipe.tasks}, student.shape.causal)
    path = out / f"{name}.gguf"
    export.write(student, vocabulary, prompts, path, recipe.kind)
    return path
