"""The local engine against its targets, each a ratio to a baseline in the same run.

    python benchmarks/engine.py [--quick] [--json [FILE]] [--markdown] [--only SECTION …] [--work DIR]

The first run writes models of random weights at real shapes, and builds llama-batched-bench and
llama-server from the sources inside the llama-cpp-python sdist; both stay in --work. Every section runs in a
process of its own. `others` is what other processes used of the machine meanwhile, in cores: of interleaved
rounds, only those with at most 0.06 count, if there are three; a row with more says "busy", and its ratio is
worth less.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import platformdirs
from common import guarded, print_json, table
from engine_sections.asking import Section, Settings
from engine_sections.figures import COLUMNS, cells, markdown
from engine_sections.load import idle_load
from engine_sections.models import SPECS
from engine_sections.tools import build_tools, find_tools

from cascade.engine import available_cores
from cascade.errors import CascadeError

MODULES = {
    "throughput": "throughput", "crowded": "crowded", "mixed": "mixed", "statistics": "stats",
    "labels": "labels", "messages": "messages", "prefix": "prefix", "memory": "memory",
}  # fmt: skip
BUILT = {"throughput", "crowded", "mixed"}  # need llama.cpp's programs
Rows = list[dict[str, Any]]


def main() -> None:
    """Measure and print."""
    args = arguments().parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.inside:
        print(json.dumps(asyncio.run(measure(args)), ensure_ascii=False))
        return
    if not args.no_build and find_tools(args.work) is None and BUILT & set(args.only):
        build_tools(args.work, args.jobs)
    report: dict[str, Any] = {"benchmark": "engine", "quick": args.quick, "threads": args.threads}
    started = time.monotonic()
    report |= {"date": time.strftime("%Y-%m-%d"), "before": {}, "took": {}, "rows": [], "failed": []}
    for section in args.only:
        report["before"][section] = idle_load(1.0)
        print(f"{section} (others use {report['before'][section]:.2f} cores)", file=sys.stderr)
        begun = time.monotonic()
        try:
            report["rows"] += _apart(section)
        except CascadeError as error:
            report["failed"].append(f"{section}: {error}")
        report["took"][section] = round(time.monotonic() - begun)
    report["seconds"] = round(time.monotonic() - started)
    _print(args, report)
    if report["failed"]:
        sys.exit(1)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="two rounds and short phases, for a look")
    made.add_argument("--json", metavar="FILE", nargs="?", const="-", help="write JSON to FILE, or print it")
    made.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    made.add_argument("--only", nargs="+", choices=list(MODULES), default=list(MODULES), metavar="SECTION")
    made.add_argument("--models", nargs="+", choices=list(SPECS), default=list(SPECS), metavar="MODEL")
    made.add_argument("--threads", type=int, default=available_cores(), help="of a decode, on both sides")
    work = platformdirs.user_cache_path("cascade") / "benchmarks"
    made.add_argument("--work", type=Path, default=work, help="where models and programs are kept")
    made.add_argument(
        "--no-build", action="store_true", help="skip rows of llama.cpp's programs if they are missing"
    )
    made.add_argument("--jobs", type=int, default=available_cores(), help="compilers at a time")
    made.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return made


async def measure(args: argparse.Namespace) -> Rows:
    """Return the rows of the sections, measured in this process."""
    tools = find_tools(args.work)
    settings = Settings(args.work, args.threads, tuple(args.models), args.quick, tools)
    rows: Rows = []
    for name in args.only:
        section: Section = importlib.import_module(f"engine_sections.{MODULES[name]}").measure
        rows += [_finite(row.plain()) for row in await section(settings)]
    return rows


def _apart(section: str) -> Rows:
    """Run one section in a process of its own, with this one's arguments.

    Raises:
        CascadeError: it ended with an error, which is on standard error.
    """
    command = [sys.executable, __file__, *sys.argv[1:], "--only", section, "--inside"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CascadeError(f"ended with {done.returncode}; its error is above")
    rows: Rows = json.loads(done.stdout.splitlines()[-1])
    return rows


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def _print(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json == "-":
        print_json(report)
        return
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if args.markdown:
        print(_heading(report) + "\n\n" + markdown(report["rows"]))
    else:
        for section in args.only:
            own = [cells(row)[1:] for row in report["rows"] if row["section"] == section]
            table(f"{section} (others before: {report['before'][section]:.2f} cores)", COLUMNS[1:], own)
    for failure in report["failed"]:
        print(f"error: {failure}", file=sys.stderr)


def _heading(report: dict[str, Any]) -> str:
    load = ", ".join(f"{section} {share:.2f}" for section, share in report["before"].items())
    quick = " --quick" if report["quick"] else ""
    return (
        f"`python benchmarks/engine.py{quick}` on {report['date']}, {report['threads']} threads on both "
        f"sides, {report['seconds']} s. Cores that other processes used before each section: {load}."
    )


if __name__ == "__main__":
    guarded(main)
