"""The graph of a learned expert: the expert first, then opus, and above the threshold what it promises."""

from __future__ import annotations

import hashlib
import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from cascade.errors import RequestError
from cascade.lab.learning.certify import NEVER, Verdict
from cascade.lab.learning.settings import LearnSettings

_DIGEST = re.compile(r"^# sha256 of what follows: ([0-9a-f]{16})\n", re.MULTILINE)
_LABEL_BYTES = 20_000  # labels that a prompt may list within the usual limit of cost
_COST = 0.05
_GRAPH = """\
name: {name}
description: {description}
limits: {{cost_usd: {cost:g}, seconds: 60, calls: 12}}
models:
  expert: {{kind: llamacpp, tier: haiku, path: {path}, task: {task}}}
  strong:
    kind: openai
    tier: opus
    model: gpt-5.2
    logprobs: false # its answer is not checked
    temperature: 1 # reasoning models refuse any other
    labels: {labels}
    prompt: |
      Which label does this text have?
      Answer with one line of this list, copied exactly, and nothing else:
      {{labels}}

      Text: {{text}}
stages:
{promise}  - {{name: first, ask: [expert], confidence: {confidence}, accept: {accept:g}}}
  - {{name: last, ask: [strong]}}
"""


def graph_text(
    settings: LearnSettings,
    source: str,
    labels: Sequence[str],
    confidence: Mapping[str, str],
    verdict: Verdict,
    note: str | None = None,
) -> str:
    """Return the YAML of a graph that asks the expert at `settings.out`, then opus.

    Args:
        settings: where the files are, and the promise that was asked for.
        source: the name of the file that was learned from.
        labels: the expert's labels.
        confidence: the keys of the expert's `confidence`.
        verdict: the threshold and what is promised of it.
        note: what else to say of the labels that it rests on.
    """
    path = _relative(settings.out, settings.graph_out)
    body = _GRAPH.format(
        name=settings.task,
        description=json.dumps(f"Which of {len(labels)} labels a text has; learned from {source}."),
        cost=_COST * (1 + sum(len(label.encode()) + 1 for label in labels) // _LABEL_BYTES),
        path=json.dumps(path),
        task=settings.task,
        labels=json.dumps(f"{path}#{settings.task}"),
        promise="".join(f"  # {line}\n" for line in _comment(settings, verdict, note)),
        confidence="{" + ", ".join(f"{key}: {value}" for key, value in confidence.items()) + "}",
        accept=verdict.accept,
    )
    head = "# Written by cascade learn, which replaces it as long as nobody else has changed it.\n"
    return f"{head}# sha256 of what follows: {_digest(body)}\n{body}"


def _comment(settings: LearnSettings, verdict: Verdict, note: str | None) -> list[str]:
    lines = promise_lines(settings, verdict)
    return lines if note is None else [*lines, *textwrap.wrap(f"Of the labels: {note}.", 100)]


def promise_lines(settings: LearnSettings, verdict: Verdict) -> list[str]:
    """Return what the threshold promises, or that it promises nothing, in lines for people."""
    probability = f"with probability {1 - settings.delta:g}"
    made, refusal = verdict.certificate, verdict.refusal
    if made is not None:
        risk = f"at most {100 * settings.max_risk:g} % of what the expert answers is wrong"
        return [
            f"Certified: {probability}, {risk}.",
            f"It answered {made.accepted} of {made.rows} rows that it had not seen, {made.errors} of them "
            f"wrong: at most {100 * made.bound:.2f} %.",
            "It holds for texts like these rows.",
        ]
    lines = ["Not certified: the threshold keeps the risk on the rows that trained, and promises nothing."]
    if verdict.accept >= NEVER:
        lines = ["Not certified: no threshold was sure enough, so the expert accepts nothing."]
    if refusal is not None and refusal.rows is not None:
        lines.append(
            f"At most {100 * settings.max_risk:g} % wrong {probability} would need about {refusal.rows:,} "
            "labelled rows: cascade learn --test."
        )
    return lines


def check_replaceable(path: Path) -> None:
    """See that a graph that is there already is one of ours, unchanged.

    Raises:
        RequestError: somebody has changed or written it, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError):
        text = "unreadable"
    match = _DIGEST.search(text)
    if text and (match is None or _digest(text[match.end() :]) != match[1]):
        raise RequestError(
            f"{path} is there already and is not as 'cascade learn' wrote it; "
            "give another --graph-out, or move it away"
        )


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _relative(expert: Path, graph: Path) -> str:
    """Return the expert's path from the graph's folder; absolute where no relative one exists."""
    try:
        return Path(os.path.relpath(expert.resolve(), graph.resolve().parent)).as_posix()
    except ValueError:  # on another drive
        return expert.resolve().as_posix()
