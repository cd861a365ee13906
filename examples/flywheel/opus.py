"""A scripted opus: it gives the data set's own label, and costs what a large remote model costs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path


@cache
def _answers(path: str) -> dict[str, str]:
    answers: dict[str, str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return answers


def answer(text: str) -> str:
    """Return the label of `text`, out of the file that stands beside this one."""
    return _answers(str(Path(__file__).with_name("answers.json")))[text]
