"""Soft targets and the student's loop, on toy rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("tokenizers", reason="needs the extra train")

from cascade.lab.training import targets, temper, train, vocab  # noqa: E402
from cascade.lab.training.datasets import Row, Split  # noqa: E402
from cascade.lab.training.pool import Item  # noqa: E402
from cascade.lab.training.recipes import Recipe  # noqa: E402
from cascade.lab.training.report import Log  # noqa: E402

LABELS = {"clinc150": ["greet", "leave"], "banking77": ["card", "cash"]}
ITEMS = [
    Item("hello there", "clinc150", "greet"),
    Item("goodbye now", "clinc150", "leave"),
    Item("my card is lost", "banking77", "card"),
    Item("i need cash", "banking77", "cash"),
    Item("hello hello", "clinc150", ""),
]
RECIPE = Recipe(
    "toy", "haiku", ("clinc150", "banking77"), 300, 32, 1, 1, 64, passes=60, rate=5e-3, dropout=0.0
)


def marks() -> targets.Marks:
    logits = {task: np.zeros((len(ITEMS), 2), np.float16) for task in LABELS}
    logits["clinc150"][4] = [4, -4]
    return logits, np.random.default_rng(0).normal(size=(len(ITEMS), 384)).astype(np.float16)


def toy(seed: int = 0) -> train.Run:
    words = dict.fromkeys((word for item in ITEMS for word in item.text.split()), 3)
    made = vocab.learn(words, RECIPE.vocab, LABELS)
    wanted = targets.build(ITEMS, [marks()], LABELS, trust=0.9)
    vectors = np.random.default_rng(seed).normal(size=(made.plain, 384))
    return train.prepare(RECIPE, made, [item.text for item in ITEMS], wanted, vectors)


def splits() -> dict[str, Split]:
    rows = {task: [Row(item.text, item.label) for item in ITEMS[:4] if item.task == task] for task in LABELS}
    return {task: Split(task, part, part, part) for task, part in rows.items()}


def test_targets_lean_to_the_true_label_where_there_is_one() -> None:
    built = targets.build(ITEMS, [marks()], LABELS, trust=0.5)
    assert built.rows["clinc150"][built.where[0]] == pytest.approx([0.75, 0.25])
    assert built.rows["clinc150"][built.where[4]][0] > 0.99
    assert built.labelled.tolist() == [True] * 4 + [False]


def test_student_learns_its_rows_and_survives_a_file(tmp_path: Path) -> None:
    run = toy()
    train.fit(run, splits(), Log("test"), tmp_path / "toy.pt")
    student, made = train.restore(tmp_path / "toy.pt")
    for task, split in splits().items():
        out = train.probabilities(student, made, task, [row.text for row in split.val])
        assert [made.tasks[task][k] for k in out.argmax(1)] == [row.label for row in split.val]


def test_same_seed_same_student(tmp_path: Path) -> None:
    weights = []
    for name in ("a.pt", "b.pt"):
        run = toy()
        train.fit(run, splits(), Log("test"), tmp_path / name)
        weights.append(run.student.token_embd.weight.detach().clone())
    assert torch.equal(*weights)


def test_mean_of_one_student_is_that_student(tmp_path: Path) -> None:
    run = toy()
    before = {key: value.clone() for key, value in run.student.state_dict().items()}
    student, _ = train.mean([(run.student, run.vocabulary), (run.student, run.vocabulary)])
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def test_folded_temperature_changes_no_answer() -> None:
    run = toy()
    texts = [item.text for item in ITEMS]
    before = train.probabilities(run.student, run.vocabulary, "clinc150", texts)
    heat = temper.fold(run.student, run.vocabulary, splits())["clinc150"]
    after = train.probabilities(run.student, run.vocabulary, "clinc150", texts)
    assert after.argmax(1).tolist() == before.argmax(1).tolist()
    wanted = targets.softmax(np.log(before) / heat)
    assert after == pytest.approx(wanted, abs=1e-4)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    assert train.pace(0.0) == 0.0
    assert train.pace(0.05) == 1.0
    assert train.pace(1.0) == pytest.approx(0.0)
