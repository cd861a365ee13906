"""Experts that are learned from rows, beside what anybody would try first, on the same rows.

    python benchmarks/learn.py --data DIR [--task clinc150] [--rows-a-label 5 10 0] [--seeds 3] [--quick]

For each data set and number of training rows a label (0: all), each method is fitted on the same rows and
answers the test rows: TF-IDF of words and characters with logistic regression, the frozen encoder's vectors
with logistic regression, and the size `head` of `cascade learn`, which is written to a file and read back.
Vectors come from `bundled:encoder` through llama.cpp. Out-of-scope rows of CLINC150 are never trained on.

Test rows decide nothing. `--quick` takes few rows, to see that everything runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Figures, Stopwatch, guarded, parser, print_json, rate, shown, table, thin
from published import OOS, TASKS, load

from cascade.config.references import bundled_path
from cascade.engine.experts import read_heads
from cascade.formats.expert_file import encoder_digest, write_expert
from cascade.lab.evaluation.metrics import auroc, bootstrap, ece
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit import Rows, fit_head

MAX_TOKENS = 256
TIMED = 200  # texts asked one by one
FULL = 0
FEW = 10  # rows a label for a quick look
RESAMPLES = 500
COLUMNS = (
    "task", "rows a label", "seed", "method", "accuracy", "ECE", "AUROC right/wrong", "AUROC in/out of scope",
    "fit s", "fit CPU s", "MB", "p50 ms",
)  # fmt: skip


@dataclass(frozen=True)
class Set:
    """One data set with vectors of all its texts; `groups` keep near relatives together."""

    task: str
    texts: list[str]
    labels: list[str]
    vectors: np.ndarray
    test_texts: list[str]
    test_labels: list[str]
    test_vectors: np.ndarray
    embed_seconds: float

    def chosen(self, rows_a_label: int, seed: int) -> np.ndarray:
        """Return indices of training rows: all, or so many of each label as the seed draws."""
        if rows_a_label == FULL:
            return np.arange(len(self.texts))
        random = np.random.default_rng(seed)
        names = np.array(self.labels)
        parts = [
            random.permutation(np.flatnonzero(names == each))[:rows_a_label] for each in np.unique(names)
        ]
        return np.concatenate(parts)


class Answered(NamedTuple):
    """What a method said of the test rows."""

    predicted: Sequence[str]
    confidence: np.ndarray
    known: np.ndarray
    megabytes: float = math.nan
    milliseconds: float = math.nan
    notes: dict[str, Any] = {}  # noqa: RUF012


Method = Callable[[Set, np.ndarray, int], Answered]


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--task", choices=TASKS, action="append", help="only this one; may be repeated")
    arguments.add_argument("--rows-a-label", type=int, nargs="+", default=[5, 10, FULL])
    arguments.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    arguments.add_argument("--baselines", nargs="*", choices=list(BASELINES), default=list(BASELINES))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--vectors", type=Path, help="folder where vectors are kept for another run")
    arguments.add_argument("--quick", action="store_true", help="few rows, 5 and 10 a label, one seed")
    args = arguments.parse_args()
    watch, results = Stopwatch(), []
    most = 200 if args.quick else args.rows
    for task in args.task or TASKS:
        data = read(task, args.data, most, args.vectors, FEW if args.quick else None)
        for count in [5, 10] if args.quick else args.rows_a_label:
            for seed in range(1 if args.quick or count == FULL else args.seeds):
                for name in [*args.sizes, *args.baselines]:
                    result = measure(data, count, seed, name)
                    results.append(result)
                    if not args.json:
                        print(" | ".join(cells(result)), flush=True)
    if args.json:
        print_json({"results": results, **watch.figures()})
        return
    table("Learned experts", COLUMNS, [cells(result) for result in results])
    print(watch.line())


def read(task: str, root: Path, most: int | None, kept: Path | None, few: int | None) -> Set:
    """Read a data set and embed its texts. All but test rows train, of CLINC150 the published train rows."""
    split = load(task, root)
    train = [*split.train, *([] if task == "clinc150" else split.val)]
    train = [row for row in train if row.label != OOS]
    if few is not None:
        seen = Counter[str]()
        train = [row for row in train if seen.update([row.label]) or seen[row.label] <= few]
    test = thin(split.test, most)
    start = time.monotonic()
    texts = [row.text for row in [*train, *test]]
    vectors = embed(texts, kept)
    seconds = (time.monotonic() - start) * len(train) / len(texts)
    return Set(
        task, texts[: len(train)], [row.label for row in train], vectors[: len(train)],
        texts[len(train) :], [row.label for row in test], vectors[len(train) :], seconds,
    )  # fmt: skip


def embed(texts: Sequence[str], kept: Path | None) -> np.ndarray:
    """Return the vectors of texts by the bundled encoder; from the folder `kept` if they are there."""
    encoder = bundled_path("encoder")
    key = hashlib.sha256(json.dumps([encoder_digest(encoder), MAX_TOKENS, *texts]).encode()).hexdigest()
    file = None if kept is None else kept / f"{key[:32]}.npy"
    if file is not None and file.is_file():
        return np.asarray(np.load(file))
    vectors = embed_texts(encoder, texts, MAX_TOKENS, lambda *_: None)
    if file is not None:
        np.save(file, vectors)
    return vectors


def measure(data: Set, rows_a_label: int, seed: int, method: str) -> Figures:
    """Fit one method and return its figures."""
    chosen = data.chosen(rows_a_label, seed)
    wall, cpu = time.monotonic(), time.process_time()
    made = (BASELINES | SIZES)[method](data, chosen, seed)
    seconds, cpu_seconds = time.monotonic() - wall, time.process_time() - cpu
    inside = np.array([label != OOS for label in data.test_labels])
    correct = np.array([a == b for a, b in zip(made.predicted, data.test_labels, strict=True)])[inside]
    confidence = made.confidence[inside]
    figures: Figures = {
        "task": data.task, "rows_a_label": rows_a_label, "seed": seed, "method": method, "rows": len(chosen),
        **rate("accuracy", int(correct.sum()), len(correct)),
        "ece": ece(confidence, correct),
        "ece_ci": bootstrap(ece, confidence, correct, resamples=RESAMPLES),
        "auroc": auroc(confidence, correct),
        "auroc_ci": bootstrap(auroc, confidence, correct, resamples=RESAMPLES),
        "known": auroc(made.known, inside),
        "fit_seconds": seconds, "fit_cpu_seconds": cpu_seconds, "embed_seconds": data.embed_seconds,
        "megabytes": made.megabytes, "milliseconds": made.milliseconds, "notes": made.notes,
    }  # fmt: skip
    if not inside.all():
        figures["known_ci"] = bootstrap(auroc, made.known, inside, resamples=RESAMPLES)
    return figures


def cells(figures: Figures) -> list[str]:
    """Return a table row."""
    count = figures["rows_a_label"] or f"all ({figures['rows']})"
    numbers = [figures[name] for name in ("fit_seconds", "fit_cpu_seconds", "megabytes", "milliseconds")]
    plain = ["–" if math.isnan(number) else f"{number:.1f}" for number in numbers]
    shares = [shown(figures, name).replace("[dim]", "(").replace("[/dim]", ")") for name in _SHARES]
    return [figures["task"], str(count), str(figures["seed"]), figures["method"], *shares, *plain]


_SHARES = ("accuracy", "ece", "auroc", "known")


def tfidf(data: Set, chosen: np.ndarray, seed: int) -> Answered:
    """TF-IDF of words and characters, and one logistic regression a label against the rest (C = 10)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    columns = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    train = columns.fit_transform([data.texts[index] for index in chosen])
    return _logistic(data, chosen, train, columns.transform(data.test_texts), seed, one_vs_rest=True)


