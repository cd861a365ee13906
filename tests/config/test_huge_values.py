"""Huge numbers, keys and numbers of mistakes in a graph file give a short error that names the place."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cascade.config.load import load_graph
from cascade.config.source import MAX_PROBLEMS
from cascade.errors import ConfigError

GRAPH = """\
name: g
limits: {{calls: {calls}, cost_usd: {cost}}}
models:
  m: {{kind: scripted, max_tokens: {tokens}}}
stages:
  - {{name: a, ask: [m], samples: {samples}}}
"""


def refused(folder: Path, text: str) -> list[str]:
    """Return the lines of the error that the graph file `text` gives; none of them is long."""
    path = folder / "g.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(str(path)) for line in lines)
    assert max(map(len, lines)) < 600 + len(str(path))
    assert len(lines) <= MAX_PROBLEMS + 1
    return lines


@pytest.mark.parametrize("seed", range(12))
def test_a_number_of_any_length_is_named_with_its_length(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    digits = "".join(draw.choices("0123456789", k=draw.choice([401, 4301, 20_000, 100_000])))
    shape = draw.choice(["1{}", "-1{}", "0x{}", "0o7", "1.{}", "1{}.5", "1e{}", "-1e-{}", ".{}"])
    number = shape.format(digits) if "{}" in shape else shape + "7" * len(digits)
    values = dict.fromkeys(("calls", "cost", "tokens", "samples"), "1")
    key = draw.choice(list(values))
    lines = refused(tmp_path, GRAPH.format(**{**values, key: number}))
    assert len(lines) == 1
    assert f"is a number of {len(number)} characters; expected at most 400" in lines[0]


@pytest.mark.parametrize(
    "number", ["9" * 400, "1" + "0" * 399, "0x" + "f" * 398, "1e308", "1e309", "-" + "9" * 399]
)
def test_a_number_that_is_only_too_large_is_judged_by_its_key(tmp_path: Path, number: str) -> None:
    (line, *_) = refused(tmp_path, GRAPH.format(calls=number, cost=1, tokens=1, samples=number))
    assert "g.yaml:2: limits.calls: " in line or "g.yaml:6: stages.0.samples: " in line


@pytest.mark.parametrize("count", [1, MAX_PROBLEMS, MAX_PROBLEMS + 1, 3000])
def test_of_many_mistakes_the_first_are_listed(tmp_path: Path, count: int) -> None:
    good = GRAPH.format(calls=1, cost=1, tokens=1, samples=1)
    lines = refused(tmp_path, good + "".join(f"key{number}: 1\n" for number in range(count)))
    assert len(lines) == min(count, MAX_PROBLEMS) + (count > MAX_PROBLEMS)
    assert "unknown key 'key0'" in lines[0]
    assert lines[-1].endswith("more problems follow; mend these first") == (count > MAX_PROBLEMS)


@pytest.mark.parametrize("length", [61, 1000, 400_000])
@pytest.mark.parametrize("where", ["", "limits"])
def test_a_long_key_is_shown_by_its_beginning(tmp_path: Path, length: int, where: str) -> None:
    good = GRAPH.format(calls=1, cost=1, tokens=1, samples=1)
    key = "x" * length
    more = f"? {key}\n: 1\n" if not where else f"budgets:\n  ? {key}\n  : 1\n"
    assert any("xxx..." in line for line in refused(tmp_path, good + more))


def test_many_references_to_nothing_are_refused_in_short(tmp_path: Path) -> None:
    models = "".join(f"  m{number}: {{kind: scripted}}\n" for number in range(600))
    stages = "".join(f"  - {{name: s{number}, ask: [x{number}, m{number}]}}\n" for number in range(600))
    lines = refused(tmp_path, f"name: g\nmodels:\n{models}stages:\n{stages}")
    assert "unknown model 'x0'; known: m0, m1" in lines[0]
    assert "and 550 more" in lines[0]
