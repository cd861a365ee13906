"""Text to JSON: how well one expert for each field reads mails whose phrasings it has not seen.

    python benchmarks/fields.py [--splits 5] [--rows 500] [--json]

Billing mails with nine fields are made by `mails.py`. For each split three in ten phrasings, names and
closings are kept for the test; experts are fitted on the rest, and asked on mails of held-out phrasings, and
on new mails of the phrasings they know. Beside them, in the same run: regular expressions that a person would
write in ten minutes, and the most frequent value of closed fields. The data are made, not collected: they
show what the method does with words that it has not seen, and are no promise for anybody's mails.
Intervals are 95 % t-intervals over the splits; errors within a split share its phrasings.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from common import Figures, guarded, parser, print_json, progress, table
from mails import SCHEMA, Mail, mails
from scipy.stats import t as student

from cascade.config.references import bundled_path
from cascade.engine.candidates import dates_of, numbers_of
from cascade.lab.evaluation.metrics import ece
from cascade.lab.fitting.closed_fields import closed_fitter
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit_fields import FieldRows, fit_fields, same_value

NAMES = list(SCHEMA["properties"])
TEST_ROWS, MAX_TOKENS = 300, 256
_NUMBER = re.compile(r"(?i)(?:no\.?|number:?|#|ref(?:erence)?(?: number)?:?|id:)\s*([A-Z0-9][\w/.-]*\d)")
_VENDOR = re.compile(r"\b([A-Z]\w+(?: [A-Z&]\w*)* (?:GmbH|Ltd|Inc\.|AG|LLC|SARL|B\.V\.|Co\.))")


def by_rules(train: Sequence[Mail]) -> Callable[[str], dict[str, Any]]:
    """Return what answers by regular expressions, and closed fields by their most frequent value."""
    common = {
        name: Counter(mail.answer[name] for mail in train).most_common(1)[0][0]
        for name in ("kind", "currency", "paid", "units")
    }

    def answer(text: str) -> dict[str, Any]:
        number, vendor = _NUMBER.search(text), _VENDOR.search(text)
        dates = sorted({each.value for each in dates_of(text)})
        amounts = [each.value for each in numbers_of(text) if each.reading in ("grouped", "decimal")]
        return common | {
            "number": number[1] if number else "", "vendor": vendor[1] if vendor else "",
            "issued": dates[0] if dates else None, "due": dates[-1] if len(dates) > 1 else None,
            "total": max(amounts, default=0),
        }  # fmt: skip

    return answer


def right(answers: Sequence[dict[str, Any]], truth: Sequence[Mail]) -> dict[str, float]:
    """Return the share of right answers by field, and of answers that are right as a whole."""
    table_ = np.array([
        [same_value(answer[name], mail.answer[name]) for name in NAMES]
        for answer, mail in zip(answers, truth, strict=True)
    ])  # fmt: skip
    return dict(zip(NAMES, table_.mean(0).tolist(), strict=True)) | {"whole": float(table_.all(1).mean())}


def one_split(split: int, rows: int) -> Figures:
    """Return the figures of one split of the phrasings."""
    train = mails(rows, seed=1, split=split, held_out=False)
    tests = {
        "held out": mails(TEST_ROWS, seed=2, split=split, held_out=True),
        "known": mails(TEST_ROWS, seed=3, split=split, held_out=False),
    }
    encoder, texts = bundled_path("encoder"), [mail.text for mail in train]
    start = time.perf_counter()
    vectors = embed_texts(encoder, texts, MAX_TOKENS, lambda _, __: None, None)
    groups = np.arange(len(train))
    given = FieldRows(texts, [mail.answer for mail in train], groups)
    fitted = fit_fields(SCHEMA, given, closed_fitter(texts, vectors, groups))
    found: Figures = {"fit_seconds": time.perf_counter() - start}
    rules = by_rules(train)
    for name, test in tests.items():
        own = embed_texts(encoder, [mail.text for mail in test], MAX_TOKENS, lambda _, __: None, None)
        start = time.perf_counter()
        made = [fitted.extractor.answer(own[row], mail.text) for row, mail in enumerate(test)]
        found["milliseconds"] = 1000 * (time.perf_counter() - start) / len(test)
        found[name] = right([each.answer for each in made], test)
        found[f"{name}, rules"] = right([rules(mail.text) for mail in test], test)
        correct = [
            all(same_value(each.answer[field], mail.answer[field]) for field in NAMES)
            for each, mail in zip(made, test, strict=True)
        ]
        found[f"{name}, ece"] = float(ece([each.confidence for each in made], correct))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % t-interval over the splits."""
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--splits", type=int, default=5, help="splits of the phrasings, at least two")
    options = arguments.parse_args()
    rows = options.rows or 500
    with progress() as bar:
        found = [one_split(split, rows) for split in bar.track(range(options.splits), description="splits")]
    figures: Figures = {"rows": rows, "splits": options.splits}
    for part in ("held out", "held out, rules", "known", "known, rules"):
        figures[part] = {name: interval([each[part][name] for each in found]) for name in (*NAMES, "whole")}
    for part in ("held out, ece", "known, ece", "fit_seconds", "milliseconds"):
        figures[part] = float(np.mean([each[part] for each in found]))
    if options.json:
        print_json(figures)
        return
    parts = ("held out", "held out, rules", "known", "known, rules")
    lines = [[name, *(_cell(figures[part][name]) for part in parts)] for name in (*NAMES, "whole")]
    table(f"Right by field, {rows} rows, {options.splits} splits", ["field", *parts], lines)
    print(
        f"whole answers: calibration error {figures['held out, ece']:.3f} held out, "
        f"{figures['known, ece']:.3f} known; fitted in {figures['fit_seconds']:.0f} s; "
        f"{figures['milliseconds']:.1f} ms a text beside its vector"
    )


def _cell(figure: tuple[float, float, float]) -> str:
    return f"{figure[0]:.3f} ({figure[1]:.3f}-{figure[2]:.3f})"


if __name__ == "__main__":
    guarded(main)
