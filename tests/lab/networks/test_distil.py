"""Distilling into a student on toy texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("tokenizers", reason="needs the extra train")

from cascade.lab.networks import distil, vocab  # noqa: E402
from cascade.lab.networks.distil import Distillation, DistilSettings, Lesson  # noqa: E402
from cascade.lab.networks.transfer import softmax, targets  # noqa: E402

LABELS = {"greeting": ["greet", "leave"], "bank": ["card", "cash"]}
TEXTS = {"greeting": ["hello there", "goodbye now"], "bank": ["my card is lost", "i need cash"]}
SETTINGS = DistilSettings(300, 32, 1, 2, 64, passes=60, rate=5e-3, dropout=0.0)


def lessons() -> list[Lesson]:
    random = np.random.default_rng(0)
    found = []
    for task, texts in TEXTS.items():
        labels = np.arange(2)
        wanted = targets(np.zeros((2, 2)), labels, trust=0.9)
        vectors = random.normal(size=(2, 16)).astype(np.float16)
        found.append(Lesson(task, texts, wanted, vectors, np.ones(2, bool), (texts, labels)))
    return found


def run_of(
    checkpoint: Path | None = None,
    settings: DistilSettings = SETTINGS,
    seconds_left: Callable[[], float] = lambda: math.inf,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Distillation:
    words = dict.fromkeys((word for texts in TEXTS.values() for text in texts for word in text.split()), 3)
    made = vocab.learn(words, settings.vocab, LABELS)
    vectors = np.random.default_rng(0).normal(size=(made.plain, 32))
    return Distillation(lessons(), made, vectors, 20, settings, report, seconds_left, checkpoint)


def answers(run: Distillation, task: str) -> list[int]:
    out = distil.probabilities(run.student, run.vocabulary, task, TEXTS[task], 20)
    best: list[int] = out.argmax(1).tolist()
    return best


def test_a_student_of_two_tasks_learns_both() -> None:
    run = run_of()
    heat = run.run()
    assert set(heat) == set(LABELS)
    assert [answers(run, task) for task in LABELS] == [[0, 1], [0, 1]]


def test_the_same_seed_gives_the_same_student() -> None:
    few = replace(SETTINGS, passes=3)
    first, second, other = (run_of(settings=replace(few, seed=seed)) for seed in (0, 0, 1))
    for run in (first, second, other):
        run.run()
    weights = [run.student.token_embd.weight for run in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_run_that_died_goes_on_to_the_same_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DiedError(Exception):
        pass

    def die(stage: str, share: float) -> None:
        if share > 0.5:
            raise DiedError

    monkeypatch.setattr(distil, "SAVE_SECONDS", 0.0)
    whole = run_of()
    whole.run()
    with pytest.raises(DiedError):
        run_of(tmp_path / "run.pt", report=die).run()
    again = run_of(tmp_path / "run.pt")
    again.run()
    assert torch.equal(whole.student.token_embd.weight, again.student.token_embd.weight)


def test_a_run_that_does_not_fit_ends_with_a_rate_of_zero_when_the_time_is_up() -> None:
    finish = distil._by_the_clock(0.0, 0.1, took=10.0, left=45.0, now=100.0)
    assert finish is not None
    assert finish(100.0) == pytest.approx(0.1)
    assert finish(145.0) == pytest.approx(1.0)
    assert distil._by_the_clock(0.0, 0.1, took=10.0, left=95.0, now=100.0) is None
    run = run_of(settings=replace(SETTINGS, passes=1e5), seconds_left=lambda: 0.2)
    shares: list[float] = []
    run.report = lambda stage, share: shares.append(share)
    run._groups = lambda: [(0, [0, 1])] * 100_000  # type: ignore[method-assign]
    run.run()
    assert 100 < len(shares) < 20_000


def test_a_folded_temperature_changes_no_answer() -> None:
    run = run_of(settings=replace(SETTINGS, passes=5))
    before = run.student.token_embd.weight.detach().clone()
    heat = run.run()["bank"]
    after = distil.probabilities(run.student, run.vocabulary, "bank", TEXTS["bank"], 20)
    with torch.no_grad():
        run.student.token_embd.weight[run.vocabulary.label_ids("bank")] *= heat
    cold = distil.probabilities(run.student, run.vocabulary, "bank", TEXTS["bank"], 20)
    assert not torch.equal(before, run.student.token_embd.weight)
    assert after == pytest.approx(softmax(np.log(cold) / heat), abs=1e-4)


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    assert [distil.pace(share) for share in (0.0, 0.05, 1.0)] == pytest.approx([0.0, 1.0, 0.0])
