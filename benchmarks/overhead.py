"""Added latency and requests/s of cascade beside what others use, against the same stub server, interleaved.

Each contestant is a process of its own; in every round each is asked in turn, in an order that changes. The
others are installed from the package index into an environment each, below --work; what cannot be installed
or started is left out, with its reason. The stub answers at once, so that the time is the libraries' own.
`--beside CHECKOUT` adds another checkout's cascade, in the environment that `make run` made there.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
import urllib.request
import venv
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common import Figures, guarded, parser, print_json, progress, table
from engine_sections.load import Watch, idle_load

PARTS = Path(__file__).with_name("overhead_parts")
OWN = ("openai", "langgraph", "cascade, nothing kept", "cascade", "cascade, day budget")
OTHERS = {"litellm": ["litellm"], "cascadeflow": ["cascadeflow[openai]"]}
AT_ONCE = 16
BUSY = 0.3  # cores that others use, above which figures are not to be trusted
SEED = 5


class Worker:
    """A contestant's process."""

    def __init__(
        self, name: str, python: Path | str, url: str, stack: ExitStack, parts: Path = PARTS
    ) -> None:
        command = [str(python), str(parts / "worker.py"), name, url]
        self._process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        )
        stack.callback(self._process.kill)
        self.versions: dict[str, str] = self._read()
        self.latency: list[float] = []
        self.rate: list[float] = []

    def send(self, requests: int, concurrency: int) -> dict[str, Any]:
        """Send requests and return how long they took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{requests} {concurrency}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def installed(name: str, work: Path) -> Path:
    """Return the Python of an environment that has contestant `name`; made below `work` if it is missing."""
    python = work / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} below {work} ...", file=sys.stderr)
        venv.create(work / name, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *OTHERS[name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise RuntimeError(f"pip could not install it: {last[0]}")
    return python


def start_beside(checkout: Path, url: str, stack: ExitStack) -> dict[str, Worker]:
    """Return the contestants of another checkout, started in its own environment."""
    python, parts = checkout / ".venv" / "bin" / "python", checkout / "benchmarks" / "overhead_parts"
    workers = {}
    for name in OWN[2:]:
        workers[f"{name} ({checkout.name})"] = worker = Worker(name, python, url, stack, parts)
        worker.send(20, 4)
    return workers


def start(url: str, work: Path | None, stack: ExitStack) -> tuple[dict[str, Worker], dict[str, str]]:
    """Return the contestants that could be started, and why the others could not."""
    found: dict[str, Worker] = {}
    left_out: dict[str, str] = {}
    for name in (*OWN, *OTHERS):
        try:
            if name in OTHERS and work is None:
                left_out[name] = "no --work folder to install it into"
                continue
            python = installed(name, work) if name in OTHERS and work is not None else sys.executable
            worker = Worker(name, python, url, stack)
            worker.send(20, 4)
        except (RuntimeError, OSError, subprocess.SubprocessError, ValueError) as error:
            left_out[name] = str(error)
        else:
            found[name] = worker
    return found, left_out


def count(url: str) -> int:
    """Return how many completions the stub was asked for since the last time."""
    with urllib.request.urlopen(url.replace("/v1", "/count"), timeout=10) as answer:  # noqa: S310 - our stub
        return int(answer.read())


def measured(url: str, workers: dict[str, Worker], rounds: int, requests: int) -> dict[str, float]:
    """Let each contestant send its requests in every round; return the calls it made for each of them."""
    draw, calls = random.Random(SEED), dict.fromkeys(workers, 0)
    with progress() as bar:
        task = bar.add_task("rounds", total=rounds * len(workers))
        for _ in range(rounds):
            for name in draw.sample(list(workers), len(workers)):
                count(url)
                one = workers[name].send(requests, 1)
                many = workers[name].send(4 * requests, AT_ONCE)
                workers[name].latency.append(statistics.median(one["each"]))
                workers[name].rate.append(4 * requests / many["all"])
                calls[name] += count(url)
                bar.advance(task)
    return {name: made / (5 * requests * rounds) for name, made in calls.items()}


def row(worker: Worker, base: Worker, calls: float) -> Figures:
    """Return a contestant's figures; those beside the bare SDK's are medians over paired rounds."""
    added = [own - bare for own, bare in zip(worker.latency, base.latency, strict=True)]
    ratio = [own / bare for own, bare in zip(worker.rate, base.rate, strict=True)]
    return {
        "versions": worker.versions,
        "latency_ms": 1e3 * statistics.median(worker.latency),
        "added_ms": 1e3 * statistics.median(added),
        "added_ms_range": [1e3 * min(added), 1e3 * max(added)],
        "requests_per_s": statistics.median(worker.rate),
        "rate_ratio": statistics.median(ratio),
        "calls_per_request": calls,
    }


def main() -> None:
    """Measure, and print a table or JSON."""
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="few requests, for a look")
    arguments.add_argument("--work", type=Path, help="folder for the others' environments")
    arguments.add_argument("--beside", type=Path, help="another checkout, after make run there")
    arguments.add_argument("--rounds", type=int, default=15, help="how often each is asked in turn")
    given = arguments.parse_args()
    rounds, requests = (3, 20) if given.quick else (given.rounds, 100)
    before = idle_load(0.5 if given.quick else 3.0)
    with ExitStack() as stack:
        command = [sys.executable, str(PARTS / "stub.py")]
        stub = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))  # noqa: S603
        stack.callback(stub.kill)
        assert stub.stdout is not None
        url = f"http://127.0.0.1:{stub.stdout.readline().strip()}/v1"
        workers, left_out = start(url, given.work, stack)
        if given.beside is not None:
            workers |= start_beside(given.beside.resolve(), url, stack)
        watch = Watch()
        calls = measured(url, workers, rounds, requests)
        during = watch.others()
    rows = {name: row(worker, workers["openai"], calls[name]) for name, worker in workers.items()}
    figures: Figures = {
        "date": time.strftime("%Y-%m-%d"), "rounds": rounds, "requests": requests, "at_once": AT_ONCE,
        "others_before": before, "others_during": during, "busy": max(before, during) > BUSY,
        "contestants": rows, "left_out": left_out,
    }  # fmt: skip
    if given.json:
        print_json(figures)
        return
    show(figures)


def show(figures: Figures) -> None:
    """Print the figures as a table."""
    cells = []
    for name, found in figures["contestants"].items():
        low, high = found["added_ms_range"]
        cells.append(
            [
                f"{name} ({', '.join(f'{k} {v}' for k, v in found['versions'].items())})",
                f"{found['latency_ms']:.2f}",
                f"{found['added_ms']:+.2f} [dim]{low:+.2f} – {high:+.2f}[/dim]",
                f"{found['requests_per_s']:.0f}",
                f"{found['rate_ratio']:.2f}",
                f"{found['calls_per_request']:.2f}",
            ]
        )
    columns = ["", "ms", "added ms", f"requests/s at {AT_ONCE}", "of bare", "calls/request"]
    table(f"overhead, median of {figures['rounds']} interleaved rounds", columns, cells)
    for name, reason in figures["left_out"].items():
        print(f"left out: {name}: {reason}")
    verdict = "BUSY, do not trust these figures" if figures["busy"] else "quiet"
    print(f"other processes used {figures['others_during']:.2f} cores: {verdict}")


if __name__ == "__main__":
    guarded(main)
