"""What storing a run costs, of the caller's time and until it is on the disk."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from common import Figures

from cascade.trace import TraceStore
from trace_parts.filling import baseline, insert_plain, make_mould
from trace_parts.timing import summary, timed


def write(folder: Path) -> Figures:
    """Write 2,000 runs to new databases in `folder`."""
    figures: Figures = {}
    mould = make_mould()
    runs = [mould.draw(index, 2000) for index in range(2000)]
    with TraceStore(str(folder / "writing.db")) as store:
        for run in runs[:100]:
            store.write(run)
        taken = timed(store.submit, runs[100:600])
        figures["submit_ms"] = summary(taken)
        store.write(runs[600])  # all before it are stored now
        figures["durable_ms"] = summary(timed(store.write, runs[601:800]))
        begun = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(store.write, runs[800:]))
        figures["runs_per_second_16_writers"] = len(runs[800:]) / (time.perf_counter() - begun)
    with closing(baseline(folder / "writing-plain.db")) as connection:
        taken = timed(lambda run: insert_plain(connection, [run]), runs[:200])
        figures["plain_durable_ms"] = summary(taken)
    return figures
