"""Outcome tables: what was written is read, what is missing stays missing, every fault is named."""

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import RequestError
from cascade.lab.tables.outcomes import from_rows, read_outcomes, write_outcomes
from cascade.policy.table import Outcomes

ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "prompt": 'two plus "two", ¿eh?\nwell',
        "label": "4",
        "topic": "sums",
        "hard": False,
        "models": {
            "gpt-4.1": {
                "correct": 1,
                "cost_usd": 0.002,
                "seconds": 1.5,
                "text": "4",
                "signals": {"mean": 0.9, "p10": -2.5},
                "confidence": 0.8,
            },
            "nano": {"quality": 0.25, "cost_usd": 0},
        },
    },
    {
        "id": "b",
        "prompt": "three plus three",
        "models": {"gpt-4.1": {"correct": 0, "cost_usd": 0.001, "signals": {"mean": 0.5}}},
        "failed": {"nano": {"cost_usd": 0.0001, "seconds": 2.0, "error": "no answer within 2 s"}},
    },
    {"id": "c", "models": {}},
]
GOOD: dict[str, Any] = {"correct": 1, "cost_usd": 0.1}


def same(left: Outcomes, right: Outcomes) -> bool:
    """Whether two tables hold the same, NaN for NaN."""
    if (list(left.ids), left.prompts, left.fields) != (list(right.ids), right.prompts, right.fields):
        return False
    if left.models.keys() != right.models.keys():
        return False
    for name, mine in left.models.items():
        other = right.models[name]
        columns = [(getattr(mine, key), getattr(other, key)) for key in ("quality", "cost_usd", "seconds")]
        columns += [(mine.confidence, other.confidence), (mine.unscored, other.unscored)]
        columns += [(column, other.signals[key]) for key, column in mine.signals.items()]
        if mine.signals.keys() != other.signals.keys() or list(mine.texts) != list(other.texts):
            return False
        if not all(np.array_equal(*pair, equal_nan=True) for pair in columns):
            return False
    return True


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "table.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def complaint(folder: Path, *rows: Any) -> str:
    with pytest.raises(RequestError) as caught:
        read_outcomes(write(folder, *rows))
    return str(caught.value)


def test_what_is_missing_is_nan_or_none_and_never_zero() -> None:
    table = from_rows(ROWS)
    big, nano = table.models["gpt-4.1"], table.models["nano"]
    assert table.ids == ["a", "b", "c"]
    assert table.prompts == [ROWS[0]["prompt"], "three plus three", None]
    assert table.fields == {"hard": ["False", "", ""], "label": ["4", "", ""], "topic": ["sums", "", ""]}
    assert big.quality[:2].tolist() == [1.0, 0.0]
    assert math.isnan(big.quality[2])
    assert nano.quality[0] == 0.25
    assert nano.cost_usd[0] == 0.0
    assert math.isnan(nano.seconds[0])
    assert math.isnan(big.signals["p10"][1])
    assert big.texts == ["4", None, None]
    assert nano.texts == ()


def test_a_failed_call_has_a_cost_and_no_quality() -> None:
    nano = from_rows(ROWS).models["nano"]
    assert math.isnan(nano.quality[1])
    assert nano.cost_usd[1] == 0.0001
    assert nano.seconds[1] == 2.0


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_table_comes_back_from_each_kind_of_file(suffix: str, tmp_path: Path) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / "deeper" / f"table.{suffix}"
    write_outcomes(ROWS, path)
    result = read_outcomes(path)
    assert same(result, from_rows(ROWS))
    assert len(result.sha256) == 64


def test_parquet_may_nest_its_models_as_jsonl_does(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**row, "models": row["models"] or None} for row in ROWS[:2]]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "nested.parquet")
    nested = read_outcomes(tmp_path / "nested.parquet")
    assert nested.models["nano"].quality[0] == 0.25
    assert math.isnan(nested.models["gpt-4.1"].signals["p10"][1])


