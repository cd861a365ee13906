"""How fast a learned head answers: an expert's file through the engine, from the call to the reply.

    python benchmarks/heads.py --data DIR [--expert FILE.gguf --task TASK] [--rows N] [--json]

Without `--expert`, a head is fitted on ten training rows of each label of BANKING77. Asked with its test
rows, each a new text: one at a time (milliseconds), 32 at once (texts a second), the same text of a second
file with the same encoder, and, as the part that llama.cpp takes, the bare embedding of the same texts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import Figures, Stopwatch, guarded, parser, print_json, table, thin
from published import load

from cascade.config.references import bundled_path
from cascade.formats.expert_file import write_expert
from cascade.lab.fitting.embed import embed_texts
from cascade.lab.fitting.fit import Rows, fit_head
from cascade.models import build_model
from cascade.models.base import Model, Prompt
from cascade.models.llamacpp import LlamaCppSettings

TASK = "banking77"
ROWS_PER_LABEL, MAX_TOKENS, TOGETHER = 10, 256, 32


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--expert", type=Path, help="a file that cascade learn wrote")
    arguments.add_argument("--task", help="its task, where it has several")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.expert or fitted(args.data, Path(folder) / "expert.gguf")
        twin = Path(folder) / "twin.gguf"
        twin.write_bytes(path.read_bytes())
        texts = [row.text for row in thin(load(TASK, args.data).test, args.rows or 1000)]
        watch = Stopwatch()
        figures = asyncio.run(measure(path, twin, args.task, texts))
    figures |= watch.figures()
    if args.json:
        print_json({"benchmark": "heads"} | figures)
        return
    rows = [[name, f"{value:.3g}"] for name, value in figures.items()]
    table(f"a learned head, {len(texts)} texts", ["figure", "value"], rows)


def fitted(data: Path, out: Path) -> Path:
    """Write an expert with a head fitted on a few rows of each label; return its path."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in load(TASK, data).train:
        if len(by_label[row.label]) < ROWS_PER_LABEL:
            by_label[row.label].append(row.text)
    texts = [text for own in by_label.values() for text in own]
    labels = [label for label, own in by_label.items() for _ in own]
    vectors = embed_texts(bundled_path("encoder"), texts, MAX_TOKENS, lambda *_: None)
    head = fit_head(
        Rows(texts, labels, np.arange(len(texts))),
        vectors,
        seed=0,
        deadline=None,
        report=lambda *_: None,
        calibration=None,
    ).head
    write_expert(bundled_path("encoder"), {TASK: head}, {}, out, MAX_TOKENS)
    return out


def expert(path: Path, task: str | None) -> Model:
    """Return the model of a file."""
    config = LlamaCppSettings(kind="llamacpp", path=str(path), task=task)
    return build_model("expert", config, path.parent)


async def measure(path: Path, twin: Path, task: str | None, texts: Sequence[str]) -> Figures:
    """Return the figures of a file; `twin` is a copy of it."""
    model, other = expert(path, task), expert(twin, task)
    started = time.perf_counter()
    await model.ask(Prompt("the first text loads the file"))
    figures: Figures = {"first_ms": 1e3 * (time.perf_counter() - started)}
    await other.ask(Prompt("and this one the second file"))
    alone, again = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    figures |= await one_by_one("alone", model, alone)
    figures |= await one_by_one("known", other, alone[-100:])
    started, own = time.perf_counter(), time.process_time()
    gate = asyncio.Semaphore(TOGETHER)

    async def ask(text: str) -> None:
        async with gate:
            await model.ask(Prompt(text))

    await asyncio.gather(*map(ask, again))
    figures["together_per_second"] = len(again) / (time.perf_counter() - started)
    figures["together_cpu_ms"] = 1e3 * (time.process_time() - own) / len(again)
    bare = []
    for text in alone:
        started = time.perf_counter()
        await model.embed([f"{text} ."])  # type: ignore[attr-defined]  # new to the encoder
        bare.append(time.perf_counter() - started)
    figures["embedding_p50_ms"] = 1e3 * float(np.median(bare))
    await model.aclose()
    await other.aclose()
    return figures


async def one_by_one(name: str, model: Model, texts: Sequence[str]) -> Figures:
    """Return quantiles of the time from call to reply, and the mean of the CPU's, in milliseconds."""
    seconds, own = [], time.process_time()
    for text in texts:
        started = time.perf_counter()
        await model.ask(Prompt(text))
        seconds.append(time.perf_counter() - started)
    figures: Figures = {f"{name}_p{q}_ms": 1e3 * float(np.percentile(seconds, q)) for q in (50, 95)}
    return figures | {f"{name}_cpu_ms": 1e3 * (time.process_time() - own) / len(texts)}


if __name__ == "__main__":
    guarded(main)
