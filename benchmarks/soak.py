"""Half an hour of requests through local experts, a remote stub and faults of every kind: is the memory flat?

The remote server is the one of tests/chaos; half of what it is asked breaks. Resident memory, open files and
threads are sampled every second; after a warm-up the last tenth of the samples is compared with the first.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from common import Figures, guarded, parser, print_json, table
from engine_sections.load import Watch, idle_load, rss

from cascade import Cascade

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 16
WARM_UP = 0.2  # share of the time
GROWTH = 0.05  # of the resident memory that counts as flat
GRAPH = """
name: soak
budgets: {{day_usd: 1000}}
models:
  nano: {{kind: llamacpp, path: 'bundled:{expert}', task: {task}}}
  far: {{kind: openai, model: m, url: '{url}', key_env: null, max_retries: 0, timeout: 1, max_tokens: 64,
        price: {{input: 1.0, output: 2.0}}, concurrency: 12, queue: 64,
        breaker: {{failures: 20, seconds: 0.5}}}}
  person: {{kind: scripted, default: "I do not know"}}
stages:
  - {{name: local, ask: [nano], confidence: {{by: labels}}, accept: 0.97}}
  - {{name: remote, ask: [far], confidence: {{by: logprob}}, accept: 0.5, hedge: 0.8}}
  - {{name: last, ask: [person]}}
"""


class Sample(NamedTuple):
    """What the process holds at one time."""

    at: float
    rss_mib: float
    files: int
    threads: int


def sample(start: float) -> Sample:
    """Return what the process holds now."""
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return Sample(time.monotonic() - start, rss(), files, threading.active_count())


@contextmanager
def cascade_of(expert: str, task: str) -> Iterator[tuple[Cascade, list[str]]]:
    """Give a cascade on a faulty server, and the faults that it can be asked for."""
    sys.path.insert(0, str(ROOT / "tests"))
    faulty: Any = importlib.import_module("chaos.faulty")
    with tempfile.TemporaryDirectory() as folder, faulty.Faulty() as server:
        path = Path(folder) / "graph.yaml"
        path.write_text(GRAPH.format(expert=expert, task=task, url=server.url), encoding="utf-8")
        with Cascade.load(path, trace_db=str(Path(folder) / "traces.db")) as made:
            yield made, sorted(set(faulty.FAULTS) - {"ok", "huge_body"})


async def soak(cascade: Cascade, faults: list[str], seconds: float) -> tuple[list[Sample], Counter[str]]:
    """Keep `AT_ONCE` requests in flight for `seconds`; return the samples and how the requests ended."""
    start, ends, samples = time.monotonic(), Counter[str](), [sample(time.monotonic())]
    draw = random.Random(3)

    async def work() -> None:
        while time.monotonic() - start < seconds:
            kind = draw.choice(["ok", draw.choice(faults)])
            task = asyncio.create_task(cascade.ainvoke(f"{kind} where has my card got to? {draw.random()}"))
            if draw.random() < 0.01:  # callers go away, too
                await asyncio.sleep(0.01)
                task.cancel()
            try:
                result = await task
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            else:
                ends[f"{result.status} by {result.stage}"] += 1

    workers = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
    while not all(worker.done() for worker in workers):
        await asyncio.wait(workers, timeout=1.0)
        samples.append(sample(start))
    await asyncio.gather(*workers)
    return samples, ends


def compared(samples: list[Sample], seconds: float) -> Figures:
    """Return the first and the last tenth after the warm-up, and whether what is held is flat."""
    after = [one for one in samples if one.at >= WARM_UP * seconds] or samples
    tenth = max(1, len(after) // 10)
    figures: Figures = {}
    for name in ("rss_mib", "files", "threads"):
        first = statistics.median(getattr(one, name) for one in after[:tenth])
        last = statistics.median(getattr(one, name) for one in after[-tenth:])
        figures[name] = {"first": first, "last": last, "growth": last / first - 1.0}
    figures["flat"] = figures["rss_mib"]["growth"] <= GROWTH and all(
        figures[name]["last"] <= figures[name]["first"] + AT_ONCE for name in ("files", "threads")
    )
    return figures


def main() -> None:
    """Soak, and print a table or JSON; exit status 1 if what is held is not flat."""
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=30.0)
    arguments.add_argument("--quick", action="store_true", help="half a minute, for a look")
    arguments.add_argument("--expert", default="tiny", help="bundled expert of the local stage")
    arguments.add_argument("--task", default="banking77", help="its task")
    given = arguments.parse_args()
    seconds = 30.0 if given.quick else 60.0 * given.minutes
    before, watch = idle_load(1.0), Watch()
    with cascade_of(given.expert, given.task) as (cascade, faults):
        samples, ends = cascade.run_sync(soak(cascade, faults, seconds))
    figures: Figures = {
        "date": time.strftime("%Y-%m-%d"), "seconds": seconds, "requests": sum(ends.values()),
        "ends": dict(ends), "others_before": before, "others_during": watch.others(),
        **compared(samples, seconds),
    }  # fmt: skip
    if given.json:
        print_json(figures)
    else:
        rows = [
            [name, f"{found['first']:.1f}", f"{found['last']:.1f}", f"{found['growth']:+.1%}"]
            for name, found in figures.items()
            if isinstance(found, dict) and "growth" in found
        ]
        table(f"{figures['requests']} requests in {seconds:.0f} s", ["", "first", "last", "growth"], rows)
        print(", ".join(f"{name}: {count}" for name, count in ends.most_common()))
        print(f"other processes used {figures['others_during']:.2f} cores")
    if not figures["flat"]:
        print("not flat", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    guarded(main)
