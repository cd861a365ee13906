"""Training one student on a transfer set: teachers' distributions, sentence vectors and desk labels."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from cascade.lab.evaluation.metrics import auroc
from cascade.lab.training.datasets import OOS, Split
from cascade.lab.training.model import Shape, Student
from cascade.lab.training.recipes import LIMITS, Recipe
from cascade.lab.training.report import Log
from cascade.lab.training.seeds import generator
from cascade.lab.training.targets import Targets
from cascade.lab.training.vocab import Vocabulary

TEACHER_WIDTH = 384
REPORT_EVERY = 1000


@dataclass(slots=True)
class Run:
    """The state of one training run."""

    recipe: Recipe
    student: Student
    vocabulary: Vocabulary
    ids: list[list[int]]
    targets: Targets
    bridge: torch.nn.Linear
    rng: random.Random

    def labels(self, task: str) -> Tensor:
        """Return a task's label tokens."""
        return torch.tensor(self.vocabulary.label_ids(task))


def shape_of(recipe: Recipe, vocabulary: Vocabulary) -> Shape:
    """Return the sizes that a recipe defines."""
    return Shape(
        len(vocabulary.tokens), recipe.width, recipe.layers, recipe.heads, recipe.feed, dropout=recipe.dropout
    )


def start_embeddings(student: Student, vectors: Any, plain: int, scale: float = 0.3) -> None:
    """Initialize the text pieces with principal components of the teacher's vectors for them."""
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    low = centred @ axes[: student.shape.width].T
    low *= scale / low.std()
    with torch.no_grad():
        student.token_embd.weight[:plain].copy_(torch.from_numpy(low.astype(np.float32)))


def prepare(
    recipe: Recipe, vocabulary: Vocabulary, texts: Sequence[str], targets: Targets, vectors: Any
) -> Run:
    """Encode the pool and build the student."""
    torch.manual_seed(recipe.seed)
    limit = max(LIMITS[task] for task in recipe.tasks)
    student = Student(shape_of(recipe, vocabulary))
    start_embeddings(student, vectors, vocabulary.plain)
    bridge = torch.nn.Linear(recipe.width, TEACHER_WIDTH)
    ids = vocabulary.encode(texts, limit)
    return Run(recipe, student, vocabulary, ids, targets, bridge, generator(recipe.seed))


