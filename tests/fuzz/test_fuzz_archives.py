"""Damaged archives: every one is imported or refused with a reason, and the store stays whole."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import fuzz
from runs_maker import WRITTEN, quick, run, step

from cascade.errors import TraceError
from cascade.trace import RunFilter, TraceStore, export_runs, import_runs, verify

VALUES = (
    "null", "true", "-1", "0", "NaN", "-Infinity", "1e308", "1e999", "9" * 30, "9" * 5000,
    '""', '"\\ud800"', "[]", "{}",
    '"9999-12-31T23:59:59Z"', '"\\u0000"', "[[[[]]]]", '{"kind": "limit"}', '"sha256:"', "[null, 1]",
)  # fmt: skip


@functools.cache
def archive(kind: str) -> bytes:
    """An export of three runs with grades."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        with TraceStore(str(path)) as store:
            store.write(run("01AA"))
            store.write(quick("01BB"))
            store.write(run("01CC", trace=(step("first", "no_estimate", WRITTEN),)))
            store.grade("01AA", True, by="Ada")
        export_runs(str(path), Path(folder) / f"runs.{kind}", RunFilter())
        return (Path(folder) / f"runs.{kind}").read_bytes()


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for name, item in inner for place in places(item, (*at, name)))]


def changed_line(random: Random, line: bytes) -> bytes:
    """A line with one of its values replaced, removed, or said twice."""
    fields = json.loads(line)
    place = random.choice(places(fields)[1:])
    within = fields
    for name in place[:-1]:
        within = within[name]
    if random.random() < 0.2:
        del within[place[-1]]
    else:
        within[place[-1]] = "HERE"
    return json.dumps(fields).replace('"HERE"', random.choice(VALUES)).encode()


def a_json_archive(random: Random) -> bytes:
    lines = archive("jsonl").splitlines()
    number = random.randrange(len(lines))
    lines[number] = changed_line(random, lines[number])
    whole = bytearray(b"\n".join(lines) + b"\n")
    return damaged(random, whole) if random.random() < 0.3 else bytes(whole)


def a_parquet_archive(random: Random) -> bytes:
    return damaged(random, bytearray(archive("parquet")))


def damaged(random: Random, body: bytearray) -> bytes:
    for _ in range(random.choice([1, 1, 3, 20])):
        begin = random.randrange(len(body) + 1)
        end = begin + random.randint(0, 8)
        body[begin:end] = random.choice([b"", body[begin:end] * 2, random.randbytes(end - begin), b"\0"])
    return bytes(body)


def imports_or_refuses(kind: str, body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, path = Path(folder) / f"runs.{kind}", Path(folder) / "runs.db"
        file.write_bytes(body)
        refusal = None
        try:
            import_runs(str(path), file)
        except TraceError as error:
            refusal = str(error)
        assert refusal is None or refusal.startswith((f"{file}:", f"{file} ", "run ")), refusal
        assert verify(str(path)).count == 0
        with TraceStore(str(path), create=False) as store:
            for row in store.runs():
                store.get(row.run)
            store.overview(RunFilter())


def test_json_archives() -> None:
    fuzz("archives-jsonl", a_json_archive, functools.partial(imports_or_refuses, "jsonl"), examples=40)


def test_parquet_archives() -> None:
    fuzz("archives-parquet", a_parquet_archive, functools.partial(imports_or_refuses, "parquet"), examples=25)
