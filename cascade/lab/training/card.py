"""Measure the GGUF files through llama.cpp and write one JSON card each, and one page for people."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import ConfigError
from cascade.lab.evaluation.metrics import auroc, coverage_at_risk, ece, wilson
from cascade.lab.training import steps
from cascade.lab.training.datasets import LICENCES, OOS, Row
from cascade.lab.training.pair import Answers, cascade_on_test
from cascade.lab.training.probe import Probe
from cascade.lab.training.recipes import ASSISTANTS, RECIPES, Recipe
from cascade.lab.training.steps import Workshop
from cascade.lab.training.targets import softmax

PROVENANCE = (
    "Trained by this project on the training rows and on sentences made from them, labelled by teachers that "
    "are fine-tuned from all-MiniLM-L6-v2 (Apache-2.0). The text tokens' embeddings start at principal "
    "components of its vectors for them; every other weight starts at random."
)


def answers(probe: Probe, task: str, rows: Sequence[Row]) -> Answers:
    """Ask one expert every row."""
    labels = probe.tasks[task]["labels"]
    shares = softmax(probe.logits([row.text for row in rows], task))
    best = shares.argmax(1)
    truth = np.array([row.label for row in rows])
    said = np.array(labels)[best]
    inside = np.array([k for k, label in enumerate(labels) if label != OOS])
    return Answers(truth, said, shares[np.arange(len(best)), best], shares[:, inside].max(1), shares)


def figures(found: Answers) -> dict[str, Any]:
    """Return one task's figures; CLINC150's accuracy, calibration and coverage are of its in-scope rows."""
    known = found.truth != OOS
    right = (found.said == found.truth)[known]
    trust = found.trust[known]
    low, high = wilson(int(right.sum()), len(right))
    result = {
        "rows": len(right),
        "accuracy": float(right.mean()),
        "interval_95": [low, high],
        "ece": ece(trust, right),
        "auroc": auroc(trust, right),
        "coverage_at_2pct_risk": coverage_at_risk(trust, right, 0.02),
    }
    if not known.all():
        result["oos_rows"] = int((~known).sum())
        result["oos_auroc"] = auroc(found.inside, known)
        result["oos_recall"] = float((found.said == OOS)[~known].mean())
    return result


def measure(path: Path, shop: Workshop) -> tuple[dict[str, Any], dict[str, tuple[Answers, Answers]]]:
    """Return one file's figures on test and val, and the answers behind them."""
    probe = Probe(path)
    found: dict[str, Any] = {}
    kept: dict[str, tuple[Answers, Answers]] = {}
    for task, contract in probe.tasks.items():
        split = shop.split(task)
        kept[task] = answers(probe, task, split.val), answers(probe, task, split.test)
        val, test = (figures(part) for part in kept[task])
        found[task] = {"labels": len(contract["labels"]), "data": _licence(task), "test": test, "val": val}
        shop.log.say(f"{path.stem} {task} test accuracy {test['accuracy']:.4f}")
    probe.close()
    return found, kept


def _licence(task: str) -> str:
    return "; ".join(LICENCES.values()) if task == "desk" else LICENCES[task]


def agreement(shop: Workshop, name: str, kept: dict[str, tuple[Answers, Answers]]) -> float | None:
    """Return how often PyTorch's answer to a test row is the file's, if the checkpoint is at hand."""
    from cascade.lab.training import train

    if not shop.file(f"{name}.pt").exists():
        return None
    student, vocabulary = steps.finished(shop, name)
    same: list[bool] = []
    for task, (_, test) in kept.items():
        out = train.probabilities(student, vocabulary, task, [row.text for row in shop.split(task).test])
        same += list(np.array(vocabulary.tasks[task])[out.argmax(1)] == test.said)
    return float(np.mean(same))


def card(path: Path, recipe: Recipe, found: dict[str, Any], same: float | None) -> dict[str, Any]:
    """Return one expert's card."""
    data = path.read_bytes()
    return {
        "name": recipe.name,
        "tier": recipe.tier,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "parameters": _parameters(path),
        "weights": recipe.kind,
        "architecture": f"llama, {recipe.layers} layers of {recipe.width}, attention both ways",
        "provenance": PROVENANCE,
        "torch_agreement": same,
        "tasks": found,
    }


def _parameters(path: Path) -> int:
    import gguf

    return int(sum(tensor.n_elements for tensor in gguf.GGUFReader(str(path)).tensors))


def write_all(shop: Workshop, out: Path) -> None:
    """Write a card for the GGUF file of every recipe in `out`, the pair's figures, and the page.

    Raises:
        ConfigError: a file is missing: the page tells of all.
    """
    paths = {name: out / f"{name}.gguf" for name in RECIPES}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        text = f"{out} has no {', '.join(missing)}; the page tells of all experts"
        raise ConfigError(
            f"{text}; make them with: python -m cascade.lab.training export NAME, or give --out"
        )
    cards, kept = [], {}
    for name, recipe in RECIPES.items():
        found, kept[name] = measure(paths[name], shop)
        made = card(paths[name], recipe, found, agreement(shop, name, kept[name]))
        cards.append(_rounded(with_agreement(made, out / f"{name}.json")))
        _dump(cards[-1], out / f"{name}.json")
    pairs = {task: cascade_on_test(kept["tiny"][task], kept["small"][task]) for task in ASSISTANTS}
    pairs["tram"] = cascade_on_test(kept["hunter"]["tram"], kept["small"]["tram"])
    pairs = _rounded(pairs)
    _dump(pairs, out / "pairs.json")
    (out / "README.md").write_text(page(cards, pairs), encoding="utf-8")


def with_agreement(made: dict[str, Any], before: Path) -> dict[str, Any]:
    """Return a card with PyTorch's agreement from the card before it, if that is of the same file.

    Only who has the checkpoint can measure it.
    """
    if made["torch_agreement"] is not None or not before.is_file():
        return made
    told = json.loads(before.read_text(encoding="utf-8"))
    same = told["torch_agreement"] if told["sha256"] == made["sha256"] else None
    return made | {"torch_agreement": same}


def _dump(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def page(cards: Sequence[dict[str, Any]], pairs: dict[str, dict[str, Any]]) -> str:
    """Return the page for people, made from the cards only."""
    lines = [
        "# The bundled experts",
        "",
        "Generated by `python -m cascade.lab.training card`. Every figure is on the test split, through",
        "llama.cpp; the confidence is the label's probability. How they were made: `docs/experts.md`.",
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
    return "\n".join(lines) + "\n"


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
