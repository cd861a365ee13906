"""The shared parts of all pictures: what is escaped, which colours there are, and both kinds of frame."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import cascade.serve
from cascade.lab.evaluation.report import STYLE
from cascade.svg import DARK, LIGHT, PRINT, Axis, Frame, Plot, element, fluid, style_sheet, text, variables

EVIL = '"><script>alert(1)</script>&'


def test_texts_and_attributes_cannot_become_markup() -> None:
    picture = ET.fromstring(element("g", text(EVIL, class_=EVIL), aria_label=EVIL))
    assert picture.attrib == {"aria-label": EVIL}
    assert [(child.tag, child.text, child.attrib["class"]) for child in picture] == [("text", EVIL, EVIL)]


def test_numbers_have_one_decimal_and_none_leaves_an_attribute_out() -> None:
    assert element("rect", x=1 / 3, rx=3, y=None, class_="box") == '<rect x="0.3" rx="3" class="box"/>'


def test_every_colour_exists_in_light_in_dark_and_on_paper() -> None:
    assert LIGHT.keys() == DARK.keys() == PRINT.keys()
    assert "prefers-color-scheme" in variables()
    assert "@media print" in variables(printed=True)


@pytest.mark.parametrize("page", ["viewer", "report"])
def test_pages_use_only_colours_of_the_palette(page: str) -> None:
    viewer = Path(cascade.serve.__file__).parent / "static" / "style.css"
    sheet = viewer.read_text() if page == "viewer" else STYLE
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", sheet)) <= LIGHT.keys() | {"mono"}
    own = sheet.replace(variables(printed=True), "")
    assert re.findall(r"#[0-9a-f]{3,8}\b", own) == []


def test_a_picture_that_stands_alone_names_its_colours() -> None:
    sheet = style_sheet(".box{fill:${good_bg}}")
    assert LIGHT["good-bg"] in sheet
    assert DARK["good-bg"] in sheet
    assert "var(" not in sheet


@pytest.mark.parametrize("frame", [Frame(), fluid()])
def test_a_plot_is_well_formed_in_both_frames(frame: Frame) -> None:
    plot = Plot(EVIL, Axis("x"), Axis("y"), frame)
    plot.line([(0, 0), (1, 1)], "curve")
    plot.area([(0, 0), (1, 1), (1, 0)], "band")
    plot.block((0.2, 0.0), (0.1, 0.5), "tier", EVIL)
    plot.rule(0.5, EVIL)
    plot.cross((0.6, 0.4), EVIL)
    plot.below(["0", "1"])
    picture = ET.fromstring(plot.svg())
    assert [child.text for child in picture if child.tag == "title"] == [EVIL]
    assert EVIL in [child.text for child in picture.iter("text")]
    positions = [float(rect.attrib["x"].rstrip("%")) for rect in picture.iter("rect")]
    assert positions == [pytest.approx(20.0 if frame.fluid else 134.8)]
