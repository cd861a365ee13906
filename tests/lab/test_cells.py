"""Files of rows as any program may write them: read as they are meant, or refused by file and line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cascade.cli.batch import open_output
from cascade.errors import RequestError
from cascade.lab.tables.cells import parse_table
from cascade.lab.tables.formats import format_rows
from cascade.lab.tables.graded import read_grades
from cascade.lab.tables.outcomes import from_rows, parse_outcomes, read_outcomes
from cascade.lab.tables.rows import Row, read_rows

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(str.strip)
broken_lines = st.lists(texts, min_size=1, max_size=3).map("\n".join)
tables = st.lists(st.tuples(broken_lines, st.none() | texts), min_size=1, max_size=5)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
LINE_ENDS = ("\n", "\r\n", "\r")
quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder: Path, name: str, content: bytes, **columns: str) -> list[Row]:
    path = folder / name
    path.write_bytes(content)
    return read_rows(path, **columns)


def refusal(folder: Path, name: str, content: bytes) -> str:
    with pytest.raises(RequestError) as error:
        read(folder, name, content)
    return str(error.value).removeprefix(f"{folder}/")


@quiet
@given(
    rows=tables,
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(LINE_ENDS),
    encoding=st.sampled_from(ENCODINGS),
    names=st.sampled_from([("text", "label"), (" Text", "LABEL "), ("what is asked", "intent")]),
    index=st.booleans(),
    empty_columns=st.integers(0, 2),
    empty_rows=st.integers(0, 2),
    upper=st.booleans(),
)
def test_csv_of_any_program_is_read_as_it_is_meant(
    tmp_path: Path, rows: list[tuple[str, str | None]], separator: str, end: str, encoding: str,
    names: tuple[str, str], index: bool, empty_columns: int, empty_rows: int, upper: bool,
) -> None:  # fmt: skip
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    edge = [""] * empty_columns
    if separator == ";":
        sink.write(f"sep=;{end}")
    writer.writerow([*([""] if index else []), *names, *edge])
    for number, (text, label) in enumerate(rows):
        writer.writerow([*([str(number)] if index else []), text, label or "", *edge])
    for _ in range(empty_rows):
        sink.write(separator * (1 + index + empty_columns) + end)
    name = "rows.tsv" if separator == "\t" else "rows.csv"
    named = {"text": names[0], "label": names[1]} if names[1] == "intent" else {}
    assume(not named or any(label for _, label in rows))
    result = read(tmp_path, name.upper() if upper else name, sink.getvalue().encode(encoding), **named)
    assert [row[1:] for row in result] == rows


@quiet
@given(
    rows=st.lists(st.lists(texts, min_size=3, max_size=3), min_size=1, max_size=6),
    change=st.sampled_from([-2, -1, 1, 2]),
    data=st.data(),
)
def test_a_row_with_too_many_or_too_few_cells_is_refused_by_its_line(
    tmp_path: Path, rows: list[list[str]], change: int, data: st.DataObject
) -> None:
    wrong = data.draw(st.integers(0, len(rows) - 1))
    rows = [[str(number), *row[1:]] for number, row in enumerate(rows)]
    rows[wrong] = rows[wrong][:change] if change < 0 else rows[wrong] + ["more"] * change
    sink = io.StringIO(newline="")
    csv.writer(sink, quoting=csv.QUOTE_ALL).writerows([["id", "text", "label"], *rows])
    message = refusal(tmp_path, "rows.csv", sink.getvalue().encode())
    assert message.startswith(f"rows.csv:{wrong + 2}: {3 + change} cells, the header has 3")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label,text\na,b,c\n", "rows.csv:1: columns text stand twice"),
        (b"text,,label\na,b,c\n", "rows.csv:1: column 2 has no name"),
        (b"text,label,,\nhello, please help,billing,,\n", "rows.csv:2: 3 cells, the header has 2"),
        (b"sep=;\nid,text\n1,a\n", "rows.csv:2: columns are ['id,text']"),
        (b"id;text\n1;a\n", "begin it with sep=;"),
        (b"id\ttext\n1\ta\n", "a name that ends in .tsv"),
        (
            b"question,intent\na,b\n",
            "['question', 'intent']; expected at least 'text'; --text COL",
        ),
        ("text\nä\n".encode("utf-16-le"), "rows.csv:1: UTF-16 without a byte-order mark"),
        ("text\nab\n".encode("utf-16") + b"c", "rows.csv:3: not valid UTF-16"),
        ("text\rä\r".encode("cp1252"), "rows.csv:2: not valid UTF-8"),
        (b"PK\x03\x04 whatever", "a spreadsheet or an archive; save it as CSV"),
        (b'id,text\n1,a\n2,"open\n3,b\n', "rows.csv:3: not CSV"),
        (b'text\n"a"\n""\n', "rows.csv:3: no 'text'"),
        (b"id,text,label\n1,a,b\0c\n", "rows.csv:2: label: text holds a NUL byte"),
        (b"id,text\nx\0y,a\n", "rows.csv:2: id: text holds a NUL byte"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path, "rows.csv", content)


def test_columns_that_nobody_reads_may_be_left_out_at_the_end_of_a_row(tmp_path: Path) -> None:
    content = b"text,label,note,more\nhello,billing\nhi,,x\n"
    assert [row[1:] for row in read(tmp_path, "rows.csv", content)] == [("hello", "billing"), ("hi", None)]
    assert "3: 1 cells" in refusal(tmp_path, "rows.csv", b"text,label\na,b\nshort\n")


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_named_column_must_be_there(tmp_path: Path, column: str) -> None:
    with pytest.raises(RequestError, match=f"expected 'Intent', which --{column} names"):
        read(tmp_path, "rows.csv", b"text,label\na,b\n", **{column: "Intent"})
    with pytest.raises(RequestError, match=r"no 'Intent'|no row has a 'Intent'"):
        read(tmp_path, "rows.jsonl", b'{"text": "a", "label": "b"}\n', **{column: "Intent"})
    with pytest.raises(RequestError, match="both name 'text'"):
        read(tmp_path, "rows.csv", b"text,label\na,b\n", text="text", label="text")


@quiet
@given(
    rows=tables, end=st.sampled_from(LINE_ENDS), encoding=st.sampled_from(ENCODINGS), escaped=st.booleans()
)
def test_jsonl_of_any_program_is_read_as_it_is_meant(
    tmp_path: Path, rows: list[tuple[str, str | None]], end: str, encoding: str, escaped: bool
) -> None:
    lines = [json.dumps({"label": label, "text": text}, ensure_ascii=escaped) for text, label in rows]
    result = read(tmp_path, "rows.JSONL", (end.join(lines) + end).encode(encoding))
    assert [row[1:] for row in result] == rows


@quiet
@given(keys=st.lists(st.sampled_from(["id", "text", "label", "x"]), min_size=1, max_size=6), rows=tables)
def test_a_key_that_stands_twice_is_refused_by_its_line(
    tmp_path: Path, keys: list[str], rows: list[tuple[str, str | None]]
) -> None:
    assume(len(set(keys)) < len(keys))
    good = "".join(json.dumps({"text": text}) + "\n" for text, _ in rows)
    twice = "{" + ", ".join(f'"{key}": "v"' for key in keys) + "}\n"
    message = refusal(tmp_path, "rows.jsonl", (good + twice).encode())
    assert re.fullmatch(rf"rows\.jsonl:{len(rows) + 1}: not JSON \(key '\w+' stands twice.*", message)


def test_a_list_of_all_rows_is_not_jsonl(tmp_path: Path) -> None:
    rows = json.dumps([{"text": "a"}, {"text": "b"}], indent=1).encode()
    message = refusal(tmp_path, "rows.jsonl", rows)
    assert message.endswith("expected one object a line, not a list of all")
    assert message.count("\n") == 0


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"text,label\na,b\nc,d\n", "a file of CSV needs a name that ends in .csv or .tsv"),
        (b'{\n "text": "a"\n}\n', "expected one object a line, all of it on that line"),
        (b"\xef\xbb\xbf\n\nhello\nyou\n", ":3: not JSON"),
    ],
)
def test_a_file_of_another_kind_is_one_error(tmp_path: Path, content: bytes, hint: str) -> None:
    message = refusal(tmp_path, "rows.txt", content)
    assert hint in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("rows.csv", b"text,label\n", "no rows; expected some below the header"),
        ("rows.csv", b",,\n\n", "columns are None; expected at least 'text'; the file is empty"),
        ("rows.jsonl", b"\n", "no rows; expected lines like"),
        ("rows.jsonl", b'{"question": "a"}\n', "known keys here: question; --text COL names another"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str, content: bytes, hint: str) -> None:
    assert hint in refusal(tmp_path, name, content)


@quiet
@given(data=st.data(), name=st.sampled_from(["rows.csv", "rows.tsv", "rows.jsonl"]))
def test_a_damaged_file_is_read_or_refused_by_file_and_line(
    tmp_path: Path, data: st.DataObject, name: str
) -> None:
    whole = {
        "rows.csv": b'id,text,label\n1,"a, b",x\n2,"c ""d""\ne",y\n3,f,\n',
        "rows.tsv": b"id\ttext\tlabel\n1\ta, b\tx\n2\tc d\ty\n",
        "rows.jsonl": b'{"id": 1, "text": "a, b", "label": "x"}\n{"text": "c \\u0041"}\n',
    }[name]
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    content = whole[:begin] + data.draw(st.binary(max_size=4)) + whole[end:]
    try:
        rows = read(tmp_path, name, content)
    except RequestError as error:
        for line in str(error).splitlines():
            assert re.match(rf"{re.escape(str(tmp_path / name))}(:\d+)?: ", line), line
    else:
        assert all(row.text.strip() and "\0" not in row.text for row in rows)


anything = st.text(max_size=6)  # NUL, line breaks, separators, quotes and lone surrogates too
figures = st.floats(0, 1e6, allow_nan=False)
outcomes = st.fixed_dictionaries(
    {"cost_usd": figures, "correct": st.sampled_from([0, 1])},
    optional={
        "seconds": figures,
        "confidence": st.floats(0, 1),
        "text": anything.filter(bool),
        "signals": st.dictionaries(anything, st.floats(-1e6, 1e6), min_size=1, max_size=2),
    },
)
failures = st.fixed_dictionaries({"cost_usd": figures, "error": anything.filter(bool)})
fields = st.dictionaries(
    anything.filter(lambda key: key not in ("id", "models")), anything.filter(bool), max_size=2
)


@settings(max_examples=150)
@given(
    rows=st.lists(
        st.tuples(fields, st.dictionaries(anything, outcomes, max_size=2), failures), min_size=1, max_size=3
    ),
    suffix=st.sampled_from(["jsonl", "csv", "tsv", "CSV", "parquet"]),
)
def test_a_table_that_was_written_is_read_again_or_was_refused(rows: list[Any], suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    table = [
        {**own, "id": f"r{number}", "models": models, "failed": {"broken": failed}}
        for number, (own, models, failed) in enumerate(rows)
    ]
    try:
        whole = from_rows(table)
        data = format_rows(Path(f"t.{suffix}"), table)
    except RequestError:
        return
    again = parse_outcomes(Path(f"t.{suffix}"), data)
    assert (again.ids, again.prompts, again.fields) == (whole.ids, whole.prompts, whole.fields)
    assert again.models.keys() == whole.models.keys()
    for name, model in whole.models.items():
        other = again.models[name]
        assert list(map(repr, other.quality)) == list(map(repr, model.quality))
        assert other.signals.keys() == model.signals.keys()
        assert [repr(value) for column in other.signals.values() for value in column] == [
            repr(value) for column in model.signals.values() for value in column
        ]
        assert list(other.texts) == list(model.texts)


@pytest.mark.parametrize("header", ["text,label", "id,text,label", "question,intent"])
def test_rows_of_requests_are_no_outcome_table(tmp_path: Path, header: str) -> None:
    (tmp_path / "rows.csv").write_text(f"{header}\n" + ",".join("abc"[: header.count(",") + 1]) + "\n")
    with pytest.raises(RequestError, match=r"rows.csv:1: columns are .*'cascade outcomes GRAPH --data FILE'"):
        read_outcomes(tmp_path / "rows.csv")


@quiet
@given(answers=st.lists(st.none() | st.text(max_size=20), min_size=1, max_size=5))
def test_the_output_of_a_batch_is_read_again(tmp_path: Path, answers: list[str | None]) -> None:
    rows = [Row(str(number), "x") for number in range(len(answers))]
    path = tmp_path / "out.jsonl"
    with open_output(path, rows, "g@1", restart=True) as output:
        for row, answer in zip(rows, answers, strict=True):
            output.write({"id": row.id, "text": answer})
        output.finish()
    table = parse_table(path.name, path.read_bytes())
    assert [cells for _, cells in table.rows] == [
        {"id": row.id, "text": answer} for row, answer in zip(rows, answers, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("g.csv", lambda rows: "run,correct\n" + "".join(f"{run},{grade}\n" for run, grade in rows)),
        (
            "g.jsonl",
            lambda rows: "".join(json.dumps({"run": run, "quality": grade}) + "\n" for run, grade in rows),
        ),
    ],
)
def test_grades_are_read_by_the_same_reader(
    tmp_path: Path, name: str, write: Callable[[list[tuple[str, int]]], str]
) -> None:
    (tmp_path / name).write_text(write([("a", 1), ("b", 0)]))
    assert [(grade.run, grade.quality) for grade in read_grades(tmp_path / name)] == [("a", 1.0), ("b", 0.0)]
