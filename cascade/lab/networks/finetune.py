"""Fine-tuning the encoder with one linear head a task on labelled rows, checkpointed after every epoch.

Text frames without meaning (`augment.hollow`) join each epoch with the uniform distribution as target, so
that the encoder does not become sure of texts that belong to no label (outlier exposure, Hendrycks et al.
2019, arXiv 1812.04606).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from cascade.lab.networks.bert import Bert, padded
from cascade.lab.networks.checkpoints import load, save

OUTLIER = -1
_EPOCHS, _MOST_EPOCHS, _BATCH = 6, 20, 48
_ROWS_SEEN = 36_000  # in all epochs together, at least, unless that would be more than _MOST_EPOCHS
_MANY_ROWS = 8_000
_OUTLIERS = 16  # rows a frame without meaning
Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How an encoder is fine-tuned.

    Attributes:
        epochs: passes over the rows.
        rate: the highest learning rate of the encoder; the embeddings stay as they are.
        head_rate: the highest learning rate of the heads.
        scale: factor of the unit vectors before a head.
        outlier_weight: weight of an outlier's loss beside a labelled row's.
    """

    epochs: int = 6
    batch: int = 48
    rate: float = 1.5e-4
    head_rate: float = 2e-3
    warm_up: float = 0.08
    scale: float = 16.0
    smoothing: float = 0.05
    dropout: float = 0.1
    outlier_weight: float = 0.5
    seed: int = 0


def settings_for(rows: int, seed: int) -> FinetuneSettings:
    """Return the settings for a number of rows: few are seen more often, in smaller batches."""
    epochs = min(_MOST_EPOCHS, max(_EPOCHS, math.ceil(_ROWS_SEEN / rows)))
    return FinetuneSettings(epochs, _BATCH if rows >= _MANY_ROWS else _BATCH // 2, seed=seed)


@dataclass(frozen=True, slots=True)
class Examples:
    """Tokenized rows of one or more tasks.

    Attributes:
        ids: token ids of each row.
        tasks: number of each row's task.
        labels: number of each row's label within its task, or `OUTLIER`.
    """

    ids: list[list[int]]
    tasks: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Any) -> Examples:
        """Return some of the rows."""
        return Examples([self.ids[i] for i in rows], self.tasks[rows], self.labels[rows])

    def with_rows(self, other: Examples) -> Examples:
        """Return these rows and then others."""
        return Examples(
            self.ids + other.ids,
            np.concatenate([self.tasks, other.tasks]),
            np.concatenate([self.labels, other.labels]),
        )


class Classifier(nn.Module):  # type: ignore[misc]  # torch is not seen by the type checker
    """An encoder with one linear head a task."""

    def __init__(self, encoder: Bert, sizes: Sequence[int], scale: float) -> None:
        super().__init__()
        self.encoder, self.scale = encoder, scale
        self.heads = nn.ModuleList(nn.Linear(encoder.shape.width, size) for size in sizes)

    def logits(self, vectors: Tensor, task: int) -> Tensor:
        """Return one task's logits, shape (rows, labels)."""
        out: Tensor = self.heads[task](vectors * self.scale)
        return out


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave: mean loss, and accuracy and log loss on the held rows."""

    number: int
    loss: float
    accuracy: float
    log_loss: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """The more, the better."""
        return self.accuracy, -self.log_loss


def embed(
    encoder: Bert, ids: Sequence[Sequence[int]], batch: int = 96, report: Report = lambda stage, share: None
) -> Any:
    """Return unit sentence vectors, float32 (rows, width), in the order of `ids`."""
    was = encoder.training
    encoder.eval()
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = np.zeros((len(ids), encoder.shape.width), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            vectors[chosen] = encoder(*padded([ids[i] for i in chosen])).numpy()
            report("embedding", start / len(order))
    encoder.train(was)
    return vectors


def start_heads(model: Classifier, rows: Examples) -> None:
    """Start each head at the class centroids of the encoder as it is."""
    vectors = embed(model.encoder, rows.ids)
    for task, head in enumerate(model.heads):
        mine = rows.tasks == task
        here, labels = vectors[mine], rows.labels[mine]
        centre = here.mean(0)
        means = np.stack([here[labels == k].mean(0) - centre for k in range(head.out_features)])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(means))
            head.bias.copy_(torch.from_numpy(-model.scale * means @ centre))


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> list[list[int]]:
    """Return shuffled batches of rows of similar length, which need little padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] * (1 + 0.3 * rng.random()))
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(groups)
    return groups


