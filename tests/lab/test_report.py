"""The report page: nothing from elsewhere, nothing that a name can inject, and a picture for every case."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from policies import certificate, policy, row, stage

from cascade.lab.evaluation.evaluation import Evaluation, evaluate
from cascade.lab.evaluation.formatting import duration, money, per_thousand, percent
from cascade.lab.evaluation.report import HEADLINES, report_page
from cascade.lab.tables.outcomes import from_rows
from cascade.svg import Axis, Plot, axis_around

EVIL = '<script>alert("x")</script>'


class Tags(HTMLParser):
    """Collects tags and attributes, and whether each element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.result: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.result.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.result.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def evaluation(names: tuple[str, str] = ("small", "big"), rows: int = 120) -> Evaluation:
    draw, (small, big) = np.random.default_rng(0), names
    table = []
    for k in range(rows):
        outcomes = {small: (int(draw.random() < 0.7), 0.001, float(draw.random())),
                    big: (int(draw.random() < 0.9), 0.01, None)}  # fmt: skip
        table.append(row(str(k), EVIL if k % 3 else "other", **outcomes))
    tuned = policy(stage(small, 0.5), stage(big), certificates=[certificate(small, 0.02)])
    return evaluate(tuned, from_rows(table), by=["topic"], resamples=50)


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    page = report_page(evaluation(), "title")
    tags = Tags(page)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in tags.result}
    attributes = {name for _, result in tags.result for name in result}
    assert not {name for name in attributes if name.startswith("on")} | {"src", "href"} & attributes
    assert "url(" not in page
    assert "@import" not in page


def test_names_cannot_inject_markup() -> None:
    page = report_page(evaluation((f"a{EVIL}", 'b"onload="x')), f"{EVIL} & more")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert 'onload="' not in page


def test_every_headline_stands_on_the_page_with_its_interval() -> None:
    result = evaluation()
    page = report_page(result, "title")
    for name, (title, show, _) in HEADLINES.items():
        assert title in page
        assert show(result.figures[name].value) in page
    assert "did not hold" in page


def test_the_pictures_are_well_formed_and_labelled() -> None:
    pictures = re.findall(r"<svg.*?</svg>", report_page(evaluation(), "title"), re.DOTALL)
    assert sum("role" in ET.fromstring(picture).attrib for picture in pictures) == 3


def test_it_has_a_phone_a_print_and_a_dark_style() -> None:
    page = report_page(evaluation(), "title")
    assert "width=device-width" in page
    for query in ("prefers-color-scheme:dark", "@media print", "max-width"):
        assert query in page


@pytest.mark.parametrize(
    "tuned",
    [policy(stage("small")), policy(stage("small", "never")), policy(stage("small", 0.5), stage("big"))],
)
def test_a_table_with_one_row_or_no_confidence_still_makes_a_page(tuned: Any) -> None:
    for sure in (None, 0.7):
        table = from_rows([row("1", "x", small=(1, 0.0, sure), big=(0, 0.0, None))])
        assert "</html>" in report_page(evaluate(tuned, table, by=["topic"], resamples=20), "t")


def test_labels_never_cover_each_other_or_leave_the_picture() -> None:
    plot = Plot("many", Axis("x", 0, 1, percent), Axis("y", 0, 1, percent))
    for number in range(30):
        plot.dot((0.5 + number / 500, 0.5), 0, "tip")
        plot.label((0.5 + number / 500, 0.5), f"a rather long name {number}")
    labels = plot.taken[1::2]
    assert 1 <= len([part for part in plot.parts if part.startswith("<text")]) < 30
    for one in labels:
        assert one[0] >= 0
        assert one[2] <= 440


def test_costs_of_nothing_get_a_short_axis() -> None:
    assert axis_around("cost", [0.0, 0.0], str, room_at_zero=1e-3).high == 1e-3


@pytest.mark.parametrize("high", [1e-9, 0.004, 1.0, 37.0, 1e6])
def test_an_axis_has_a_few_round_ticks(high: float) -> None:
    ticks = Axis("x", 0.0, high, str).ticks()
    assert 3 <= len(ticks) <= 7
    assert ticks[0] == 0.0
    assert ticks[-1] <= high * 1.001


def test_figures_read_well() -> None:
    assert [money(usd) for usd in (0, 0.000123456, 0.5, 1234.6)] == ["$0", "$0.000123", "$0.5", "$1,235"]
    assert per_thousand(0.0021) == "$2.1 per 1,000"
    assert [duration(seconds) for seconds in (0.0123, 2.5)] == ["12.3 ms", "2.5 s"]
    assert [percent(share) for share in (1.0, 0.005, 0.97312)] == ["100%", "0.5%", "97.3%"]
