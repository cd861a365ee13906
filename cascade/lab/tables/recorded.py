"""Published tables of recorded model answers, as outcome tables: a policy is measured without asking models.

    routellm-gsm8k   1,307 questions × Mixtral-8x7B and GPT-4; the recorded flags, though some are wrong
    routellm-mmlu    14,037 questions × the same two models; no answers, only whether they were right
    zeroeval-gsm     1,319 questions × 14 models; zeroeval-crux 800 × 14; zeroeval-math 721 × 15

Neither source has costs. They are estimated at 4 characters per token of prompt and answer and the prices in
`PRICES`. No row is ever stored in this repository.
"""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cascade.errors import RequestError
from cascade.policy.table import Column, ModelOutcomes, Outcomes, Rows

TABLES = ("routellm-gsm8k", "routellm-mmlu", "zeroeval-gsm", "zeroeval-crux", "zeroeval-math")
SOURCES = {
    "routellm": "Apache-2.0, github.com/lm-sys/RouteLLM, routellm/evals",
    "zeroeval": "Apache-2.0, github.com/WildEval/ZeroEval, result_dirs",
}
CHARS_PER_TOKEN = 4  # the usual figure for English
# US dollars per million tokens of prompt and answer: list prices of the recorded versions; for open weights,
# what hosts charged in 2024 by size (up to 4, 8, 21, 41, 80 billion parameters).
PRICES = {
    "gpt-4-1106-preview": (10.0, 30.0),
    "gpt-4o-2024-08-06": (2.5, 10.0),
    "gpt-4o-mini-2024-07-18": (0.15, 0.6),
    "gpt-3.5-turbo-0125": (0.5, 1.5),
    "o1-mini-2024-09-12": (3.0, 12.0),
    "claude-3-5-sonnet-20241022": (3.0, 15.0),
    "claude-3-haiku-20240307": (0.25, 1.25),
    "gemma-2-2b-it": (0.1, 0.1),
    "Qwen2.5-3B-Instruct": (0.1, 0.1),
    "Phi-3.5-mini-instruct": (0.1, 0.1),
    "Qwen2-7B-Instruct": (0.2, 0.2),
    "Qwen2.5-7B-Instruct": (0.2, 0.2),
    "Meta-Llama-3.1-8B-Instruct": (0.2, 0.2),
    "gemma-2-9b-it": (0.3, 0.3),
    "Mixtral-8x7B-Instruct-v0.1": (0.6, 0.6),
    "gemma-2-27b-it": (0.8, 0.8),
    "Qwen2.5-32B-Instruct": (0.8, 0.8),
    "Meta-Llama-3.1-70B-Instruct": (0.9, 0.9),
    "Qwen2-72B-Instruct": (0.9, 0.9),
    "Qwen2.5-72B-Instruct": (0.9, 0.9),
}
_MMLU_CHARS = 20  # an MMLU answer is a letter; its length is not recorded
_LEFT = re.compile(r"[\d.,$%()+*/×÷xX\s−-]+$")
_RIGHT = re.compile(r"\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?|-?\.\d+)")
_MAX_EXPRESSION = 80  # characters
_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def load_table(name: str, data: Path) -> Outcomes:
    """Read one of TABLES from the folder `data`; models are in order of their estimated cost.

    Raises:
        RequestError: the table is unknown, or its files are missing or broken.
    """
    if name not in TABLES:
        raise RequestError(f"unknown table {name!r}; known: {', '.join(TABLES)}")
    source, _, part = name.partition("-")
    try:
        if source == "zeroeval":
            return _zeroeval(data / "zeroeval" / f"{'math-l5' if part == 'math' else part}.jsonl.gz")
        return _gsm8k(data / "routellm" / "gsm8k") if part == "gsm8k" else _mmlu(data / "routellm" / "mmlu")
    except (OSError, KeyError, ValueError) as error:
        where = f"{data / source}: table {name!r} cannot be read ({type(error).__name__}: {error})"
        raise RequestError(f"{where}; source: {SOURCES[source]}") from error


def half(ids: Sequence[str], salt: str = "") -> tuple[Rows, Rows]:
    """Return the rows for tuning and the rows for testing, by the SHA-256 hash of each id."""
    odd = np.array([hashlib.sha256((salt + name).encode()).digest()[0] & 1 for name in ids], dtype=bool)
    return np.flatnonzero(~odd), np.flatnonzero(odd)


def equations(text: str) -> tuple[int, int]:
    """Count the equations in a text (`3 * 4 = 12`), and those that are off by more than 1 %."""
    count = wrong = 0
    for sign in re.finditer("=", text):
        left = _LEFT.search(text[max(0, sign.start() - _MAX_EXPRESSION) : sign.start()])
        right = _RIGHT.match(text, sign.end())
        value = _value(left.group()) if left and right else None
        if value is not None and right is not None:
            count += 1
            wrong += abs(value - float(right.group(1).replace(",", ""))) > 0.01 * max(1.0, abs(value))
    return count, wrong


