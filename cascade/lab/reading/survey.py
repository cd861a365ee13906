"""What a user's rows are: read from any file, counted, checked, and grouped so that no split cheats.

`survey` reads a file; `survey_rows` looks at rows that come from elsewhere (stored runs). Both say what they
found and refuse what nothing can be learned from, always with the fix.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cascade.errors import RequestError
from cascade.lab.reading.answers import answers_path, join_answers, read_answers
from cascade.lab.reading.columns import Columns, is_no_text
from cascade.lab.reading.label_checks import alike, check_labels, merged, rare_labels
from cascade.lab.reading.languages import Languages, guess_languages
from cascade.lab.reading.near_duplicates import near_duplicate_groups, normal_form
from cascade.lab.reading.row_reading import Place, ReadRows, RowOptions, read_labelled
from cascade.lab.tables.rows import LabelledRow

_SHOWN = 5  # of each kind of finding in the lines for the terminal
_WIDTH = 60  # characters of a text there
_LARGE_GROUP = 0.1  # of the rows: so large a family of near-duplicates is worth a warning


class Contradiction(NamedTuple):
    """One text that has several labels, and the ids of each one's rows: their lines, or their runs."""

    text: str
    labels: dict[str, list[str]]


@dataclass(frozen=True)
class Survey:
    """Labelled rows and what was found in them.

    Attributes:
        name: where the rows are from, for messages.
        sha256: of the file, in hexadecimal.
        rows: the rows with a text and a label, each with its line as its id.
        groups: each row's group, numbered from 0: rows that repeat or nearly repeat each other, or that share
            the told group, are of one, and stay on one side of every split.
        slices: each row's value of the slice column; without one, who made its label; None if neither is
            known.
        places: each row's place.
        columns: which columns were read.
        counts: rows a label, most first.
        duplicates: rows that repeat an earlier text, whatever its label.
        near_duplicates: further rows in the group of another text.
        contradictions: texts with several labels.
        empty: rows without a text, left out.
        unlabelled: texts without a label, left out.
        dropped: rare labels that were left out, with their rows.
        longest: characters of the longest text.
        languages: a guess at the texts' languages.
        remarks: warnings, for people.
        form: format, separator and encoding in words.
        unit: what a row's id names: a line, or a run.
        teacher_graded: graded runs in which the teacher was right, and those that tell whether it was.
    """

    name: str
    sha256: str
    rows: list[LabelledRow]
    groups: list[int]
    slices: list[str] | None
    places: list[Place]
    columns: Columns
    counts: dict[str, int]
    duplicates: int
    near_duplicates: int
    contradictions: list[Contradiction]
    empty: int
    unlabelled: list[str]
    dropped: dict[str, int]
    longest: int
    languages: Languages
    remarks: list[str] = field(default_factory=list)
    form: str = ""
    unit: str = "line"
    teacher_graded: tuple[int, int] = (0, 0)

    @property
    def sources(self) -> dict[str, int]:
        """Rows a source of labels, most first; empty where all labels are the file's."""
        return dict(Counter(place.source for place in self.places if place.source).most_common())

    @property
    def asked(self) -> list[bool]:
        """Whether each text was picked for a person to label, so that it stands for no others."""
        return [place.asked for place in self.places]

    @property
    def times(self) -> list[str] | None:
        """When each row came, for a split by time; '' of a text that was asked, None if others do not say."""
        times = ["" if place.asked else place.time for place in self.places]
        known = [time for time in times if time is not None]
        return known if any(known) and len(known) == len(times) else None

    def lines(self) -> list[str]:
        """Return what was found, in lines for a terminal; texts of the file are shortened."""
        return list(_lines(self))


def survey(
    path: str | Path, text: str | None = None, label: str | None = None, options: RowOptions | None = None
) -> Survey:
    """Read and look through the rows of a file: CSV, TSV, JSONL, a list in JSON, or Parquet.

    A person's answers that are kept beside the file (`answers`) count instead of its labels.

    Args:
        path: the file.
        text: the column of the texts; None: guessed from names and content.
        label: the column of the labels; None: guessed.
        options: what else the user tells.

    Raises:
        RequestError: the file cannot be read, rows are broken (all are listed by line), or nothing can be
            learned from them; the message says what to do.
    """
    told = options or RowOptions()
    read = join_answers(read_labelled(path, text, label, told), read_answers(answers_path(Path(path))))
    return survey_rows(str(path), read, told)


