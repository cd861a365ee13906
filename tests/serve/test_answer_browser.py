"""A person answers a waiting run in a real browser, in `cascade ui` and in `cascade serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import driver, needs_a_browser, see, shows, until
from scripting import checked, scripted, write
from serving import running, serving

from cascade import Cascade

__all__ = ["driver"]  # a fixture
pytestmark = [*needs_a_browser]

PERSON = {
    "kind": "human",
    "tier": "human",
    "question": "A customer writes:\n{text}\nWhich form do they need?",
}


@pytest.mark.parametrize("way", ["ui", "serve"])
def test_a_person_reads_the_question_and_answers_it(driver: Any, tmp_path: Path, way: str) -> None:
    stages = [checked("first", "small"), {"name": "desk", "ask": ["clerk"]}]
    path = write(tmp_path, {"small": scripted("no", confidence=0.1), "clerk": PERSON}, stages)
    database = str(tmp_path / "traces.db")
    with Cascade.load(path, trace_db=database) as cascade:
        run = cascade.invoke("I lost my card abroad, and my passport.").run
    started = serving(path) if way == "serve" else running(str(path), "--trace-db", database, "--no-open")
    with started as (_, address):
        url = address.rstrip("/")
        assert "asks a person: A customer writes:" in see(driver, f"{url}/?status=waiting")
        for width, dark in ((1280, False), (400, True)):
            text = see(driver, f"{url}/runs/{run}", width=width, dark=dark)
            assert "Which form do they need?" in text
            assert "Not reached" not in text
        box = driver.find_element("css selector", ".ask textarea")
        assert box.accessible_name == "Answer"
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
        box.send_keys("Form 7,\nsigned")
        driver.find_element("css selector", ".ask button").click()
        until(driver, lambda: not driver.find_elements("css selector", ".ask"))
        assert "Form 7," in shows(driver, "accepted")
