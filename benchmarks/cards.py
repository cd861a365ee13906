"""The cards of the bundled experts: each file measured through llama.cpp, as JSON and as one page for people.

python benchmarks/cards.py --data DIR [--experts DIR]
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import guarded, parser
from probe import Probe
from published import LICENCES, OOS, Row, load

from cascade.config.references import bundled_path
from cascade.errors import ConfigError
from cascade.formats.gguf import read_metadata
from cascade.lab.evaluation.metrics import auroc, coverage_at_risk, ece
from cascade.lab.networks.transfer import softmax
from cascade.policy.intervals import wilson

TIERS = {"tiny": "haiku", "hunter": "haiku", "small": "sonnet"}
PAIRS = {"clinc150": ("tiny", "small"), "banking77": ("tiny", "small"), "tram": ("hunter", "small")}

RISK = 0.01  # share of wrong answers among the accepted that a tier may have
MAX_OUTSIDE = 0.02  # share of out-of-scope rows that a tier may accept; two tiers stay under 5 %
PROVENANCE = (
    "Trained by this project on the training rows and on sentences made from them, labelled by teachers that "
    "are fine-tuned from all-MiniLM-L6-v2 (Apache-2.0). The text tokens' embeddings start at principal "
    "components of its vectors for them; every other weight starts at random."
)


@dataclass(frozen=True, slots=True)
class Answers:
    """An expert's answers to the rows of one task; every attribute has one entry per row.

    Attributes:
        truth: the true label.
        predicted: the label that the expert answered.
        confidence: the probability of that label.
        best_in_scope: the highest probability of an in-scope label.
        probabilities: the distribution over all labels, shape (rows, labels).
    """

    truth: Any
    predicted: Any
    confidence: Any
    best_in_scope: Any
    probabilities: Any


def answers(probe: Probe, task: str, rows: Sequence[Row]) -> Answers:
    """Ask one expert about every row."""
    labels = probe.tasks[task]["labels"]
    probabilities = softmax(probe.logits([row.text for row in rows], task))
    best = probabilities.argmax(1)
    truth = np.array([row.label for row in rows])
    predicted = np.array(labels)[best]
    confidence = probabilities[np.arange(len(best)), best]
    in_scope = np.array([k for k, label in enumerate(labels) if label != OOS])
    return Answers(truth, predicted, confidence, probabilities[:, in_scope].max(1), probabilities)


def figures(answers: Answers) -> dict[str, Any]:
    """Return one task's figures; accuracy, calibration and coverage are over the in-scope rows."""
    in_scope = answers.truth != OOS
    right = (answers.predicted == answers.truth)[in_scope]
    confidence = answers.confidence[in_scope]
    low, high = wilson(int(right.sum()), len(right))
    result = {
        "rows": len(right),
        "accuracy": float(right.mean()),
        "interval_95": [low, high],
        "ece": ece(confidence, right),
        "auroc": auroc(confidence, right),
        "coverage_at_2pct_risk": coverage_at_risk(confidence, right, 0.02),
    }
    if not in_scope.all():
        result["oos_rows"] = int((~in_scope).sum())
        result["oos_auroc"] = auroc(answers.best_in_scope, in_scope)
        result["oos_recall"] = float((answers.predicted == OOS)[~in_scope].mean())
    return result


def measure(path: Path, data: Path) -> tuple[dict[str, Any], dict[str, tuple[Answers, Answers]]]:
    """Return one file's figures on test and val, and the answers behind them."""
    probe = Probe(path)
    measured: dict[str, Any] = {}
    answers_of: dict[str, tuple[Answers, Answers]] = {}
    for task, contract in probe.tasks.items():
        split = load(task, data)
        answers_of[task] = answers(probe, task, split.val), answers(probe, task, split.test)
        val, test = (figures(part) for part in answers_of[task])
        measured[task] = {"labels": len(contract["labels"]), "data": _licence(task), "test": test, "val": val}
        print(f"{path.stem} {task} test accuracy {test['accuracy']:.4f}", file=sys.stderr)
    probe.close()
    return measured, answers_of


def threshold(answers: Answers) -> float:
    """Return the lowest threshold whose accepted rows keep to `RISK` and `MAX_OUTSIDE`."""
    outside = answers.truth == OOS
    for value in np.unique(np.round(answers.confidence, 4)):
        taken = (answers.confidence >= value) & (answers.predicted != OOS)
        wrong = taken & ~outside & (answers.predicted != answers.truth)
        if not taken.any():
            break
        safe = wrong.sum() <= RISK * (taken & ~outside).sum()
        if safe and (taken & outside).sum() <= MAX_OUTSIDE * outside.sum():
            return float(value)
    return 1.0


def cascade_on_test(first: tuple[Answers, Answers], second: tuple[Answers, Answers]) -> dict[str, Any]:
    """Return what two tiers answer on test with thresholds from val; each argument is (val, test)."""
    low, high = threshold(first[0]), threshold(second[0])
    one, two = first[1], second[1]
    by_first = (one.confidence >= low) & (one.predicted != OOS)
    by_second = ~by_first & (two.confidence >= high) & (two.predicted != OOS)
    predicted = np.where(by_first, one.predicted, two.predicted)
    taken, in_scope = by_first | by_second, one.truth != OOS
    result = {
        "thresholds": [low, high],
        "answered": float(taken[in_scope].mean()),
        "first_share": float(by_first[in_scope].mean()),
        "accuracy_answered": float((predicted == one.truth)[in_scope & taken].mean()),
    }
    if not in_scope.all():
        result["oos_accepted"] = float(taken[~in_scope].mean())
    return result


