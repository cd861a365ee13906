"""Fine-tuning a small encoder on toy rows: it learns, it can be continued, and time is honoured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from cascade.lab.networks.bert import Bert, BertShape, padded  # noqa: E402
from cascade.lab.networks.finetune import (  # noqa: E402
    OUTLIER,
    Classifier,
    Examples,
    FinetuneSettings,
    Finetuning,
    embed,
    settings_for,
)

SHAPE = BertShape(vocab=50, width=32, layers=2, heads=4, feed=64, positions=16)
SETTINGS = FinetuneSettings(epochs=3, batch=8, rate=1e-3)


def rows(count: int = 90) -> Examples:
    """Rows of two tasks: in the first a token of three tells the label, in the second a token of two."""
    random = np.random.default_rng(0)
    ids = random.integers(10, 50, (count, 8)).tolist()
    tasks, labels = np.arange(count) % 2, np.zeros(count, int)
    for row in range(count):
        labels[row] = random.integers(3 if tasks[row] == 0 else 2)
        ids[row][random.integers(8)] = 1 + labels[row] + 4 * tasks[row]
        ids[row] = ids[row][: random.integers(8, 9)]
    return Examples(ids, tasks, labels)


def run_of(
    checkpoint: Path | None = None,
    settings: FinetuneSettings = SETTINGS,
    seconds_left: Callable[[], float] = lambda: math.inf,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Finetuning:
    torch.manual_seed(0)
    made, outliers = rows(), [[10, 11, 12], [13, 14, 15], [16, 17]]
    model = Classifier(Bert(SHAPE), [3, 2], settings.scale)
    held = np.arange(60, 90)
    return Finetuning(
        model, made.take(np.arange(60)), made.take(held), outliers, settings, report, seconds_left, checkpoint
    )


def test_padding_changes_no_vector() -> None:
    torch.manual_seed(0)
    encoder = Bert(SHAPE).eval()
    ids = [[3, 4, 5], [6, 7, 8, 9, 10, 11]]
    together = embed(encoder, ids)
    assert embed(encoder, ids[:1])[0] == pytest.approx(together[0], abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_it_learns_what_tells_the_labels_apart() -> None:
    run = run_of(settings=replace(SETTINGS, epochs=25, rate=3e-3))
    done = run.run()
    assert max(epoch.accuracy for epoch in done) >= 0.8  # chance is below 0.5
    assert run.score(run.held)[0] == max(epoch.accuracy for epoch in done)


def test_outliers_end_less_certain_than_rows() -> None:
    run = run_of(settings=replace(SETTINGS, epochs=20, rate=3e-3, outlier_weight=2.0))
    run.run()

    def certainty(ids: list[list[int]]) -> float:
        vectors = torch.from_numpy(embed(run.model.encoder, ids))
        with torch.inference_mode():
            return float(run.model.logits(vectors, 0).softmax(-1).max(1).values.mean())

    first = run.rows.take(np.flatnonzero(run.rows.tasks == 0))
    assert certainty(run.outliers) < certainty(first.ids)
    assert not (run.rows.labels == OUTLIER).any()


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not() -> None:
    def weights(seed: int) -> torch.Tensor:
        run = run_of(settings=replace(SETTINGS, epochs=1, seed=seed))
        run.run()
        return torch.cat([weight.flatten() for weight in run.model.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_run_that_died_goes_on_from_its_last_epoch_to_the_same_weights(tmp_path: Path) -> None:
    class DiedError(Exception):
        pass

    def die(stage: str, share: float) -> None:
        if share > 0.5:
            raise DiedError

    whole = run_of()
    done = whole.run()
    with pytest.raises(DiedError):
        run_of(tmp_path / "run.pt", report=die).run()
    again = run_of(tmp_path / "run.pt")
    assert [epoch.accuracy for epoch in again.run()] == [epoch.accuracy for epoch in done]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key


def test_without_time_for_another_epoch_the_best_so_far_is_kept() -> None:
    run = run_of(seconds_left=lambda: 0.0)
    assert len(run.run()) == 1
    assert run.score(run.held)[0] > 0


def test_a_stopped_run_ends_within_the_epoch_with_what_it_has() -> None:
    left = iter([1e9] * 3 + [0.0] * 100)
    shares: list[float] = []
    run = run_of(seconds_left=lambda: next(left), report=lambda stage, share: shares.append(share))
    done = run.run()
    assert len(done) == 1
    assert len(shares) == 4  # batches of the eight that the epoch has


def test_few_rows_are_seen_more_often() -> None:
    assert [settings_for(rows, 0).epochs for rows in (100, 3_690, 9_500, 100_000)] == [20, 10, 6, 6]
    assert [settings_for(rows, 0).batch for rows in (100, 9_500)] == [24, 48]


def test_tokens_are_padded_to_the_longest() -> None:
    tokens, lengths = padded([[5], [6, 7, 8]])
    assert tokens.shape == (2, 3)
    assert lengths.tolist() == [1, 3]
