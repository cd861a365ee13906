"""CPU seconds (user and system) that `cascade run` of one text takes, against importing LangGraph alone.

Both are fresh processes, by turns, from byte-code that an earlier round has written. The least of the rounds
counts: other processes only add. The model is scripted, so that nothing but the start is measured.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import guarded, parser, print_json, table

GRAPH = "name: start\nmodels: {m: {kind: scripted, default: hello}}\nstages: [{name: only, ask: [m]}]\n"


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=7, help="Rounds; the first only writes byte-code.")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.yaml"
        graph.write_text(GRAPH)
        commands = {
            "import langgraph.graph": ["-c", "import langgraph.graph"],
            "import cascade": ["-c", "import cascade"],
            "cascade run": ["-m", "cascade.cli.main", "run", str(graph), "hello"],
        }
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                spent[name].append(cpu_seconds(command, folder))
    least = {name: min(times[1:] or times) for name, times in spent.items()}
    floor = least["import langgraph.graph"]
    rows = [
        {"command": name, "cpu_seconds": round(seconds, 3), "ratio": round(seconds / floor, 2)}
        for name, seconds in least.items()
    ]
    if options.json:
        print_json({"results": rows})
    else:
        cells = [[str(row["command"]), f"{row['cpu_seconds']:.2f}", f"{row['ratio']:.2f}"] for row in rows]
        table("One start", ["", "CPU seconds", "of LangGraph's"], cells)


def cpu_seconds(command: list[str], folder: str) -> float:
    """Return the user and system time of one Python process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": f"{folder}/pyc", "CASCADE_TRACE_DB": f"{folder}/traces.db"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    full = [sys.executable, *command]
    subprocess.run(full, env=environment, capture_output=True, check=True, timeout=120)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    guarded(main)