def test_parquet_without_pyarrow_names_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1")
    advice = r"Parquet needs pyarrow; pip install 'cascade-moe\[parquet\]', or use \.jsonl"
    with pytest.raises(RequestError, match=advice):
        read_outcomes(path)


def test_csv_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "\ufeffid,prompt,domain,a.b.correct,a.b.cost_usd,a.b.signals.p.10,nano.quality,nano.cost_usd\r\n"
        'x,"line\nbreak",law,True,0.5,0.25,,\r\n'
        "y,,,0.0,1e-3,,0.5,0\r\n"
    )
    table = read_outcomes(path)
    assert table.prompts == ["line\nbreak", None]
    assert table.models["a.b"].quality.tolist() == [1.0, 0.0]
    assert table.models["a.b"].signals["p.10"][0] == 0.25
    assert np.isnan(table.models["nano"].quality).tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,a.correct,a.cost_usd\nx,one,1\n", "table.csv:2: a.correct is 'one'; expected a number"),
        ("id,a.correct,a.cost\nx,1,1\n", "table.csv:1: unknown column 'a.cost' of model 'a'"),
        ("id,id\nx,y\n", "table.csv:1: columns id stand twice"),
        ("id,a.correct,a.cost_usd\nx,1\n", "table.csv:2: 2 cells, the header has 3"),
        ("id,a.correct,a.cost_usd\nx,1,nan\n", "table.csv:2: models.a.cost_usd is nan"),
        ('id,a.correct,a.cost_usd\nx,1,"1\n', "table.csv:2: not CSV"),
    ],
)
def test_a_broken_csv_is_named_by_line(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        read_outcomes(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object with 'id' and 'models', got list"),
        ("[" * 100_000, "not usable JSON"),
        ('{"id": "x", "models": {"a": {"correct": 1, "cost_usd": NaN}}}', "NaN is no number"),
        ('{"id": "x", "models": {"a": {"correct": 1, "cost_usd": 1e999}}}', "cost_usd is inf"),
        ('{"id": "x", "models": {"a": {"correct": 1, "cost_usd": 1%s}}}' % ("0" * 400), "a finite number"),
        ('{"id": "x", "models": {"a": {}, "a": {}}}', "key 'a' stands twice"),
        ({"models": {}}, "id is None"),
        ({"id": True, "models": {}}, "id is True"),
        ({"id": "x"}, "models is None"),
        ({"id": "x", "models": {}, "promt": "?"}, "unknown key 'promt'; did you mean 'prompt'?"),
        ({"id": "x", "models": {}, "prompt": 3}, "prompt is 3; expected a text"),
        ({"id": "x", "models": {}, "tags": ["a"]}, "tags is ['a']; a field to slice by"),
        ({"id": "x", "models": {"a": None}}, "models.a is None; expected an object"),
        ({"id": "x", "models": {"a": {"cost_usd": 0}}}, "models.a has neither of 'correct' and 'quality'"),
        ({"id": "x", "models": {"a": {**GOOD, "quality": 1}}}, "models.a has both of"),
        ({"id": "x", "models": {"a": {"correct": 1}}}, "models.a has no 'cost_usd'"),
        ({"id": "x", "models": {"a": {**GOOD, "correct": 2}}}, "correct is 2; expected 0 or 1"),
        ({"id": "x", "models": {"a": {**GOOD, "correct": 0.5}}}, "for a grade between use 'quality'"),
        ({"id": "x", "models": {"a": {"quality": 1.5, "cost_usd": 0}}}, "quality is 1.5; expected 0 to 1"),
        ({"id": "x", "models": {"a": {**GOOD, "cost_usd": -1}}}, "cost_usd is -1; expected at least 0"),
        (
            {"id": "x", "models": {"a": {**GOOD, "cost_usd": "1"}}},
            "cost_usd is '1'; expected a finite number",
        ),
        ({"id": "x", "models": {"a": {**GOOD, "seconds": None}}}, "seconds is None"),
        ({"id": "x", "models": {"a": {**GOOD, "confidence": True}}}, "confidence is True"),
        ({"id": "x", "models": {"a": {**GOOD, "signals": {"p10": None}}}}, "signals.p10 is None"),
        ({"id": "x", "models": {"a": {**GOOD, "signals": [1]}}}, "signals is [1]"),
        ({"id": "x", "models": {"a": {**GOOD, "text": 4}}}, "text is 4; expected a text"),
        ({"id": "x", "models": {"a": {**GOOD, "cost": 4}}}, "unknown key 'cost'; did you mean 'cost_usd'?"),
        ({"id": "x", "models": {"a": GOOD}, "failed": {"a": {"cost_usd": 0}}}, "in models and in failed"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(row: Any, expected: str, tmp_path: Path) -> None:
    message = complaint(tmp_path, {"id": "fine", "models": {"a": GOOD}}, row)
    assert expected in message
    assert "table.jsonl:2: " in message


def test_all_faults_are_reported_at_once_and_ids_must_differ(tmp_path: Path) -> None:
    first = {"id": "1", "models": {"a": GOOD}}
    message = complaint(tmp_path, first, {**first, "id": 1}, "", {"id": "2"}, {"id": "3", "models": 7})
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in message.splitlines()] == ["2", "4", "5"]
    assert "id 1 is used twice, first in line 1" in message


def test_a_flood_of_faults_is_cut_and_counted(tmp_path: Path) -> None:
    message = complaint(tmp_path, *({"id": str(number)} for number in range(250)))
    assert message.splitlines()[-1] == "… and 150 more problems"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("table.txt", b"x", "unknown kind of file '.txt'; known: .jsonl, .csv, .parquet"),
        ("table.jsonl", b"\n\n", "no rows"),
        ("table.jsonl", b'{"id": "\xff"}\n', "table.jsonl:1: not valid UTF-8"),
        ("table.csv", b"", "no rows"),
    ],
)
def test_a_file_that_is_no_table_is_refused(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_outcomes(path)
    assert expected in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No such file or directory; give an outcome table"):
        read_outcomes(tmp_path / "none.jsonl")


def test_wrong_rows_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no 'cost_usd'"):
        write_outcomes([{"id": "x", "models": {"a": {"correct": 1}}}], tmp_path / "table.jsonl")
    assert list(tmp_path.iterdir()) == []


texts = st.text(max_size=6)
names = st.text(
    st.characters(blacklist_characters=".\0", blacklist_categories=["Cs"]), min_size=1, max_size=5
)
numbers = st.floats(0, 1e6, allow_nan=False)
entries = st.fixed_dictionaries(
    {"cost_usd": numbers, "correct": st.sampled_from([0, 1])},
    optional={
        "seconds": numbers,
        "confidence": st.floats(0, 1),
        "text": texts.filter(bool),
        "truncated": st.booleans(),
    },
)
tables = st.lists(
    st.fixed_dictionaries({"models": st.dictionaries(names, entries, max_size=3)}), min_size=1, max_size=4
).map(lambda rows: [{"id": f"r{number}", **row} for number, row in enumerate(rows)])


@given(tables)
def test_any_table_survives_both_text_formats(rows: list[dict[str, Any]]) -> None:
    from cascade.lab.tables.formats import format_rows
    from cascade.lab.tables.outcomes import parse_outcomes

    whole = from_rows(rows)
    for name in ("t.jsonl", "t.csv"):
        path = Path(name)
        assert same(parse_outcomes(path, format_rows(path, rows)), whole)


def test_csv_is_csv_as_others_read_it(tmp_path: Path) -> None:
    write_outcomes(ROWS, tmp_path / "t.csv")
    result = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_bytes().decode(), newline="")))
    assert result[0]["gpt-4.1.signals.p10"] == "-2.5"
    assert result[1]["nano.error"] == "no answer within 2 s"
    assert result[2]["gpt-4.1.correct"] == ""
