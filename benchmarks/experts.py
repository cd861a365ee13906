"""Each bundled expert on the test split of each of its tasks, through llama.cpp, one request at a time.

    python benchmarks/experts.py --data DIR [--json]

accuracy; AUROC of the confidence (right against wrong answers); calibration error of the raw probability and
of the calibrated one (graphs/calibration); coverage at 2 % risk; AUROC of telling in scope from out of scope
by the best in-scope probability; milliseconds a request. Beside them TF-IDF with logistic regression, where
scikit-learn is installed.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from common import GRAPHS, Figures, guarded, parser, print_json, progress, rate, shown, table, thin
from published import OOS, Row, Split, load

from cascade.config.references import bundled_names, bundled_path, fingerprint
from cascade.errors import ModelError
from cascade.formats.gguf import read_tasks
from cascade.lab.evaluation.metrics import auroc, bootstrap, brier, coverage_at_risk, ece
from cascade.models import build_model
from cascade.models.base import Prompt
from cascade.models.llamacpp import LlamaCppSettings
from cascade.policy.calibrate import Calibration, read_calibration

RISK = 0.02
BASELINE = "TF-IDF + logistic regression"


@dataclass(frozen=True)
class Answer:
    """One answer: its label, its probability, the best in-scope label's probability, and the time it took."""

    label: str
    top1: float
    in_scope: float
    seconds: float


def main() -> None:
    """Measure and print."""
    args = parser(__doc__).parse_args()
    results: list[Figures] = []
    for name in bundled_names():
        for task in read_tasks(bundled_path(name)):
            rows = thin(load(task, args.data).test, args.rows)
            results += measure_expert(name, task, rows)
    results += baselines(
        [load(task, args.data) for task in dict.fromkeys(r["task"] for r in results)], args.rows
    )
    if args.json:
        print_json({"benchmark": "experts", "risk": RISK, "results": results})
    else:
        print_tables(results)


def measure_expert(name: str, task: str, rows: Sequence[Row]) -> list[Figures]:
    """Return the figures of one expert on one task."""
    config = LlamaCppSettings(kind="llamacpp", path=f"bundled:{name}", task=task)
    answers = asyncio.run(ask_all(config, f"{name} {task}", rows))
    seconds = sorted(answer.seconds for answer in answers)
    common = {
        "expert": name,
        "task": task,
        "bytes": bundled_path(name).stat().st_size,
        "p50_ms": 1e3 * float(np.quantile(seconds, 0.50)),
        "p95_ms": 1e3 * float(np.quantile(seconds, 0.95)),
    }
    return [common | figures for figures in measure(rows, answers, find_calibration(config))]


async def ask_all(config: LlamaCppSettings, title: str, rows: Sequence[Row]) -> list[Answer]:
    """Ask a model about every row, one after the other.

    Raises:
        ModelError: it reports no label distribution.
    """
    model = build_model("expert", config, GRAPHS)
    answers = []
    with progress() as bar:
        for row in bar.track(rows, description=title):
            start = time.perf_counter()
            reply = await model.ask(Prompt(row.text))
            seconds = time.perf_counter() - start
            if reply.labels is None:
                raise ModelError(f"{title}: no label distribution; is this an expert of a closed label set?")
            in_scope = max(value for label, value in reply.labels.items() if label != OOS)
            answers.append(Answer(reply.text, reply.labels[reply.text], in_scope, seconds))
    await model.aclose()
    return answers


def find_calibration(config: LlamaCppSettings) -> Calibration | None:
    """Return the calibration of this very model's top1 among those of the graphs, if there is one."""
    model = fingerprint(config, GRAPHS)
    for path in sorted((GRAPHS / "calibration").glob("*.json")):
        found = read_calibration(path)
        if (found.by, found.signal, found.model_fingerprint) == ("labels", "top1", model):
            return found
    return None


