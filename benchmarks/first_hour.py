"""From an empty folder to a served, certified cascade: how long do the two commands take?

    python benchmarks/first_hour.py [--data DIR] [--labels 10] [--rows 500] [--max-risk 0.05] [--json]

It takes a random choice of BANKING77's labels, writes a CSV of their training rows, and starts in an empty
folder as a user would, with the installed `cascade`: `cascade init --data tickets.csv desk`, then
`cascade serve desk/graphs/tickets.yaml`. Then it asks the server test rows over HTTP, reads the card, and
runs `evaluate.sh`. The promise is what the card says: a certificate, or a refusal with the rows needed.
"""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from common import Figures, Stopwatch, guarded, parser, print_json, table

from cascade.errors import RequestError
from cascade.policy.intervals import wilson

ASKED = 50  # test rows that are asked over HTTP


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--labels", type=int, default=10, help="labels that are drawn")
    arguments.add_argument("--max-risk", type=float, default=0.05, help="the promise")
    arguments.add_argument("--seed", type=int, default=0, help="seed of the choice of labels and rows")
    options = arguments.parse_args()
    train, test = tickets(options.data, options.labels, options.rows or 500, options.seed)
    clock = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        figures = first_hour(Path(folder), train, test, options.max_risk)
    figures["took"] = clock.figures()
    if options.json:
        print_json(figures)
        return
    lines = [[name, str(figures[name])] for name in figures if name != "took"]
    table(f"{len(train)} rows, {options.labels} labels", ["what", "value"], lines)
    print(clock.line())


def tickets(data: Path, labels: int, rows: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return training and test rows (text, label) of some of BANKING77's labels."""
    parts = []
    for name in ("train", "test"):
        with (data / "banking77" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            parts.append(list(csv.reader(file))[1:])
    draw = random.Random(seed)
    chosen = set(draw.sample(sorted({label for _, label in parts[0]}), labels))
    train, test = ([row for row in part if row[1] in chosen] for part in parts)
    draw.shuffle(train)
    draw.shuffle(test)
    return train[:rows], test[:ASKED]


def first_hour(folder: Path, train: list[list[str]], test: list[list[str]], max_risk: float) -> Figures:
    """Return what the commands took and gave."""
    with (folder / "tickets.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *train])
    environment = os.environ | {"CASCADE_TRACE_DB": f"sqlite:///{folder}/traces.db"}
    environment.pop("OPENAI_API_KEY", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    start = time.perf_counter()
    command = ["cascade", "init", "--data", "tickets.csv", "desk", "--max-risk", str(max_risk)]
    done = subprocess.run(  # noqa: S603
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RequestError(f"{' '.join(command)}: {done.stderr[-800:]}")
    learned = time.perf_counter() - start
    start = time.perf_counter()
    answers, ready = serve(folder / "desk", environment, [text for text, _ in test])
    right = [answer == label for answer, (_, label) in zip(answers, test, strict=True) if answer is not None]
    evaluated = subprocess.run(
        ["./evaluate.sh"], cwd=folder / "desk", env=environment, capture_output=True, check=False
    )
    card = json.loads((folder / "desk/experts/tickets.json").read_text(encoding="utf-8"))
    return {
        "init, seconds": round(learned, 1),
        "serve until the first answer, seconds": round(ready - start, 1),
        "both, seconds": round(learned + ready - start, 1),
        "accuracy on held-out rows": card["figures"]["held_out"]["accuracy"],
        "its interval": card["figures"]["held_out"]["accuracy_ci"],
        "certified": card["promise"]["certificate"] is not None,
        "refused": card["promise"]["refused"],
        "rows needed": card["promise"]["rows_needed"],
        "asked over HTTP": len(answers),
        "answered": len(right),
        "of these right": sum(right),
        "interval of that share": wilson(sum(right), len(right)) if right else None,
        "evaluate.sh, exit status": evaluated.returncode,
    }


def serve(desk: Path, environment: dict[str, str], texts: list[str]) -> tuple[list[str | None], float]:
    """Return the server's answers to texts, None for a refusal, and when the first one came."""
    command = ["cascade", "serve", "graphs/tickets.yaml", "--port", "0"]
    with subprocess.Popen(  # noqa: S603
        command, cwd=desk, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            lines = iter(server.stdout.readline if server.stdout else str, "")
            address = next(line for line in lines if " at http" in line)
            url = address.partition(" at ")[2].split()[0].removesuffix("/v1")
            answers, first = [], 0.0
            for text in texts:
                answers.append(ask(url, text))
                first = first or time.perf_counter()
            return answers, first
        finally:
            server.terminate()


def ask(url: str, text: str) -> str | None:
    """Return the answer to one request over HTTP; None if it was refused."""
    body = json.dumps({"model": "tickets", "messages": [{"role": "user", "content": text}]}).encode()
    request = urllib.request.Request(  # noqa: S310 - the server that was started here
        f"{url}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    content: str | None = answer["choices"][0]["message"]["content"]
    return content


if __name__ == "__main__":
    guarded(main)
