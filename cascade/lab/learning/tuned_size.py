"""The size `tuned`: the encoder itself fine-tuned on the rows, and a head on its vectors (extra `train`)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from cascade.config.references import model_sha256
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit import Rows as FitRows
from cascade.lab.fitting.fit import fit_head
from cascade.lab.fitting.logistic import Linear
from cascade.lab.learning.head_size import HeadExpert
from cascade.lab.learning.sizes import Material, Rows
from cascade.lab.learning.split import Indices, put_aside
from cascade.lab.learning.store import digest
from cascade.lab.learning.vectors import Matrix, Vectors
from cascade.lab.networks.augment import hollow
from cascade.lab.networks.encoder_file import EncoderFile, read_encoder, write_encoder
from cascade.lab.networks.finetune import Classifier, Epoch, Examples, Finetuning, settings_for
from cascade.lab.networks.words import common_words

HELD_SHARE, MOST_HELD = 0.1, 500  # of the rows, for choosing the epoch and for calibration
COMMON = 10_000  # words that frames without meaning are filled with
_FIT_SECONDS = 30.0  # for what follows, beside embedding the rows once more


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned encoder with a linear head.

    Attributes:
        source: the encoder that it began with.
        model: encoder and head.
        names: the labels, in the order of the head.
        held: indices of rows that it has not seen.
        epochs: what each epoch gave.
        key: hash of all that decided it.
    """

    source: EncoderFile
    model: Classifier
    names: list[str]
    held: Indices
    epochs: list[Epoch]
    key: str

    @property
    def notes(self) -> dict[str, Any]:
        """What the card tells of it."""
        best = max(self.epochs, key=lambda epoch: epoch.rank)
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "epoch": best.number + 1}


def train(rows: Rows, material: Material) -> HeadExpert:
    """Fine-tune the bundled encoder and fit a head on its vectors; rows that it has not seen calibrate."""
    return finish(rows, material, fine_tune(rows, material))


def finish(rows: Rows, material: Material, tuned: Tuned) -> HeadExpert:
    """Fit a head on the vectors of a fine-tuned encoder."""
    path = material.store.folder / f"tuned-{tuned.key[:16]}.gguf"
    write_encoder(tuned.source, tuned.model.encoder, path)
    limit = material.vectors.max_tokens

    def embed(texts: Sequence[str], report: Callable[[float], None]) -> Matrix:
        made: Matrix = embed_texts(path, texts, limit, lambda _, share: report(share), None)
        return made

    vectors = Vectors(path, limit, embed, material.session, material.store)
    fitted = fit_head(
        FitRows(rows.texts, rows.labels, rows.groups),
        vectors.of(rows.texts, to_the_end=True),
        seed=material.settings.seed,
        deadline=material.session.seconds_left,
        report=material.session.report,
        calibration=tuned.held,
        own=_linear(tuned.model),
    )
    expert = HeadExpert("tuned", fitted, vectors)
    expert.notes = tuned.notes | dict(fitted.notes)
    return expert


def _linear(model: Classifier) -> Linear:
    """Return the head of the first task, for unit vectors."""
    head = model.heads[0]
    weights = head.weight.detach().numpy().T * model.scale
    return Linear(np.ascontiguousarray(weights, np.float32), head.bias.detach().numpy().copy())


def fine_tune(rows: Rows, material: Material, share_of_time: float = 1.0) -> Tuned:
    """Fine-tune the bundled encoder with a linear head.

    Args:
        rows: labelled rows.
        material: what there is beside them.
        share_of_time: the part of the time that is left which it may take.
    """
    settings = settings_for(len(rows.texts), material.settings.seed)
    source = read_encoder(material.vectors.encoder)
    names = sorted(set(rows.labels))
    examples = _examples(source, rows, names, material.vectors.max_tokens)
    share = min(HELD_SHARE, MOST_HELD / len(rows.texts))
    kept, held = put_aside(rows.labels, rows.groups, settings.seed, share=share)
    key = digest(model_sha256(source.path), list(rows.texts), list(rows.labels), asdict(settings))
    torch.manual_seed(settings.seed)
    run = Finetuning(
        Classifier(source.encoder, [len(names)], settings.scale),
        examples.take(kept),
        examples.take(held),
        _outliers(source, rows, kept, material),
        settings,
        material.session.report,
        _clock(material, len(rows.texts), share_of_time),
        material.store.folder / f"tuned-{key[:16]}.pt",
    )
    epochs = run.run()
    if len(epochs) < settings.epochs:
        material.session.cut_short = material.session.cut_short or "time"
    return Tuned(source, run.model, names, held, epochs, key)


def _examples(source: EncoderFile, rows: Rows, names: Sequence[str], limit: int) -> Examples:
    number = {name: index for index, name in enumerate(names)}
    labels = np.array([number[label] for label in rows.labels])
    return Examples(source.tokenize(rows.texts, limit), np.zeros(len(labels), np.intp), labels)


def _outliers(source: EncoderFile, rows: Rows, kept: Indices, material: Material) -> list[list[int]]:
    """Return tokenized frames without meaning, made of the rows that are learned."""
    given = [(rows.texts[index], rows.labels[index]) for index in kept.tolist()]
    rng = random.Random(material.settings.seed)  # noqa: S311 - it draws words
    made = hollow(given, common_words(source.pieces, COMMON), len(given) // 3, rng)
    return source.tokenize(made, material.vectors.max_tokens)


def _clock(material: Material, rows: int, share: float) -> Callable[[], float]:
    """Return the seconds that fine-tuning may still take: what follows needs some as well."""
    speed = material.vectors.texts_per_second
    after = _FIT_SECONDS + (rows / speed if speed else 0.0)
    left = material.session.seconds_left()
    spare = max((1.0 - share) * left, min(after, 0.3 * left)) if math.isfinite(left) else 0.0
    return lambda: max(0.0, material.session.seconds_left() - spare)