def measure(rows: Sequence[Row], answers: Sequence[Answer], calibration: Calibration | None) -> list[Figures]:
    """Return the figures of in-scope rows, and of all rows where some are out of scope."""
    inside = np.array([row.label != OOS for row in rows])
    known = np.array([answer.in_scope for answer in answers])
    parts = [("in scope" if not inside.all() else "all", inside)]
    if not inside.all():
        parts.append(("all", np.ones(len(rows), dtype=bool)))
    results = []
    for part, mask in parts:
        kept = [(row, answer) for row, answer, here in zip(rows, answers, mask, strict=True) if here]
        right = np.array([row.label == answer.label for row, answer in kept])
        raw = np.array([answer.top1 for _, answer in kept])
        figures: Figures = {"rows_measured": part, "rows": len(kept)}
        figures |= rate("accuracy", int(right.sum()), len(kept))
        figures |= confidence_figures(raw, right)
        if calibration is not None:
            calibrated = np.array([calibration.apply(min(1.0, score)) for score in raw])
            figures |= {
                "ece_calibrated": ece(calibrated, right),
                "brier_calibrated": brier(calibrated, right),
            }
            figures["ece_calibrated_ci"] = bootstrap(ece, calibrated, right)
        if part == "all" and not inside.all():
            figures |= {"oos_auroc": auroc(known, inside), "oos_auroc_ci": bootstrap(auroc, known, inside)}
        results.append(figures)
    return results


def confidence_figures(raw: np.ndarray, right: np.ndarray) -> Figures:
    """Return how good raw confidence is, with intervals."""

    def coverage(confidence: np.ndarray, correct: np.ndarray) -> float:
        return coverage_at_risk(confidence, correct, RISK)

    figures: Figures = {"brier": brier(raw, right)}
    for name, metric in [("auroc", auroc), ("ece", ece), ("coverage", coverage)]:
        figures |= {name: metric(raw, right), f"{name}_ci": bootstrap(metric, raw, right)}
    return figures


def baselines(splits: Sequence[Split], most: int | None) -> list[Figures]:
    """Return the figures of TF-IDF (words and characters) with logistic regression, if it is installed."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union
    except ImportError:
        print(f"{BASELINE}: left out, scikit-learn is not installed", file=sys.stderr)
        return []
    results = []
    for split in splits:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        model = make_pipeline(make_union(words, characters), LogisticRegression(C=10, max_iter=300))
        model.fit([row.text for row in split.train], [row.label for row in split.train])
        labels = list(model.classes_)
        rows = thin(split.test, most)
        known = [index for index, label in enumerate(labels) if label != OOS]
        answers = [
            Answer(labels[int(row.argmax())], float(row.max()), float(row[known].max()), math.nan)
            for row in model.predict_proba([row.text for row in rows])
        ]
        results += [
            {"expert": BASELINE, "task": split.task} | found for found in measure(rows, answers, None)
        ]
    return results


def print_tables(results: Sequence[Figures]) -> None:
    """Print one table of quality and one of size and speed."""
    names = ["accuracy", "auroc", "ece", "ece_calibrated", "coverage", "oos_auroc"]
    titles = ["accuracy", "AUROC", "ECE raw", "ECE calibrated", "coverage at 2 %", "oos AUROC"]
    columns = ["expert", "task", "rows", *titles]
    quality = [
        [
            r["expert"],
            f"{r['task']} {r['rows_measured']}",
            str(r["rows"]),
            *(shown(r, name) for name in names),
        ]
        for r in results
    ]
    table("bundled experts, test splits, 95 % intervals", columns, quality)
    speed = [
        [r["expert"], r["task"], f"{r['bytes'] / 1e6:.1f}", f"{r['p50_ms']:.2f}", f"{r['p95_ms']:.2f}"]
        for r in results
        if "bytes" in r and r["rows_measured"] == "all"
    ]
    table("one request at a time", ["expert", "task", "MB", "p50 ms", "p95 ms"], speed)


if __name__ == "__main__":
    guarded(main)
