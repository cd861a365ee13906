"""Drawings: every stage, model, threshold and way of a graph, and names that mean something to the format."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from scripting import checked, scripted, write

from cascade.config.draw import mermaid
from cascade.config.drawing import svg
from cascade.config.load import load_graph
from cascade.spec.schema import Graph

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def desk(tmp_path: Path) -> Graph:
    labels = {"labels": ["this & that", '<b>"x"</b>']}
    models = {
        "door": scripted("this & that", tier="haiku", **labels),
        "nano": scripted("yes", tier="haiku"),
        "small": scripted("yes", tier="sonnet"),
        "large": scripted("yes", tier="opus"),
    }
    to = {"this & that": "style", '<b>"x"</b>': "other"}
    stages = [
        {
            "name": "door",
            "gate": {"by": "classifier", "model": "door", "to": to, "accept": 0.6},
            "escalate": "last",
        },
        checked("style", "nano", accept=0.75, escalate="last"),
        checked("other", "nano", "small", accept=0.8, by="agreement"),
        checked("more", "small", accept=0.9, by="agreement", samples=3),
        {"name": "last", "ask": ["large"]},
    ]
    return load_graph(write(tmp_path, models, stages)).graph


def test_mermaid_shows_stages_models_thresholds_and_ways(desk: Graph) -> None:
    text = mermaid(desk)
    for line in [
        "flowchart TD",
        'request(["request"])',
        'stage0{{"door<br/>gate: classifier door"}}',
        'stage1["style<br/>nano (haiku)<br/>checked by logprob p10"]',
        'stage3["more<br/>small (sonnet)<br/>3 samples each<br/>checked by agreement"]',
        'stage4["last<br/>large (opus)"]',
        "request --> stage0",
        'stage0 -->|"this #38; that"| stage1',
        'stage0 -->|"gate #60; 0.6"| stage4',
        'stage1 -->|"#60; 0.75"| stage4',
        'stage4 -->|"no answer"| finish',
        'finish(["abstain"])',
        'stage1 ==>|"≥ 0.75"| answer',
        'stage4 ==>|"unchecked"| answer',
    ]:
        assert f"{line}\n" in text.replace("    ", ""), line


def test_mermaid_has_no_character_that_it_would_read(desk: Graph) -> None:
    for label in re.findall(r'"([^"]*)"', mermaid(desk)):
        assert not set(label.replace("<br/>", "")) & set("<>&|[]{}`")


def test_a_gate_before_asking_is_drawn_in_its_stage(tmp_path: Path) -> None:
    models = {"a": scripted("x"), "b": scripted("x")}
    gate = {"by": "keywords", "rules": {"a": ["a"], "b": ["b"]}, "accept": 0.6}
    graph = load_graph(
        write(tmp_path, models, [checked("first", "a", "b", gate=gate)], on_exhausted="best")
    ).graph
    text = mermaid(graph)
    assert "gate: keywords, asks the best 1" in text
    assert "gate #60; 0.6 / #60; 0.8" in text
    assert "best draft, or abstain" in text


def parts(picture: str) -> tuple[ET.Element, list[str]]:
    root = ET.fromstring(picture)
    return root, [element.text or "" for element in root.iter(f"{SVG}text")]


def test_svg_shows_stages_models_thresholds_and_ways(desk: Graph) -> None:
    _, texts = parts(svg(desk))
    names = ["request", "door", "style", "nano (haiku)", "this & that", '<b>"x"</b>', "abstain"]
    for text in [*names, "< 0.75", "gate < 0.6", "answer ≥ 0.75", "answer unchecked", "no answer"]:
        assert text in texts, text


def test_svg_stands_alone_and_follows_the_readers_colours(desk: Graph) -> None:
    picture = svg(desk)
    assert "prefers-color-scheme:dark" in picture
    root, _ = parts(picture)
    assert not [
        element for element in root.iter() if element.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}a")
    ]
    assert "href" not in picture
    assert set(re.findall(r"url\(([^)]*)\)", picture)) <= {"#head", "#yeshead"}
    assert re.findall(r"https?://[^\"' ]+", picture) == ["http://www.w3.org/2000/svg"]


def test_boxes_of_an_svg_do_not_overlap_and_lie_inside_the_picture(desk: Graph) -> None:
    root, _ = parts(svg(desk))
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    boxes = [
        tuple(float(element.attrib[key]) for key in ("x", "y", "width", "height"))
        for element in root.iter(f"{SVG}rect")
        if element.attrib["class"] not in ("page", "plate")
    ]
    assert len(boxes) == 7 + 4
    for x, y, w, h in boxes:
        assert left <= x
        assert top <= y
        assert x + w <= left + width
        assert y + h <= top + height
    for index, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[index + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_a_long_chain_is_drawn(tmp_path: Path) -> None:
    stages = [checked(f"s{index}", "nano") for index in range(60)]
    graph = load_graph(write(tmp_path, {"nano": scripted("x")}, stages)).graph
    assert svg(graph).count('class="answer"') == 60
