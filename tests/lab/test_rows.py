"""Rows as other programs write them: CSV of spreadsheets, odd ids, and files that are not what they seem."""

from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import RequestError
from cascade.lab.tables.rows import read_rows


def read(folder: Path, name: str, content: bytes) -> list[tuple[str, str, str | None]]:
    path = folder / name
    path.write_bytes(content)
    return [tuple(row) for row in read_rows(str(path))]


def test_a_spreadsheets_csv_is_read_as_it_is(tmp_path: Path) -> None:
    content = (
        b'\xef\xbb\xbfid,text,label,extra\r\n1,"say ""hi""",a,x\r\n'
        b'2,"two\nlines",,\r\n,tab\tand caf\xc3\xa9,b\r\n'
    )
    assert read(tmp_path, "rows.csv", content) == [
        ("1", 'say "hi"', "a"),
        ("2", "two\nlines", None),
        ("5", "tab\tand café", "b"),
    ]


def test_a_text_of_csv_may_be_as_long_as_any_other(tmp_path: Path) -> None:
    assert len(read(tmp_path, "rows.csv", b"text\n" + b"a" * 1_000_000 + b"\n")[0][1]) == 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'id,text\n1,"not closed\n2,b\n', "unexpected end of data); close every quote"),
        (b'id,text\n1,"a"b\n', "rows.csv:2: not CSV"),
        (b"id;text\n1;a\n", "rows.csv:1: columns are ['id;text']; expected at least 'text'"),
        (b"", "rows.csv:1: columns are None"),
        (b"id,text\n1,\n", "rows.csv:2: no 'text'"),
        (b"id,text\n1,a\0b\n", "rows.csv:2: text holds a NUL byte"),
    ],
)
def test_broken_csv_is_refused_and_never_two_rows_in_one(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(RequestError) as error:
        read(tmp_path, "rows.csv", content)
    assert message in str(error.value)


def test_ids_are_texts_or_whole_numbers_and_else_the_line(tmp_path: Path) -> None:
    content = b'{"id": "a", "text": "x"}\n{"id": 7, "text": "x"}\n{"id": null, "text": "x"}\n{"text": "x"}\n'
    assert [row[0] for row in read(tmp_path, "rows.jsonl", content)] == ["a", "7", "3", "4"]


@pytest.mark.parametrize("value", ["[1]", "{}", "true", "1.5", "NaN"])
def test_an_id_of_another_kind_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(RequestError, match=r"rows\.jsonl:1: id is .*; expected a string or a whole number"):
        read(tmp_path, "rows.jsonl", f'{{"id": {value}, "text": "x"}}\n'.encode())


def test_a_number_that_is_too_long_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r":1: not JSON \(Exceeds the limit"):
        read(tmp_path, "rows.jsonl", b'{"text": "x", "id": ' + b"9" * 5000 + b"}\n")
