"""Files of labelled rows in every dialect that programs write: the survey gives the rows back."""

from __future__ import annotations

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cascade.errors import RequestError
from cascade.lab.reading import files
from cascade.lab.reading.row_reading import RowOptions, read_labelled

quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
SEPARATORS = ",;\t|"
UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
# Letters of Windows-1252 among ASCII as in a Western European language: never two accents in a row.
western = st.lists(
    st.tuples(st.text("abcdefg hij,;'\"|\n", min_size=1, max_size=6), st.sampled_from(["", "é", "€"])),
    min_size=1,
    max_size=5,
).map(lambda parts: "".join(a + b for a, b in parts))  # fmt: skip
anything = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
labels = st.sampled_from(["billing", "card lost", "où", "a,b;c"])


def words(text: str) -> str:
    """A text that is free text for certain, whatever is in it."""
    return f"please help me with {text} today"


def tables(texts: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(texts.map(words), labels), min_size=2, max_size=8)


def written(rows: list[tuple[str, str]], separator: str, end: str, header: tuple[str, str] | None) -> str:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows(
        [*([("id", *header)] if header else []), *((f"{n}", *row) for n, row in enumerate(rows))]
    )
    return sink.getvalue()


def read(path: Path, content: bytes, **told: Any) -> list[tuple[str, str]]:
    path.write_bytes(content)
    columns = {key: told.pop(key, None) for key in ("text", "label")}
    return [row[1:] for row in read_labelled(path, told=RowOptions(**told), **columns).rows]


def refusal(path: Path, content: bytes, **told: Any) -> str:
    with pytest.raises(RequestError) as error:
        read(path, content, **told)
    return str(error.value).replace(f"{path.parent}/", "")


@quiet
@given(
    rows=tables(anything),
    separator=st.sampled_from(SEPARATORS),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(UNICODE),
    suffix=st.sampled_from([".csv", ".txt", ".CSV"]),
)
def test_csv_of_any_separator_and_unicode_is_read_without_being_told(
    tmp_path: Path, rows: list[tuple[str, str]], separator: str, end: str, encoding: str, suffix: str
) -> None:
    content = written(rows, separator, end, ("text", "label")).encode(encoding)
    assert read(tmp_path / f"rows{suffix}", content) == rows


@quiet
@given(
    rows=tables(western), separator=st.sampled_from(SEPARATORS), encoding=st.sampled_from(["cp1252", "utf-8"])
)
def test_western_european_files_are_read_and_a_guess_is_said(
    tmp_path: Path, rows: list[tuple[str, str]], separator: str, encoding: str
) -> None:
    path = tmp_path / "rows.csv"
    content = written(rows, separator, "\r\n", ("Text", "Label")).encode(encoding)
    path.write_bytes(content)
    found = read_labelled(path, None, None, RowOptions())
    assert [row[1:] for row in found.rows] == rows
    guessed = any("Windows-1252 (a guess)" in remark for remark in found.remarks)
    assert guessed == (not content.isascii() and encoding == "cp1252")


@quiet
@given(
    rows=tables(anything), form=st.sampled_from([".jsonl", ".ndjson", ".json", ".data"]), listed=st.booleans()
)
def test_json_lines_and_lists_are_read(
    tmp_path: Path, rows: list[tuple[str, str]], form: str, listed: bool
) -> None:
    objects = [{"message": text, "intent": label, "n": n} for n, (text, label) in enumerate(rows)]
    lists = form == ".json" or (listed and form == ".data")
    content = json.dumps(objects, indent=1) if lists else "\n".join(json.dumps(row) for row in objects)
    assert read(tmp_path / f"rows{form}", content.encode()) == rows


