"""The frame of the fuzzers in `tests/fuzz`: seeds, how long they run, and the inputs that failed once.

    def test_headers() -> None:
        fuzz("gguf-headers", draw=a_header, check=reads_or_refuses, examples=20_000)

`draw` makes an input, JSON or bytes, from a `random.Random`; `check` raises if something is wrong with it.
First come the inputs of `tests/fuzz/corpus/NAME`, which failed once, then `examples` drawn ones: the same
every time, so that a failure is no accident. By hand:

    CASCADE_FUZZ_MINUTES=120 python -m pytest tests/fuzz -k headers    # for two hours, other ones each time
    CASCADE_FUZZ_SEED=7 CASCADE_FUZZ_MINUTES=5 python -m pytest tests/fuzz -k headers    # those of seed 7

An input that fails by hand is kept in the corpus; commit it with the fix.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

CORPUS = Path(__file__).parent / "fuzz" / "corpus"

T = TypeVar("T")


def fuzz(
    name: str,
    draw: Callable[[random.Random], T],
    check: Callable[[T], object],
    *,
    examples: int,
    corpus: Path = CORPUS,
) -> int:
    """Check the corpus of `name` and drawn inputs; return how many there were.

    Raises:
        AssertionError: an input failed; it names the input and how to repeat it.
    """
    minutes = float(os.environ.get("CASCADE_FUZZ_MINUTES", "0"))
    seed = int(os.environ.get("CASCADE_FUZZ_SEED", str(time.time_ns() if minutes else 0)))
    count = 0
    for path in sorted((corpus / name).glob("*")):
        _checked(check, _read(path), f"{path.name} of its corpus")
        count += 1
    for number in _numbers(examples, minutes):
        value = draw(random.Random(f"{name}/{seed}/{number}"))  # a string: the same on every Python
        try:
            _checked(check, value, f"seed {seed}, input {number}")
        except AssertionError:
            if minutes:
                _keep(corpus / name, value)
            raise
        count += 1
    return count


def _numbers(examples: int, minutes: float) -> Iterator[int]:
    end, number = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end if minutes else number < examples:
        yield number
        number += 1


def _checked(check: Callable[[T], object], value: T, which: str) -> None:
    try:
        check(value)
    except Exception as error:
        raise AssertionError(f"{which}: {type(error).__name__}: {error}\ninput: {value!r:.2000}") from error


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()


def _keep(folder: Path, value: object) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value, indent=1).encode()
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "bin" if isinstance(value, bytes) else "json"
    (folder / f"{hashlib.sha256(data).hexdigest()[:12]}.{suffix}").write_bytes(data)
