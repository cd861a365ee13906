"""Helper of the tests: a real headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

T = TypeVar("T")
PATIENCE = 30  # seconds for a page on a busy machine
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="no chromium: apt-get install chromium chromium-driver"
    ),
    # selenium leaves sockets to its own driver open
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def see(driver: Any, url: str, *, width: int = 1280, dark: bool = False) -> str:
    """Open a page at a width, in a colour scheme; keep a picture if asked to; return its text."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(url)
    if folder := os.environ.get("CASCADE_SCREENSHOTS"):
        name = urlsplit(url).path[1:].replace("/", "-") or "list"
        driver.save_screenshot(str(Path(folder) / f"{name}-{width}-{'dark' if dark else 'light'}.png"))
    return str(driver.find_element("tag name", "body").text)


def until(driver: Any, look: Callable[[], T]) -> T:
    """Wait until `look` finds something, through whatever loads meanwhile, and return it."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    def found(_: Any) -> T:
        return look()

    waiting = WebDriverWait(driver, PATIENCE, ignored_exceptions=(WebDriverException,))
    result: T = waiting.until(found)
    return result


def shows(driver: Any, piece: str) -> str:
    """Wait until the main part of the page has `piece`, and return its text."""

    def text() -> str:
        seen = str(driver.find_element("tag name", "main").text)
        return seen if piece in seen else ""

    return until(driver, text)