@quiet
@given(rows=tables(anything))
def test_parquet_is_read_by_its_content(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    parquet.write_table(
        arrow.table({"body": [row[0] for row in rows], "queue": [row[1] for row in rows]}), sink
    )
    assert read(tmp_path / "rows.dat", sink.getvalue()) == rows


def test_what_is_told_is_taken(tmp_path: Path) -> None:
    rows = [("жду карту уже две недели", "карта"), ("где мои деньги", "деньги")]
    content = written(rows, "!", "\n", ("text", "label")).encode("cp1251")
    assert read(tmp_path / "rows.csv", content, encoding="cp1251", separator="!") == rows
    assert "--encoding 'nonsense' is unknown" in refusal(tmp_path / "a.csv", content, encoding="nonsense")
    assert "a.csv:1: not valid ascii" in refusal(tmp_path / "a.csv", b"\xff", encoding="ascii")
    assert "--separator is '\\n'; expected one character" in refusal(
        tmp_path / "a.csv", b"a,b\n1,2\n", separator="\n"
    )


def test_a_first_line_that_is_a_row_is_no_header(tmp_path: Path) -> None:
    lines = [
        "ham\tGo until jurong point",
        "spam\tWin a prize now",
        "ham\tOk lar joking with you",
        "spam\tFree entry",
    ]
    found = read(tmp_path / "sms.tsv", "\n".join(lines).encode(), label="1", text="2")
    assert found == [(line.split("\t")[1], line.split("\t")[0]) for line in lines]
    assert (
        read(tmp_path / "sms.tsv", "\n".join([*lines, "ham\tI am at home", "spam\tA prize"] * 2).encode())[0][
            1
        ]
        == "ham"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", b" \n \n", "a.csv: the file is empty"),
        ("a.csv", b"text,label\n", "a.csv: no rows"),
        ("a.csv", b"just some prose\nwithout columns\n", "one column, 'just some prose'"),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe", "a.csv:1: not valid UTF-8"),
        ("a.csv", b"PK\x03\x04 whatever", "a spreadsheet or an archive; save it as CSV"),
        ("a.csv", b"text,label\n" + b"\xc0\xd2\xc5\xd7\xc5\xc4,a\n" * 3, "a.csv:2: not UTF-8, and no"),
        ("a.csv", "text,label\nä,x\n".encode() + "ö,y\n".encode("cp1252"), "a.csv:3: not UTF-8, while"),
        ("a.csv", b"\xef\xbb\xbftext,label\n\xe4,x\n", "a.csv:2: not valid UTF-8"),
        ("a.csv", b'text,label\n"never closed,a\nb,c\n', "a.csv:2: not CSV"),
        ("a.csv", b"text;label\na b;x;y\nc d;z\n", "a.csv:2: 3 cells, the header has 2"),
        ("a.csv", b"a;b,c\nx;y,z\n", "comma and semicolon may both"),
        ("a.json", b"[{]", "a.json: not JSON"),
        ("a.json", b"[" * 100_000, "a.json: not JSON (too deep)"),
        ("a.json", b'[{"text": "a", "text": "b"}]', "key 'text' stands twice"),
        ("a.jsonl", b'{"text": "a b", "label": "x"}\n{"text": 7, "label": "x"}\n', "a.jsonl:2: text is int"),
        ("a.jsonl", b'{"text": "a b", "label": ["x", "y"]}\n', "a.jsonl:1: label is \"['x', 'y']\", a list"),
        ("a.jsonl", b'{"text": "a b", "label": NaN}\n', "a.jsonl:1: label is 'nan', a float"),
        ("a.jsonl", b'{"text": "a b", "label": "x"}\n3\n', "a.jsonl:2: expected an object"),
        ("a.csv", b'text,label\na b,"x\ny"\n', "a.csv:2: label holds a line break"),
        ("a.csv", b"text,label\na b,x\x07\n", "a.csv:2: label holds the control character U+0007"),
        ("a.csv", b"text,label\na b," + b"x" * 201 + b"\n", "a.csv:2: label has 201 characters"),
        ("a.csv", b"text,label\na\0b,x\n", "a.csv:2: text holds a NUL"),
        ("a.parquet", b"PAR1 no more", "a.parquet: not a Parquet file"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    assert message in refusal(tmp_path / name, content)


def test_all_broken_rows_are_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path / "a.csv", b"text,label\na b,x\nb c,y\x01\nc d,z\nd e,u\x02\n")
    assert [line.split(":")[1] for line in message.splitlines()] == ["3", "5"]


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.csv"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)  # a sparse file: it takes no room
    with pytest.raises(RequestError, match=r"has 1,000 MB; at most 200 MB are read.*shuf -n 100000"):
        read_labelled(path, None, None, RowOptions())


def test_a_pipe_is_never_read_further_than_a_file_may_be_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    with pytest.raises(RequestError, match="is longer; at most"):
        read_labelled("/dev/zero", None, None, RowOptions())


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(RequestError, match=r"give a \.csv"):
            read_labelled(path, None, None, RowOptions())


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("id,Text,Label", "Text", "Label"),
        ("created,subject,body,queue", "body", "queue"),
        ("label,n,what was said,x", "what was said", "label"),
    ],
)
def test_columns_are_found_by_name_and_content(tmp_path: Path, header: str, text: str, label: str) -> None:
    names = header.split(",")
    rows = [dict.fromkeys(names, f"{n}") for n in range(8)]
    for n, row in enumerate(rows):
        row |= {text: f"a message of several words, {n}", label: "one" if n % 2 else "two"}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_labelled(tmp_path / "rows.jsonl", None, None, RowOptions())
    assert found.columns[:2] == (text, label)
    assert len(found.columns.remarks) == 2


def test_of_several_columns_that_may_be_labels_none_is_guessed(tmp_path: Path) -> None:
    rows = [
        f"a message number {n} of mine;{'high' if n % 2 else 'low'};{'de' if n % 3 else 'fr'}"
        for n in range(9)
    ]
    content = "\n".join(["note;size;country", *rows]).encode()
    message = refusal(tmp_path / "a.csv", content)
    assert "'size' (2 values), 'country' (2 values); --label COL tells in which" in message
    assert len(read(tmp_path / "a.csv", content, label="country")) == 9
    assert "no column 'city', which --label names; columns are 'note', 'size', 'country'" in refusal(
        tmp_path / "a.csv", content, label="city"
    )
    assert "both name 'note'" in refusal(tmp_path / "a.csv", content, label="note", text="note")
    assert "no column 'city', which --slice names" in refusal(
        tmp_path / "a.csv", content, label="country", slice="city"
    )


@quiet
@given(
    content=st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-16", "surrogatepass"))
    | st.text(st.sampled_from("a1,;\t|\"\n\r'[]{}:é\u2028\0 "), max_size=200).map(str.encode),
    suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet", ""]),
    told=st.sampled_from([None, "utf-16", "cp1252", "idna", "zip", "undefined"]),
)
def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path: Path, content: bytes, suffix: str, told: str | None
) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    with suppress(RequestError):
        rows = read_labelled(path, None, None, RowOptions(encoding=told)).rows
        assert all(row.text.strip() and row.label.strip() for row in rows)
