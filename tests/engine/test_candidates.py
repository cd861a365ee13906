"""What a text offers: its numbers, its dates, its runs of words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.engine.candidates import collapsed, dates_of, numbers_of, tokens_of
from cascade.engine.text_features import TextView
from cascade.formats.number_grammar import LARGEST


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.50", 1234.5),
        ("1.234,50", 1234.5),
        ("1 234 567,8", 1234567.8),
        ("1'234.50", 1234.5),
        ("1,234", 1234),
        ("1,234", 1.234),
        ("12,5", 12.5),
        ("net -45", -45),
        ("$1.2k", 1200),
        ("EUR1200", 1200),
        ("12 million", 12_000_000),
        ("two laptops", 2),
        ("19%", 19),
        ("0", 0),
        ("x\u00a012\u202f345 y", 12345),
    ],
)
def test_a_number_is_read_as_it_is_written(text: str, value: float) -> None:
    assert value in [each.value for each in numbers_of(text)]


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-04",
        "2026/3/4",
        "04.03.2026",
        "4.3.26",
        "4 March 2026",
        "4th of March, 2026",
        "Mar 4, 2026",
        "MARCH 4 2026",
        "4-Mar-2026",
        "4. März 2026",
        "4 de marzo de 2026",
        "20260304",
        "03/04/2026",
        "4/3/2026",
    ],
)
def test_a_date_becomes_iso(text: str) -> None:
    assert "2026-03-04" in [each.value for each in dates_of(f"on {text}.")]


@pytest.mark.parametrize("text", ["31 February 2026", "2026-13-01", "4 March", "99/99/2026", "1.2", "12-34"])
def test_what_is_no_date_is_none(text: str) -> None:
    assert dates_of(text) == []


def test_a_date_that_can_be_read_in_two_ways_stands_there_twice() -> None:
    assert {each.value for each in dates_of("3/4/2026")} == {"2026-03-04", "2026-04-03"}


@given(st.text(max_size=200))
def test_any_text_offers_values_that_stand_in_it(text: str) -> None:
    for number in numbers_of(text):
        assert abs(number.value) <= LARGEST
        assert 0 <= number.start < number.end <= len(text)
    view = TextView(text)
    spans = view.spans(4, ".")
    assert all(value and value in collapsed(text) for value in spans.values)
    assert len(spans.values) == len(spans.first) == len(spans.extra)
    for kind in ("number", "integer", "date"):
        found = view.found(kind)
        assert all(0 <= a <= b < len(tokens_of(text)) for a, b in zip(found.first, found.last, strict=True))


def test_a_run_of_words_begins_and_ends_at_words_of_one_line() -> None:
    values = TextView("Acme GmbH, INV2024-1\nBerlin").spans(4, "").values
    assert {"Acme", "Acme GmbH", "INV2024", "INV2024-1", "Berlin"} <= set(values)
    assert not {"INV", "2024", "GmbH,", "1 Berlin"} & set(values)
    assert "GmbH," in TextView("Acme GmbH, x").spans(2, ",").values
