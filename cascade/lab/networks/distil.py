"""Distilling a fine-tuned encoder into a student of a few million weights.

The loss is the cross-entropy with the teacher's distribution plus the cosine distance to its sentence vector.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from cascade.lab.networks.checkpoints import load, save
from cascade.lab.networks.student import Shape, Student
from cascade.lab.networks.vocab import Vocabulary

Report = Callable[[str, float], None]
SAVE_SECONDS = 60.0
_FEW_ROWS = 6_000
TEMPERATURES = np.geomspace(0.4, 2.5, 64)


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """The size of a student and how it learns."""

    vocab: int = 6000
    width: int = 192
    layers: int = 3
    heads: int = 6
    feed: int = 512
    passes: float = 3.0
    rate: float = 2.5e-3
    dropout: float = 0.1
    noise: float = 0.06
    decay: float = 0.05
    batch_tokens: int = 2048
    repeat_rows: int = 3
    vector_weight: float = 1.0
    seed: int = 0

    @property
    def shape(self) -> dict[str, Any]:
        """The sizes that a `Shape` has beside its vocabulary."""
        return {
            "width": self.width,
            "layers": self.layers,
            "heads": self.heads,
            "feed": self.feed,
            "dropout": self.dropout,
        }


def settings_for(rows: int, seed: int) -> DistilSettings:
    """Return the settings for a number of rows: from few, a student overfits, and noise helps."""
    if rows < _FEW_ROWS:
        return DistilSettings(passes=4.0, rate=2e-3, dropout=0.2, noise=0.18, seed=seed)
    return DistilSettings(seed=seed)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the student learns of one task.

    Attributes:
        task: the task's name.
        texts: texts of the transfer set.
        wanted: distributions over the labels, float16 (texts, labels).
        vectors: the teacher's sentence vectors, float16 (texts, width).
        labelled: whether a text is a row of the user's, which is seen more often.
        held: texts that the student never learns, and the number of each one's label.
    """

    task: str
    texts: list[str]
    wanted: Any
    vectors: Any
    labelled: Any
    held: tuple[list[str], Any]


def start_embeddings(student: Student, vectors: Any, scale: float = 0.3) -> None:
    """Start the text pieces at principal components of the teacher's vectors (pieces, width) for them."""
    centred = vectors - vectors.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    low = centred @ axes[: student.shape.width].T
    low *= scale / low.std()
    with torch.no_grad():
        start = torch.from_numpy(low.astype(np.float32))
        student.token_embd.weight[: len(low), : low.shape[1]] = start  # an encoder may be the narrower one


def pace(done: float, warm: float = 0.05) -> float:
    """Return the share of the full learning rate after a share of the run: a warm-up, then half a cosine."""
    return done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def noisy(tokens: Tensor, share: float, plain: int) -> Tensor:
    """Replace some text tokens by random ones; the last token is the question and stays."""
    hit = torch.rand(tokens.shape) < share
    hit[:, -1] = False
    return torch.where(hit, torch.randint(0, plain, tokens.shape), tokens)


def probabilities(
    student: Student, vocabulary: Vocabulary, task: str, texts: Sequence[str], limit: int
) -> Any:
    """Return the student's label distributions, float32 (texts, labels)."""
    was = student.training
    student.eval()
    ids = vocabulary.encode(texts, limit)
    labels = torch.tensor(vocabulary.label_ids(task))
    out = np.zeros((len(ids), len(labels)), np.float32)
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(ids):
        by_length.setdefault(len(row), []).append(i)
    with torch.inference_mode():
        for same in by_length.values():
            for start in range(0, len(same), 256):
                rows = same[start : start + 256]
                hidden = student(torch.tensor([ids[i] for i in rows]))
                out[rows] = student.logits(hidden, labels).softmax(-1).numpy()
    student.train(was)
    return out


def temperature(probability: Any, truth: Any) -> float:
    """Return the temperature with the smallest log loss for (rows, labels) and the true labels' numbers."""
    logits = np.log(np.maximum(probability, 1e-12))

    def loss(value: float) -> float:
        scaled = logits / value
        norm = np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1)) + scaled.max(1)
        return float(np.mean(norm - scaled[np.arange(len(truth)), truth]))

    return float(min(TEMPERATURES, key=loss))


