"""How long storing a run takes: for the caller, and until it is on the disk."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from common import Figures

from cascade.trace import TraceStore
from trace_parts.filling import baseline, insert_plain, make_generator
from trace_parts.timing import summary, timed


def write(folder: Path) -> Figures:
    """Write 2,000 runs to new databases in `folder`."""
    figures: Figures = {}
    generator = make_generator()
    runs = [generator.draw(index, 2000) for index in range(2000)]
    with TraceStore(str(folder / "writing.db")) as store:
        for run in runs[:100]:
            store.write(run)
        times = timed(store.submit, runs[100:600])
        figures["submit_ms"] = summary(times)
        store.write(runs[600])  # all earlier runs are stored now
        figures["durable_ms"] = summary(timed(store.write, runs[601:800]))
        start = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(store.write, runs[800:]))
        figures["runs_per_second_16_writers"] = len(runs[800:]) / (time.perf_counter() - start)
    with closing(baseline(folder / "writing-plain.db")) as connection:
        times = timed(lambda run: insert_plain(connection, [run]), runs[:200])
        figures["plain_durable_ms"] = summary(times)
    return figures
