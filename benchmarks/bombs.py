"""How long /healthz takes while a server refuses requests that cost much to read, one and four at a time.

The requests are those of tests/costly_requests.py: those that once stopped the server, and drawn ones of
their kinds. They are made beforehand, and a process of its own asks for /healthz every 10 ms.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import Figures, Stopwatch, guarded, parser, print_json, table

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.25  # seconds
POLLER = """
import json, sys, threading, time, urllib.request
over, took = threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
while not over.wait(0.01):
    start = time.perf_counter()
    urllib.request.urlopen(sys.argv[1] + "/healthz", timeout=300).read()
    took.append(time.perf_counter() - start)
print(json.dumps(took))
"""


def watched(url: str, work: Any) -> list[float]:
    """Return how long each /healthz took while `work` was done, in seconds, sorted."""
    command = [sys.executable, "-c", POLLER, url]
    poller = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    time.sleep(0.5)
    work()
    out, _ = poller.communicate()
    took: list[float] = json.loads(out)
    return sorted(took)


def send(url: str, bomb: tuple[str, str, bytes]) -> tuple[int, float]:
    """Send a bomb; return its status and how long the answer took."""
    _, path, body = bomb
    request = urllib.request.Request(url + path, body, {"Content-Type": "application/json"})  # noqa: S310
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            status = int(answer.status)
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    return status, time.perf_counter() - start


def measure(url: str, bombs: list[tuple[str, str, bytes]], at_once: int) -> Figures:
    """Return the figures of all bombs, so many at a time."""
    answers: list[tuple[int, float]] = []

    def work() -> None:
        with ThreadPoolExecutor(at_once) as pool:
            answers.extend(pool.map(lambda bomb: send(url, bomb), bombs))

    watch = Stopwatch()
    took = watched(url, work)
    return {
        "at_once": at_once,
        "bombs": len(bombs),
        "statuses": {str(s): sum(a[0] == s for a in answers) for s in sorted({a[0] for a in answers})},
        "bomb_max_s": max(answer[1] for answer in answers),
        "healthz": len(took),
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[len(took) * 99 // 100],
        "max_ms": 1000 * took[-1],
        **watch.figures(),
    }


def main() -> None:
    """Print the figures as a table or JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--drawn", type=int, default=200, help="how many drawn ones")
    given = arguments.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    bombs, scripting, serving = map(importlib.import_module, ("costly_requests", "scripting", "serving"))
    todo = [*bombs.known_bombs(), *bombs.drawn_bombs(given.drawn)]
    stages = [{"name": "only", "ask": ["m"]}]
    with tempfile.TemporaryDirectory() as folder:
        graph = scripting.write(Path(folder), {"m": scripting.scripted("yes")}, stages)
        with serving.serving(graph) as (_, url):
            send(url, todo[0])  # starts the first process
            idle = watched(url, lambda: time.sleep(3))
            rows = [measure(url, todo, at_once) for at_once in (1, 4)]
    if given.json:
        print_json({"limit_ms": 1000 * LIMIT, "idle_max_ms": 1000 * idle[-1], "rows": rows})
        return
    columns = ("at_once", "bombs", "bomb_max_s", "healthz", "p50_ms", "p99_ms", "max_ms", "others_cores")
    cells = [[row[c] if isinstance(row[c], int) else f"{row[c]:.2f}" for c in columns] for row in rows]
    table("/healthz while bombs are refused", columns, cells)
    print(f"idle: at most {1000 * idle[-1]:.1f} ms; statuses {[row['statuses'] for row in rows]}")


if __name__ == "__main__":
    guarded(main)