class Distillation:
    """One run, from a new student to a finished one.

    Attributes:
        student: the student as it is now; after `run`, with a temperature a task folded in.
    """

    def __init__(
        self,
        lessons: Sequence[Lesson],
        vocabulary: Vocabulary,
        piece_vectors: Any,
        limit: int,
        settings: DistilSettings,
        report: Report,
        seconds_left: Callable[[], float] = lambda: math.inf,
        checkpoint: Path | None = None,
    ) -> None:
        """Encode the texts and make the student.

        Args:
            lessons: what to learn.
            vocabulary: the student's own pieces and label tokens.
            piece_vectors: the encoder's vectors of the pieces, shape (pieces, width).
            limit: tokens of a text that the student reads.
            settings: its size and how it learns.
            report: is told the stage and the share done.
            seconds_left: the time that is left; where it is short, the run makes fewer passes; at 0 it ends.
            checkpoint: where the run is kept, so that it can be continued.
        """
        torch.manual_seed(settings.seed)
        self.lessons, self.vocabulary, self.limit, self.settings = lessons, vocabulary, limit, settings
        self.report, self.seconds_left, self.checkpoint = report, seconds_left, checkpoint
        self.student = Student(Shape(len(vocabulary.tokens), **settings.shape))
        start_embeddings(self.student, piece_vectors)
        self.bridge = nn.Linear(settings.width, lessons[0].vectors.shape[1])
        self._ids = [vocabulary.encode(lesson.texts, limit) for lesson in lessons]
        self._labels = [torch.tensor(vocabulary.label_ids(lesson.task)) for lesson in lessons]

    def run(self) -> dict[str, float]:
        """Train, fold the temperatures in, and return them by task."""
        optimiser = self._optimiser()
        step = self._restore(optimiser)
        groups = self._groups()
        total = len(groups)
        saved = began = time.monotonic()
        first, finish = step, None
        self.student.train()
        while step < total:
            share = step / total if finish is None else finish(time.monotonic())
            if share >= 1.0:
                break
            for part in optimiser.param_groups:
                part["lr"] = self.settings.rate * pace(share)
            self._learn(step, groups[step], optimiser)
            step += 1
            now = time.monotonic()
            self.report("distilling", share)
            if step == first + 100:
                finish = _by_the_clock(first / total, step / total, (now - began), self.seconds_left(), now)
            if not self.seconds_left():
                break
            if now - saved > SAVE_SECONDS:
                self._save(optimiser, step)
                saved = now
        self._save(optimiser, step)
        return self._fold()

    def _groups(self) -> list[tuple[int, list[int]]]:
        """Return all batches of the run, of equal length each, as (lesson, texts)."""
        rng = random.Random(self.settings.seed)  # noqa: S311 - it orders texts
        groups: list[tuple[int, list[int]]] = []
        passes = self.settings.passes
        while passes > 0:
            one = [group for number in range(len(self.lessons)) for group in self._pass(number, rng)]
            rng.shuffle(one)
            groups += one[: round(len(one) * min(1.0, passes))]
            passes -= 1
        return groups

    def _pass(self, number: int, rng: random.Random) -> list[tuple[int, list[int]]]:
        ids = self._ids[number]
        times = np.where(self.lessons[number].labelled, self.settings.repeat_rows, 1)
        chosen: list[int] = np.repeat(np.arange(len(times)), times).tolist()
        rng.shuffle(chosen)
        by_length: dict[int, list[int]] = {}
        for i in chosen:
            by_length.setdefault(len(ids[i]), []).append(i)
        found = []
        for length, rows in by_length.items():
            size = max(8, min(192, self.settings.batch_tokens // length))
            found += [(number, rows[k : k + size]) for k in range(0, len(rows), size)]
        return found

    def _optimiser(self) -> torch.optim.Optimizer:
        """Return AdamW without weight decay on embeddings and gains."""
        weights = [*self.student.parameters(), *self.bridge.parameters()]
        flat = [w for w in weights if w.dim() < 2 or w is self.student.token_embd.weight]
        deep = [w for w in weights if not any(w is other for other in flat)]
        groups = [
            {"params": deep, "weight_decay": self.settings.decay},
            {"params": flat, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.rate, betas=(0.9, 0.98), foreach=True)

    def _learn(self, step: int, group: tuple[int, list[int]], optimiser: torch.optim.Optimizer) -> None:
        torch.manual_seed((self.settings.seed << 32) + step)  # so that a run can be continued at any step
        loss = self._loss(*group)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        optimiser.step()

    def _loss(self, number: int, rows: list[int]) -> Tensor:
        lesson, settings = self.lessons[number], self.settings
        tokens = torch.tensor([self._ids[number][i] for i in rows])
        hidden = self.student(noisy(tokens, settings.noise, self.vocabulary.plain))
        wanted = torch.from_numpy(lesson.wanted[rows].astype(np.float32))
        vectors = torch.from_numpy(lesson.vectors[rows].astype(np.float32))
        out = self.student.logits(hidden, self._labels[number])
        near = fn.cosine_similarity(self.bridge(hidden), vectors)
        return fn.cross_entropy(out, wanted) + settings.vector_weight * (1 - near).mean()

    def _fold(self) -> dict[str, float]:
        """Divide each task's label embeddings by its temperature on held rows, which changes no ranking."""
        self.student.eval()
        found = {}
        for lesson in self.lessons:
            texts, truth = lesson.held
            out = probabilities(self.student, self.vocabulary, lesson.task, texts, self.limit)
            found[lesson.task] = temperature(out, truth) if len(texts) else 1.0
            with torch.no_grad():
                self.student.token_embd.weight[self.vocabulary.label_ids(lesson.task)] /= found[lesson.task]
        return found

    def _save(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        state = {
            "student": self.student.state_dict(),
            "bridge": self.bridge.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
        }
        save(state, self.checkpoint)

    def _restore(self, optimiser: torch.optim.Optimizer) -> int:
        state = load(self.checkpoint)
        if state is None:
            return 0
        self.student.load_state_dict(state["student"])
        self.bridge.load_state_dict(state["bridge"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])


def _by_the_clock(
    start: float, done: float, took: float, left: float, now: float
) -> Callable[[float], float] | None:
    """Return share of the run by time of the clock if the whole run does not fit; None if it fits.

    The learning rate then falls to its end within the time that is left, rather than being cut off high.
    """
    if took / max(done - start, 1e-9) * (1 - done) <= left:
        return None
    return lambda time: done + (1 - done) * (time - now) / max(left, 1e-9)