@dataclass(slots=True)
class Finetuning:
    """One fine-tuning run.

    Attributes:
        model: encoder and heads as they are now; after `run`, the best of all epochs.
        rows: what it learns.
        held: labelled rows that it never learns; they choose the epoch.
        outliers: tokenized texts that belong to no label.
        seconds_left: at 0 the run ends, even within an epoch; one that does not fit is not begun.
        checkpoint: where the run is kept after each epoch, so that it can be continued.
    """

    model: Classifier
    rows: Examples
    held: Examples
    outliers: list[list[int]]
    settings: FinetuneSettings
    report: Report
    seconds_left: Callable[[], float] = lambda: math.inf
    checkpoint: Path | None = None

    def run(self) -> list[Epoch]:
        """Train; return what each epoch gave, and leave the best in `model`."""
        optimiser = self._optimiser()
        found = self._restore(optimiser)
        if found is None:
            start_heads(self.model, self.rows)
        done, best = found or ([], self._state())
        for number in range(len(done), self.settings.epochs):
            if done and self.seconds_left() < max(1e-9, 1.1 * done[-1].seconds):
                break
            done.append(self._epoch(number, optimiser))
            if done[-1].rank == max(epoch.rank for epoch in done):
                best = self._state()
            self._save(optimiser, done, best)
        self.model.load_state_dict(best, strict=False)
        self.model.eval()
        return done

    def _optimiser(self) -> torch.optim.Optimizer:
        settings, encoder = self.settings, self.model.encoder
        for part in (encoder.token_embd, encoder.position_embd, encoder.token_types, encoder.token_embd_norm):
            part.requires_grad_(False)
        body = [weight for weight in encoder.parameters() if weight.requires_grad]
        groups = [
            {"params": body, "lr": settings.rate, "initial": settings.rate, "weight_decay": 0.01},
            {
                "params": list(self.model.heads.parameters()),
                "lr": settings.head_rate,
                "initial": settings.head_rate,
                "weight_decay": 0.0,
            },
        ]
        return torch.optim.AdamW(groups, foreach=True)

    def _epoch(self, number: int, optimiser: torch.optim.Optimizer) -> Epoch:
        began = time.monotonic()
        rng = random.Random(f"{self.settings.seed}:{number}")  # noqa: S311 - it orders rows, so that epochs can be resumed
        torch.manual_seed(self.settings.seed * 1000 + number)
        rows = self._with_outliers(rng)
        groups = batches([len(ids) for ids in rows.ids], self.settings.batch, rng)
        self.model.train()
        total = 0.0
        for step, group in enumerate(groups):
            share = (number + step / len(groups)) / self.settings.epochs
            for part in optimiser.param_groups:
                part["lr"] = part["initial"] * min((share + 1e-3) / self.settings.warm_up, 1 - share)
            loss = self._loss(rows.take(np.array(group)))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.encoder.parameters(), 1.0)
            optimiser.step()
            total += float(loss.detach())
            self.report("fine-tuning", share)
            if not self.seconds_left():
                break
        accuracy, log_loss = self.score(self.held)
        return Epoch(number, total / (step + 1), accuracy, log_loss, time.monotonic() - began)

    def _with_outliers(self, rng: random.Random) -> Examples:
        count = min(len(self.outliers), len(self.rows) // _OUTLIERS)
        if not count:
            return self.rows
        chosen = rng.sample(self.outliers, count)
        tasks = np.array([rng.randrange(len(self.model.heads)) for _ in chosen])
        return self.rows.with_rows(Examples(chosen, tasks, np.full(count, OUTLIER)))

    def _loss(self, rows: Examples) -> Tensor:
        """Return the cross-entropy a row; outliers should be as likely for each label."""
        settings = self.settings
        vectors = fn.dropout(self.model.encoder(*padded(rows.ids)), settings.dropout, self.model.training)
        loss = torch.zeros(())
        for task in range(len(self.model.heads)):
            mine = torch.from_numpy((rows.tasks == task) & (rows.labels != OUTLIER))
            if mine.any():
                target = torch.from_numpy(rows.labels)[mine]
                loss = loss + fn.cross_entropy(
                    self.model.logits(vectors[mine], task),
                    target,
                    reduction="sum",
                    label_smoothing=settings.smoothing,
                )
            outside = torch.from_numpy((rows.tasks == task) & (rows.labels == OUTLIER))
            if outside.any():
                spread = self.model.logits(vectors[outside], task).log_softmax(-1)
                loss = loss - settings.outlier_weight * spread.mean(-1).sum()
        return loss / len(rows)

    def score(self, rows: Examples) -> tuple[float, float]:
        """Return accuracy and log loss on labelled rows."""
        vectors = torch.from_numpy(embed(self.model.encoder, rows.ids))
        right, loss = 0, 0.0
        with torch.inference_mode():
            for task in range(len(self.model.heads)):
                mine = torch.from_numpy(rows.tasks == task)
                if mine.any():
                    out, truth = self.model.logits(vectors[mine], task), torch.from_numpy(rows.labels)[mine]
                    right += int((out.argmax(1) == truth).sum())
                    loss += float(fn.cross_entropy(out, truth, reduction="sum"))
        return right / max(1, len(rows)), loss / max(1, len(rows))

    def _state(self) -> dict[str, Tensor]:
        """Return a copy of the weights that change."""
        changing = {name for name, weight in self.model.named_parameters() if weight.requires_grad}
        return {
            key: value.detach().clone() for key, value in self.model.state_dict().items() if key in changing
        }

    def _save(
        self, optimiser: torch.optim.Optimizer, done: Sequence[Epoch], best: Mapping[str, Tensor]
    ) -> None:
        state = {
            "model": self._state(),
            "best": dict(best),
            "optimiser": optimiser.state_dict(),
            "epochs": [asdict(epoch) for epoch in done],
        }
        save(state, self.checkpoint)

    def _restore(self, optimiser: torch.optim.Optimizer) -> tuple[list[Epoch], dict[str, Tensor]] | None:
        state = load(self.checkpoint)
        if state is None:
            return None
        self.model.load_state_dict(state["model"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        return [Epoch(**epoch) for epoch in state["epochs"]], state["best"]