def survey_rows(name: str, read: ReadRows, options: RowOptions | None = None) -> Survey:
    """Look through rows that were read; of the `options` those that speak of labels count.

    Args:
        name: where the rows are from, for messages.
        read: the rows.
        options: what the user tells.

    Raises:
        RequestError: nothing can be learned from them.
    """
    told = options or RowOptions()
    _check_texts(name, read)
    rows, places, dropped = _kept(read, told)
    counts = Counter(row.label for row in rows)
    check_labels(name, counts, read.columns.label, told.min_rows)
    forms = [normal_form(row.text) for row in rows]
    groups = near_duplicate_groups(forms, [place.group for place in places])
    languages = guess_languages([row.text for row in rows])
    return Survey(
        name=name,
        sha256=read.sha256,
        rows=rows,
        groups=groups,
        slices=_slices(places, told),
        places=places,
        columns=read.columns,
        counts=dict(counts.most_common()),
        duplicates=len(forms) - len(set(forms)),
        near_duplicates=len(set(forms)) - len(set(groups)),
        contradictions=_contradictions(forms, rows),
        empty=read.empty,
        unlabelled=read.unlabelled,
        dropped=dropped,
        longest=max(len(row.text) for row in rows),
        languages=languages,
        remarks=[*read.remarks, *_warnings(counts, rows, groups, languages)],
        form=read.form,
        unit=read.unit,
        teacher_graded=read.teacher_graded,
    )


def _slices(places: Sequence[Place], told: RowOptions) -> list[str] | None:
    """Return each row's slice; who made its label where several did and no column is told."""
    if told.slice is not None:
        return [place.slice or "" for place in places]
    sources = [place.source for place in places if place.source is not None]
    return sources if len(sources) == len(places) else None


def _check_texts(name: str, read: ReadRows) -> None:
    if read.rows and is_no_text([row.text for row in read.rows]):
        shown = ", ".join(repr(row.text[:30]) for row in read.rows[:3])
        raise RequestError(
            f"{name}: column {read.columns.text!r} holds numbers or ids, no texts: {shown}; "
            "--text COL names another column"
        )


def _kept(read: ReadRows, told: RowOptions) -> tuple[list[LabelledRow], list[Place], dict[str, int]]:
    """Return the rows to learn from with their places, and the rare labels that were left out."""
    rows = read.rows
    if told.merge_labels:
        names = merged(Counter(row.label for row in rows))
        rows = [row._replace(label=names.get(row.label, row.label)) for row in rows]
    dropped = rare_labels(Counter(row.label for row in rows), told.min_rows) if told.drop_rare else {}
    kept = [index for index, row in enumerate(rows) if row.label not in dropped]
    return [rows[index] for index in kept], [read.places[index] for index in kept], dropped


def _contradictions(forms: Sequence[str], rows: Sequence[LabelledRow]) -> list[Contradiction]:
    first: dict[str, LabelledRow] = {}
    labels: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for form, row in zip(forms, rows, strict=True):
        first.setdefault(form, row)
        labels[form][row.label].append(row.id)
    return [Contradiction(first[form].text, dict(own)) for form, own in labels.items() if len(own) > 1]


def _warnings(
    counts: Mapping[str, int], rows: Sequence[LabelledRow], groups: Sequence[int], languages: Languages
) -> Iterator[str]:
    for members in alike(counts)[:_SHOWN]:
        named = ", ".join(f"{label!r} ({counts[label]} rows)" for label in members)
        yield f"labels differ only in case or spaces: {named}; --merge-labels makes one of them"
    families: dict[str, set[int]] = defaultdict(set)
    for row, group in zip(rows, groups, strict=True):
        families[row.label].add(group)
    single = [label for label, own in families.items() if len(own) == 1]
    if single:
        named = ", ".join(repr(label) for label in single[:_SHOWN])
        yield f"all rows of {named} nearly repeat one another: nothing measures these labels; add other texts"
    largest = Counter(groups).most_common(1)[0][1]
    if largest > max(2, _LARGE_GROUP * len(rows)):
        yield f"{largest} rows nearly repeat one another, and stay on one side of every split"
    if languages.remark:
        yield languages.remark


def _lines(found: Survey) -> Iterator[str]:
    yield f"{found.name}: {found.form}" if found.form else found.name
    best, worst = next(iter(found.counts.items())), next(reversed(found.counts.items()))
    yield (
        f"{len(found.rows):,} rows, {len(found.counts)} labels; {best[1]:,} rows of {_short(best[0])} "
        f"(most), {worst[1]:,} of {_short(worst[0])} (fewest)"
    )
    yield (
        f"{found.duplicates:,} duplicates, {found.near_duplicates:,} near-duplicates, "
        f"{len(found.contradictions):,} contradictions; longest text {found.longest:,} characters"
    )
    left_out = [
        f"{found.empty:,} without a text" if found.empty else "",
        f"{len(found.unlabelled):,} without a label" if found.unlabelled else "",
        f"{sum(found.dropped.values()):,} of {len(found.dropped)} rare labels" if found.dropped else "",
    ]
    if any(left_out):
        yield f"left out: {', '.join(part for part in left_out if part)}"
    for text, labels in found.contradictions[:_SHOWN]:
        said = "; ".join(f"{_short(label)} in {found.unit} {_listed(ids)}" for label, ids in labels.items())
        yield f"contradiction: {_short(text)}: {said}"
    if len(found.contradictions) > _SHOWN:
        yield f"… and {len(found.contradictions) - _SHOWN:,} more contradictions"
    yield from (f"note: {remark}" for remark in found.remarks)


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more


def _short(text: str) -> str:
    return repr(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…")