def _value(expression: str) -> float | None:
    plain = re.sub(r"[$%,\s]", "", expression)
    for sign, meaning in (("×", "*"), ("x", "*"), ("X", "*"), ("÷", "/"), ("−", "-")):
        plain = plain.replace(sign, meaning)
    if not re.search(r"\d[)]*[+*/-]", plain):
        return None
    try:
        return _fold(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _fold(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_fold(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_fold(node.left), _fold(node.right))
    raise ValueError("not a sum")


def _signals(outputs: Sequence[str]) -> dict[str, Column]:
    """Return what can be measured of a full answer besides its last line."""
    sums = np.array([equations(text) for text in outputs], dtype=float).reshape(-1, 2)
    return {
        "chars": np.array([math.log1p(len(text)) for text in outputs]),
        "numbers": np.array([math.log1p(len(re.findall(r"\d+", text))) for text in outputs]),
        "sums": np.log1p(sums[:, 0]),
        "sums_wrong": np.log1p(sums[:, 1]),
    }


def _costs(model: str, prompts: Sequence[str], outputs: Sequence[str] | None) -> Column:
    price_in, price_out = PRICES[model]
    read = np.array([len(prompt) for prompt in prompts]) / CHARS_PER_TOKEN
    written = np.array([len(text) for text in outputs]) if outputs is not None else _MMLU_CHARS
    return np.asarray((read * price_in + written / CHARS_PER_TOKEN * price_out) / 1e6)


def _model(
    name: str,
    prompts: Sequence[str],
    correct: Sequence[bool],
    outputs: Sequence[str] | None,
    answers: Sequence[str] | None,
) -> ModelOutcomes:
    unknown = np.full(len(prompts), np.nan)
    return ModelOutcomes(
        quality=np.array(correct, dtype=float),
        cost_usd=_costs(name, prompts, outputs),
        seconds=unknown,
        confidence=unknown,
        signals=_signals(outputs) if outputs is not None else {},
        texts=list(answers if answers is not None else outputs or ()),
    )


def _table(ids: list[str], prompts: list[str], models: dict[str, ModelOutcomes], sha256: str) -> Outcomes:
    cheapest = sorted(models, key=lambda name: float(models[name].cost_usd.mean()))
    return Outcomes(ids, prompts, {name: models[name] for name in cheapest}, {}, sha256)


def _zeroeval(path: Path) -> Outcomes:
    content = path.read_bytes()
    rows: list[dict[str, Any]] = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    prompts = [row["question"] for row in rows]
    models = {}
    for name in rows[0]["models"]:
        cells = [row["models"][name] for row in rows]
        answers = [_short(str(cell["answer"])) for cell in cells]
        model = name.partition("@")[0]
        models[model] = _model(
            model, prompts, [c["correct"] for c in cells], [c["output"] for c in cells], answers
        )
    return _table([row["id"] for row in rows], prompts, models, hashlib.sha256(content).hexdigest())


def _short(answer: str) -> str:
    """Drop what does not change an answer: quotes, currency signs, thousands separators, a full stop."""
    plain = answer.strip().strip("'\"$`. ")
    number = re.fullmatch(r"\$?\s*(-?[\d,]*\.?\d+)\s*[%a-zA-Z.]*", plain)
    if number is None:
        return plain
    return f"{float(number.group(1).replace(',', '')):g}"


def _gsm8k(folder: Path) -> Outcomes:
    content = (folder / "gsm8k_responses.csv").read_bytes()
    rows = list(csv.DictReader(content.decode().splitlines(keepends=True)))
    return _routellm(rows, folder, "gsm8k", hashlib.sha256(content).hexdigest())


def _mmlu(folder: Path) -> Outcomes:
    rows, digest = [], hashlib.sha256()
    for path in sorted((folder / "responses").glob("mmlu_*.csv")):
        content = path.read_bytes()
        digest.update(content)
        rows += list(csv.DictReader(content.decode().splitlines(keepends=True)))
    if not rows:
        raise FileNotFoundError(folder / "responses" / "mmlu_*.csv")
    return _routellm(rows, folder, "mmlu", digest.hexdigest())


def _routellm(rows: list[dict[str, str]], folder: Path, name: str, sha256: str) -> Outcomes:
    seen = (folder / "contaminated_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    leaked = {json.loads(line)["eval_prompt"] for line in seen}
    kept = [(f"{name}-{index}", row) for index, row in enumerate(rows) if row["prompt"] not in leaked]
    prompts = [row["prompt"] for _, row in kept]
    models = {}
    for column in ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"):
        outputs = [row[f"{column}_response"] for _, row in kept] if f"{column}_response" in rows[0] else None
        model = column.rpartition("/")[2]
        models[model] = _model(model, prompts, [row[column] == "True" for _, row in kept], outputs, None)
    return _table([key for key, _ in kept], prompts, models, sha256)