def _licence(task: str) -> str:
    return "; ".join(LICENCES.values()) if task == "desk" else LICENCES[task]


def card(path: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """Return one expert's card."""
    data = path.read_bytes()
    sizes = read_metadata(path, ("llama.block_count", "llama.embedding_length"))
    layers, width = sizes["llama.block_count"], sizes["llama.embedding_length"]
    return {
        "name": path.stem,
        "tier": TIERS[path.stem],
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "parameters": _parameters(path),
        "weights": "Q8_0",
        "architecture": f"llama, {layers} layers of {width}, attention both ways",
        "provenance": PROVENANCE,
        "tasks": measured,
    }


def _parameters(path: Path) -> int:
    import gguf

    return int(sum(tensor.n_elements for tensor in gguf.GGUFReader(str(path)).tensors))


def write_all(data: Path, out: Path) -> None:
    """Write a card for each expert in `out`, the pairs' figures, and the page.

    Raises:
        ConfigError: a file is missing; the page needs all of them.
    """
    paths = {name: out / f"{name}.gguf" for name in TIERS}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise ConfigError(f"{out} has no {', '.join(missing)}; the page needs all experts; give --experts")
    cards, answers_of = [], {}
    for name, path in paths.items():
        measured, answers_of[name] = measure(path, data)
        cards.append(_rounded(card(path, measured)))
        _dump(cards[-1], out / f"{name}.json")
    pairs = _rounded({
        task: cascade_on_test(answers_of[first][task], answers_of[second][task])
        for task, (first, second) in PAIRS.items()
    })  # fmt: skip
    _dump(pairs, out / "pairs.json")
    encoder = json.loads((out / "encoder.json").read_text(encoding="utf-8"))
    (out / "README.md").write_text(page(cards, pairs, encoder), encoding="utf-8")


def _dump(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def page(cards: Sequence[dict[str, Any]], pairs: dict[str, dict[str, Any]], encoder: dict[str, Any]) -> str:
    """Return the page for people, made from the cards only."""
    lines = [
        "# The bundled experts",
        "",
        "Generated by `python benchmarks/cards.py`. Every figure is on the test split, through llama.cpp;",
        "the confidence is the label's probability. How they were made: `docs/experts.md`.",
        "",
        "| expert | tier | size | parameters | sha256 |",
        "|---|---|---|---|---|",
    ]
    for item in cards:
        size, count = f"{item['bytes'] / 1e6:.1f} MB", f"{item['parameters'] / 1e6:.1f} M"
        lines.append(f"| {item['name']} | {item['tier']} | {size} | {count} | `{item['sha256'][:16]}…` |")
    lines += [
        "",
        "| expert | task | labels | rows | accuracy (95 %) | ECE | AUROC right/wrong "
        "| coverage at 2 % risk | AUROC in/out of scope |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(item["name"], task, part) for item in cards for task, part in item["tasks"].items()]
    lines += ["", "Two tiers in a row, thresholds chosen on val:", ""]
    lines += [_pair_line(task, part) for task, part in pairs.items()]
    lines += ["", PROVENANCE, "", "Data:", ""]
    lines += [f"- {task}: {licence}" for task, licence in LICENCES.items()]
    return "\n".join([*lines, *_encoder_lines(encoder)]) + "\n"


def _encoder_lines(card: dict[str, Any]) -> list[str]:
    size, count = f"{card['bytes'] / 1e6:.1f} MB", f"{card['parameters'] / 1e6:.1f} M"
    check = card["check"]
    return [
        "",
        "## The encoder",
        "",
        "| file | size | parameters | weights | sha256 |",
        "|---|---|---|---|---|",
        f"| {card['name']} | {size} | {count} | {card['weights']} | `{card['sha256'][:16]}…` |",
        "",
        f"{card['provenance']} Cosine with the original's vectors of {check['texts']} sentences "
        f"(`benchmarks/encoder.py`): at least {check['least_cosine']:.4f}, "
        f"{check['mean_cosine']:.4f} in the mean.",
    ]


def _line(name: str, task: str, part: dict[str, Any]) -> str:
    test = part["test"]
    low, high = test["interval_95"]
    outside = f"{test['oos_auroc']:.3f} ({test['oos_rows']} rows)" if "oos_auroc" in test else "–"
    return (
        f"| {name} | {task} | {part['labels']} | {test['rows']} "
        f"| {test['accuracy']:.4f} ({low:.4f}–{high:.4f}) "
        f"| {test['ece']:.3f} | {test['auroc']:.3f} | {test['coverage_at_2pct_risk']:.3f} | {outside} |"
    )


def _pair_line(task: str, part: dict[str, Any]) -> str:
    outside = f"; {part['oos_accepted']:.1%} of out-of-scope rows accepted" if "oos_accepted" in part else ""
    return (
        f"- {task}: {part['answered']:.1%} of rows answered at {part['accuracy_answered']:.2%} "
        f"({part['first_share']:.1%} by the first tier){outside}"
    )


def main() -> None:
    """Measure and write."""
    arguments = parser(__doc__)
    arguments.add_argument("--experts", type=Path, default=bundled_path("tiny").parent, help="their folder")
    args = arguments.parse_args()
    write_all(args.data, args.experts)


if __name__ == "__main__":
    guarded(main)