def plan(run: Run) -> list[list[int]]:
    """Return one pass in batches of equal length; rows with a true label occur several times."""
    times = np.where(run.targets.labelled, run.recipe.keep_labels, 1)
    chosen: list[int] = np.repeat(np.arange(len(times)), times).tolist()
    run.rng.shuffle(chosen)
    by_length: dict[int, list[int]] = {}
    for i in chosen:
        by_length.setdefault(len(run.ids[i]), []).append(i)
    groups = []
    for length, rows in by_length.items():
        size = max(8, min(192, run.recipe.batch_tokens // length))
        groups += [rows[k : k + size] for k in range(0, len(rows), size)]
    run.rng.shuffle(groups)
    return groups


def noisy(tokens: Tensor, share: float, plain: int) -> Tensor:
    """Replace some text tokens by random ones."""
    hit = torch.rand(tokens.shape) < share
    hit[:, -1] = False
    return torch.where(hit, torch.randint(0, plain, tokens.shape), tokens)


def loss_of(run: Run, group: Sequence[int]) -> Tensor:
    """Return the cross-entropy with the soft targets, plus the desk and sentence-vector terms."""
    targets, recipe = run.targets, run.recipe
    tokens = noisy(torch.tensor([run.ids[i] for i in group]), recipe.noise, run.vocabulary.plain)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = run.student(tokens)
    hidden = hidden.float()
    loss = torch.zeros(())
    for task, rows in targets.rows.items():
        mine = [k for k, i in enumerate(group) if targets.tasks[i] == task]
        if mine and task in run.vocabulary.tasks:
            wanted = torch.from_numpy(rows[targets.where[[group[k] for k in mine]]].astype(np.float32))
            out = run.student.logits(hidden[mine], run.labels(task))
            loss = loss + fn.cross_entropy(out, wanted, reduction="sum")
    if "desk" in run.vocabulary.tasks:
        out = run.student.logits(hidden, run.labels("desk"))
        loss = loss + 0.3 * fn.cross_entropy(out, torch.from_numpy(targets.desks[group]), reduction="sum")
    vectors = torch.from_numpy(targets.vectors[group].astype(np.float32))
    near = fn.cosine_similarity(run.bridge(hidden), vectors)
    return (loss + recipe.vector_weight * (1 - near).sum()) / len(group)


def optimiser_of(run: Run) -> torch.optim.Optimizer:
    """Return AdamW without weight decay on embeddings and gains."""
    weights = [*run.student.parameters(), *run.bridge.parameters()]
    flat = [w for w in weights if w.dim() < 2 or w is run.student.token_embd.weight]
    deep = [w for w in weights if not any(w is other for other in flat)]
    groups = [{"params": deep, "weight_decay": run.recipe.decay}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=run.recipe.rate, betas=(0.9, 0.98), foreach=True)


def fit(run: Run, splits: Mapping[str, Split], log: Log, save_to: Path) -> None:
    """Train with a warm-up and then a half-cosine decay of the learning rate to zero."""
    optimiser, step, seen = optimiser_of(run), 0, 0.0
    length = len(plan(run))
    total = round(length * run.recipe.passes)
    log.say(f"{run.student.parameters_count} weights, {len(run.ids)} sentences, {total} steps")
    while step < total:
        for group in plan(run)[: total - step]:
            for part in optimiser.param_groups:
                part["lr"] = run.recipe.rate * pace(step / total)
            seen += _step(run, group, optimiser)
            step += 1
            if step % REPORT_EVERY == 0 or step == total:
                mean = seen / ((step - 1) % REPORT_EVERY + 1)
                log.say(f"step {step} loss {mean:.3f} " + report(run, splits))
                seen = 0.0
                save(run.student, run.vocabulary, save_to)


def _step(run: Run, group: Sequence[int], optimiser: torch.optim.Optimizer) -> float:
    loss = loss_of(run, group)
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.student.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def pace(done: float, warm: float = 0.05) -> float:
    """Return the share of the full learning rate after a share of the run."""
    return done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def probabilities(student: Student, vocabulary: Vocabulary, task: str, texts: Sequence[str]) -> Any:
    """Return the student's label distributions, computed by PyTorch in 32 bits; shape (texts, labels)."""
    student.eval()
    ids = vocabulary.encode(texts, LIMITS[task])
    labels = torch.tensor(vocabulary.label_ids(task))
    out = np.zeros((len(ids), len(labels)), np.float32)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    start = 0
    with torch.inference_mode():
        while start < len(order):
            end = start
            while end < len(order) and end < start + 256 and len(ids[order[end]]) == len(ids[order[start]]):
                end += 1
            rows = order[start:end]
            hidden = student(torch.tensor([ids[i] for i in rows]))
            out[rows] = student.logits(hidden, labels).softmax(-1).numpy()
            start = end
    student.train()
    return out


def report(run: Run, splits: Mapping[str, Split]) -> str:
    """Return every task's accuracy on val, and how well confidence tells in-scope rows from others."""
    parts = []
    for task, split in splits.items():
        names = run.vocabulary.tasks[task]
        out = probabilities(run.student, run.vocabulary, task, [row.text for row in split.val])
        hits = np.array([names[k] == row.label for k, row in zip(out.argmax(1), split.val, strict=True)])
        inside = np.array([row.label != OOS for row in split.val])
        parts.append(f"{task} {hits[inside].mean():.4f}")
        if not inside.all():
            known = [k for k, name in enumerate(names) if name != OOS]
            parts.append(f"auroc {auroc(out[:, known].max(1), inside):.4f}")
    return " ".join(parts)


def save(student: Student, vocabulary: Vocabulary, path: Path) -> None:
    """Write a checkpoint: weights and vocabulary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save((student.shape, student.state_dict()), path)
    vocabulary.save(path.with_suffix(".vocab.json"))


def mean(models: Sequence[tuple[Student, Vocabulary]]) -> tuple[Student, Vocabulary]:
    """Average the weights of students that share a starting point."""
    states = [student.state_dict() for student, _ in models]
    student, vocabulary = models[0]
    student.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    return student, vocabulary


def restore(path: Path) -> tuple[Student, Vocabulary]:
    """Read what `save` wrote. The file is unpickled, so it must be one of ours."""
    shape, state = torch.load(path, weights_only=False)
    student = Student(shape)
    student.load_state_dict(state)
    return student.eval(), Vocabulary.restore(path.with_suffix(".vocab.json"))
