"""The size `tiny`: a student of few million weights, distilled from a fine-tuned encoder (extra `train`)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.errors import ModelError
from cascade.lab.learning.card import outside_label
from cascade.lab.learning.session import Session
from cascade.lab.learning.sizes import Answers, Material, Rows
from cascade.lab.learning.tuned_size import Tuned, fine_tune
from cascade.lab.networks import student_file, vocab
from cascade.lab.networks.distil import Distillation, DistilSettings, Lesson, settings_for
from cascade.lab.networks.encoder_file import read_encoder
from cascade.lab.networks.finetune import embed
from cascade.lab.networks.transfer import UNLABELLED, TransferSettings, compose, targets
from cascade.lab.networks.words import common_words, frequent, neighbours, word_counts
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.spec.registry import MODELS

COMMON = 20_000  # words that can replace others
TEACHER_SHARE = 0.5  # of the time, at most
_KIND = "Q8_0"
_REPORT_EVERY = 64  # texts
_WORD_TOKENS = 16


class TinyExpert:
    """A distilled student, trained and not yet written (`sizes.Trained`)."""

    confidence: Mapping[str, str] = {"by": "labels"}

    def __init__(
        self, run: Distillation, task: str, draft: Path, held: tuple[Sequence[str], Any], notes: Any
    ) -> None:
        """Take a finished run.

        Args:
            run: the run.
            task: the task's name.
            draft: where a file of it can be, for measuring.
            held: texts that it has not learned, and the indices of the rows that they are.
            notes: for the card.
        """
        self.size = "tiny"
        self.labels: Sequence[str] = run.vocabulary.tasks[task]
        self.notes: Mapping[str, Any] = notes
        self._run, self._task, self._draft = run, task, draft
        self._write(draft, task, None)
        self.rows = held[1]
        self.scores = self.answers(held[0], Session(1.0))

    def answers(self, texts: Sequence[str], session: Session) -> Answers:
        """Answer texts as the expert will at run time, through llama.cpp; too long ones with confidence 0."""
        with ThreadPoolExecutor(1) as pool:  # the caller's thread may run a loop of its own
            rows = pool.submit(asyncio.run, self._ask(texts, session)).result()
        predicted, top, inside = np.array(rows, np.float64).reshape(-1, 3).T
        return Answers(predicted.astype(np.intp), top, inside, inside)

    def write(self, out: Path, task: str, card: Mapping[str, Any]) -> None:
        """Write the file with the card inside."""
        self._write(out, task, card)

    def _write(self, out: Path, task: str, card: Mapping[str, Any] | None) -> None:
        prompts = student_file.prompts(self._run.vocabulary, {self._task: self._run.limit}, causal=False)
        student_file.write(
            self._run.student, self._run.vocabulary, {task: prompts[self._task]}, out, _KIND, card
        )

    async def _ask(self, texts: Sequence[str], session: Session) -> list[tuple[int, float, float]]:
        given = {"kind": "llamacpp", "path": str(self._draft.resolve()), "task": self._task}
        settings = MODELS.kinds()["llamacpp"].model_validate(given)
        model = build_model("expert", settings, self._draft.parent)
        number = {label: index for index, label in enumerate(self.labels)}
        outside, rows = outside_label(self.labels), []
        try:
            for index, text in enumerate(texts):
                try:
                    found = (await model.ask(Prompt(text))).labels or {}
                except ModelError:  # it is longer than any that it has learned from
                    found = {self.labels[0]: 0.0}
                best = max(found, key=found.__getitem__)
                inside = max((value for label, value in found.items() if label != outside), default=0.0)
                rows.append((number[best], min(1.0, found[best]), inside))
                if index % _REPORT_EVERY == 0:
                    session.report("measuring", index / len(texts))
        finally:
            await model.aclose()
        return rows


def train(rows: Rows, material: Material) -> TinyExpert:
    """Fine-tune the bundled encoder and distil it into a student."""
    return distil(rows, material, fine_tune(rows, material, TEACHER_SHARE))


def distil(rows: Rows, material: Material, tuned: Tuned) -> TinyExpert:
    """Distil a fine-tuned encoder into a student: on rows, texts made of them, and texts without labels."""
    task, seed = material.settings.task, material.settings.seed
    kept = np.setdiff1d(np.arange(len(rows.texts)), tuned.held)
    texts = [rows.texts[index] for index in kept]
    words = Words(tuned, material.vectors.encoder, texts)
    counts = word_counts([*texts, *material.unlabelled], words.common)
    vocabulary = vocab.learn(counts, DistilSettings().vocab, {task: tuned.names})
    lesson = _lesson(rows, kept, words, material, tuned)
    run = Distillation(
        [lesson],
        vocabulary,
        words.vectors(vocabulary.pieces),
        material.vectors.max_tokens,
        settings_for(len(texts), seed),
        material.session.report,
        material.session.seconds_left,
        material.store.folder / f"tiny-{tuned.key[:16]}.pt",
    )
    notes = tuned.notes | {"temperature": run.run()[task], "transfer_texts": len(lesson.texts)}
    draft = material.store.folder / "tiny.gguf"
    return TinyExpert(run, task, draft, (lesson.held[0], tuned.held), notes)


class Words:
    """Words of the rows and of the language, in the space of the encoder as it was before it was fine-tuned.

    Attributes:
        common: common words, the most common first.
        near: words of similar meaning.
    """

    def __init__(self, tuned: Tuned, encoder: Path, texts: Sequence[str]) -> None:
        """Embed the words."""
        self._source = read_encoder(encoder)
        self.common = common_words(tuned.source.pieces, COMMON)
        words = list(dict.fromkeys([*self.common, *frequent(texts)]))
        self.near = neighbours(words, self.vectors(words))

    def vectors(self, words: Sequence[str]) -> Any:
        """Return the unit vectors of words, float32 (words, width)."""
        return embed(self._source.encoder, self._source.tokenize(words, _WORD_TOKENS), batch=512)


def _lesson(rows: Rows, kept: Any, words: Words, material: Material, tuned: Tuned) -> Lesson:
    """Return the texts that the student learns from, and what its teacher says of them."""
    number = {name: index for index, name in enumerate(tuned.names)}
    labels = np.array([number[label] for label in rows.labels], np.intp)
    transfer = TransferSettings()
    rng = random.Random(material.settings.seed)  # noqa: S311 - it draws words
    texts = [rows.texts[index] for index in kept]
    made = compose(texts, labels[kept].tolist(), material.unlabelled, words.common, words.near, transfer, rng)
    ids = tuned.source.tokenize(made.texts, material.vectors.max_tokens)
    vectors = embed(tuned.model.encoder, ids, report=material.session.report)
    with torch.inference_mode():
        logits = tuned.model.logits(torch.from_numpy(vectors), 0).numpy()
    return Lesson(
        material.settings.task,
        made.texts,
        targets(logits, made.labels, transfer.trust),
        vectors.astype(np.float16),
        made.labels != UNLABELLED,
        ([rows.texts[index] for index in tuned.held], labels[tuned.held]),
    )