def frozen(data: Set, chosen: np.ndarray, seed: int) -> Answered:
    """The encoder's vectors and multinomial logistic regression (C = 10)."""
    return _logistic(data, chosen, data.vectors[chosen], data.test_vectors, seed, one_vs_rest=False)


def _logistic(
    data: Set, chosen: np.ndarray, train: Any, test: Any, seed: int, *, one_vs_rest: bool
) -> Answered:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    if one_vs_rest:
        model: Any = OneVsRestClassifier(LogisticRegression(C=10, solver="liblinear", random_state=seed))
    else:
        model = LogisticRegression(C=10, max_iter=300)
    model.fit(train, [data.labels[index] for index in chosen])
    chances = model.predict_proba(test)
    top = chances.max(axis=1)
    return Answered(model.classes_[chances.argmax(axis=1)].tolist(), top, top)


def head(data: Set, chosen: np.ndarray, seed: int) -> Answered:
    """The size `head`: fitted, written to a file with its encoder, read back."""
    rows = Rows(
        [data.texts[index] for index in chosen], [data.labels[index] for index in chosen],
        np.unique([data.texts[index] for index in chosen], return_inverse=True)[1],
    )  # fmt: skip
    fitted = fit_head(rows, data.vectors[chosen], seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "expert.gguf"
        write_expert(bundled_path("encoder"), {data.task: fitted.head}, {data.task: {}}, path, MAX_TOKENS)
        size, one = path.stat().st_size / 1e6, read_heads(path)[data.task]
        milliseconds = asyncio.run(median_milliseconds(path, thin(data.test_texts, TIMED)))
    answers = [one.answer(v, text) for v, text in zip(data.test_vectors, data.test_texts, strict=True)]
    return Answered(
        [one.labels[int(answer.probabilities.argmax())] for answer in answers],
        np.array([answer.confidence for answer in answers]),
        np.array([answer.known for answer in answers]),
        size,
        milliseconds,
        fitted.notes,
    )


async def median_milliseconds(path: Path, texts: Sequence[str]) -> float:
    """Return the median time of an answer by the file, one text at a time, as a graph's model gives it."""
    from cascade.models import build_model
    from cascade.models.base import Prompt
    from cascade.models.llamacpp import LlamaCppSettings

    settings = LlamaCppSettings.model_validate({"kind": "llamacpp", "path": str(path)})
    model = build_model("expert", settings, path.parent)
    seconds = []
    for text in [texts[0], *texts]:
        start = time.perf_counter()
        await model.ask(Prompt(text))
        seconds.append(time.perf_counter() - start)
    await model.aclose()
    return 1000 * float(np.median(seconds[1:]))


BASELINES: dict[str, Method] = {"tfidf": tfidf, "frozen": frozen}
SIZES: dict[str, Method] = {"head": head}

if __name__ == "__main__":
    guarded(main)
