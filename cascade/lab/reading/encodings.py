"""Which encoding a file of text has: told, or UTF-8, or a guess that is said to be one."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

from cascade.errors import RequestError
from cascade.lab.tables.cells import check_is_text, decode_text

_HIGH = re.compile(rb"[\x80-\xff]")
_RUN = re.compile(rb"[\x80-\xff]+")
_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_UNDEFINED = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")  # in Windows-1252
# Western European words have one or two letters with accents in a row. In Greek, Cyrillic, Arabic or Chinese
# files of one or two bytes a character nearly every high byte has high neighbours.
_MAX_RUN = 2
_MAX_LONG_RUNS = 0.1


class Decoded(NamedTuple):
    """A file's text; `remark` says that its encoding is a guess, and shows what it makes of the file."""

    text: str
    encoding: str
    remark: str | None = None


def decode(name: str, data: bytes, encoding: str | None = None) -> Decoded:
    """Decode the bytes of the file `name`.

    Without `encoding` a byte-order mark decides, or else the text is UTF-8. What is not UTF-8 but may be
    Western European is read as Windows-1252, a superset of the printable part of Latin-1.

    Raises:
        RequestError: the encoding is unknown, the bytes are not in it, or no guess is safe; with the line.
    """
    check_is_text(name, data)
    if encoding is not None:
        return Decoded(_told(name, data, encoding), encoding)
    try:
        return Decoded(decode_text(name, data), "UTF-8")
    except RequestError:
        if b"\0" in data or data.startswith(codecs.BOM_UTF8):  # binary, or a mark that says what it is
            raise
    _refuse_mixed(name, data)
    runs = _RUN.findall(data)
    long = sum(len(run) > _MAX_RUN for run in runs)
    if _UNDEFINED.search(data) or long > _MAX_LONG_RUNS * len(runs):
        line = _line(data, _first(data))
        raise RequestError(
            f"{name}:{line}: not UTF-8, and no Western European text; save the file as UTF-8, or tell its "
            "encoding (--encoding cp1251, shift_jis, gb18030 …)"
        )
    text = data.decode("cp1252")
    return Decoded(text, "cp1252", _remark(data))


def _told(name: str, data: bytes, encoding: str) -> str:
    try:
        known = codecs.lookup(encoding)
        text = data.decode(encoding)
    except (LookupError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            where = f"{name}:{_line(data, error.start)}"
            raise RequestError(f"{where}: not valid {encoding}; give another --encoding") from None
        raise RequestError(f"--encoding {encoding!r} is unknown; try utf-8, cp1252 or latin-1") from None
    return text.removeprefix("\ufeff") if known.name.startswith("utf") else text


def _refuse_mixed(name: str, data: bytes) -> None:
    """Refuse bytes that are UTF-8 in one place and something else in another.

    Two neighbouring characters of Windows-1252 that look like UTF-8, `Ã©` for instance, occur in no language,
    so one such sequence is enough.
    """
    sequence = _SEQUENCE.search(data)
    if sequence is None:
        return
    wrong, right = _line(data, _first(data)), _line(data, sequence.start())
    raise RequestError(
        f"{name}:{wrong}: not UTF-8, while line {right} is; the file mixes encodings, perhaps because files "
        "were joined; save every part as UTF-8 first, or tell one for all (--encoding cp1252)"
    )


def _first(data: bytes) -> int:
    """Return where `data` stops being UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _line(data: bytes, position: int) -> int:
    return sum(1 for _ in _LINE_END.finditer(data, 0, position)) + 1


def _remark(data: bytes) -> str:
    found = _HIGH.search(data)
    start = found.start() if found else 0
    before, after = data[max(0, start - 20) : start], data[start : start + 20]
    words = _LINE_END.split(before)[-1] + _LINE_END.split(after)[0]
    shown = words.decode("cp1252").strip()
    return (
        f"not UTF-8; read as Windows-1252 (a guess): line {_line(data, start)} has {shown!r}; "
        "if that looks wrong, tell the encoding (--encoding latin-1, cp1250, mac_roman …)"
    )
