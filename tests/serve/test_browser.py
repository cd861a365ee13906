"""The viewer in a real browser, used as a person would: by keyboard, wide and narrow, light and dark.

Needs Debian's `chromium` and `chromium-driver`, and `selenium` from PyPI. Set CASCADE_SCREENSHOTS to a
folder to keep what was seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import driver, needs_a_browser, see, shows, until
from runs_maker import WRITTEN, quick, run, step
from serving import running

from cascade.records import Request
from cascade.trace import TraceStore

__all__ = ["driver"]  # a fixture
pytestmark = [*needs_a_browser]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("browser") / "runs.db"
    with TraceStore(str(database)) as store:
        for number in range(60):
            asked = Request(text=f"Where is card number {number}?")
            store.write(quick(f"01R{number:03d}", request=asked, confidence=0.9 + number / 1000))
        store.write(run("01ZZ", request=Request(text="I was charged twice " + "and again " * 60)))
        store.write(run("01ZY", trace=(step("first", "no_estimate", WRITTEN),), text="Paris, I think"))
    with running("--trace-db", str(database), "--no-open") as (_, url):
        yield url


def requested(driver: Any) -> set[str]:
    """The addresses that pages have asked for."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return set(sent)


def test_a_person_finds_a_run_reads_why_and_grades_it(driver: Any, viewer: str) -> None:
    from selenium.webdriver.common.keys import Keys

    see(driver, viewer)
    driver.switch_to.active_element.send_keys(Keys.TAB)
    skip = driver.switch_to.active_element
    assert (skip.text, skip.rect["x"] >= 0) == ("Skip to the content", True)
    skip.send_keys(Keys.ENTER)
    driver.switch_to.active_element.send_keys(Keys.TAB)
    search = driver.switch_to.active_element
    assert search.get_attribute("name") == "q"
    assert driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", search) == "solid"
    search.send_keys("charged", Keys.ENTER)
    until(driver, lambda: "q=charged" in driver.current_url)
    links = until(driver, lambda: driver.find_elements("css selector", ".what a"))
    assert [link.text[:19] for link in links] == ["I was charged twice"]
    links[0].send_keys(Keys.ENTER)
    shows(driver, "What if haiku would have answered card_arrival at accept ≤ 0.58 (now 0.95)")
    driver.find_element("name", "by").send_keys(
        "Ada", Keys.TAB, "the card was lost", Keys.TAB, Keys.TAB, Keys.ENTER
    )
    graded = until(driver, lambda: driver.find_element("css selector", ".grades").text.split("\n"))
    assert driver.current_url.endswith("/runs/01ZZ#grade")
    assert [graded[0], graded[1], graded[-1]] == ["✗ wrong", "by Ada", "the card was lost"]
    assert "1 graded" in see(driver, f"{viewer}dashboard")
    until(driver, lambda: driver.find_element("link text", "Runs")).click()
    until(driver, lambda: driver.find_element("partial link text", "Older")).click()
    until(driver, lambda: driver.find_element("css selector", ".pager").text.startswith("« Newest"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize(
    "path", ["", "runs/01ZZ", "runs/01ZY", "dashboard", "live", "nothing", "?confidence_min=x"]
)
def test_pages_fit_load_only_what_is_theirs_and_break_no_rule(
    path: str, width: int, dark: bool, driver: Any, viewer: str
) -> None:
    driver.get_log("browser")
    requested(driver)
    see(driver, f"{viewer}{path}", width=width, dark=dark)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    refused = [entry["message"] for entry in driver.get_log("browser") if " 404 " not in entry["message"]]
    assert [message for message in refused if " 400 " not in message] == []
    assert all(url.startswith((viewer, "data:")) for url in requested(driver))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("path", ["", "runs/01ZZ", "runs/01ZY", "dashboard"])
def test_text_stands_out_from_its_background(path: str, dark: bool, driver: Any, viewer: str) -> None:
    see(driver, f"{viewer}{path}", dark=dark)
    weak = driver.execute_script(CONTRAST)
    assert weak == [], f"contrast below 4.5 to 1 (WCAG 2.2, 1.4.3): {weak}"


CONTRAST = """
const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
const light = color => {
  const [r, g, b] = color.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const color = parse(getComputedStyle(at).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const weak = [];
for (const element of document.querySelectorAll('main *:not(svg *), header *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.closest('.hidden') || !element.getClientRects().length) continue;
  const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  const name = element.className + ' ' + element.textContent.slice(0, 20);
  if (ratio < 4.5) weak.push(name + ' ' + ratio.toFixed(2));
}
return [...new Set(weak)];
"""
