"""A person follows runs in a real browser while they are at work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import pytest
from browsing import PATIENCE, driver, needs_a_browser, see, shows, until
from loopback import Answer, Loopback, Seen, chat
from scripting import checked, scripted, write
from serving import serving

__all__ = ["driver"]  # a fixture
pytestmark = [*needs_a_browser]


class Served(NamedTuple):
    """A server at `url`, whose last model answers only once `let_go` is set."""

    url: str
    let_go: threading.Event


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    let_go = threading.Event()

    def held(_: Seen) -> Answer:
        let_go.wait(2 * PATIENCE)
        return chat("certainly", logprobs=[("certainly", -0.1)])

    with Loopback() as far:
        far.answers = [held]
        models = {
            "small": scripted("no idea", confidence=0.3),
            "large": {
                "kind": "openai", "model": "m", "url": far.url, "key_env": None, "local": True,
                "timeout": 120,
            },
        }  # fmt: skip
        stages = [checked("first", "small"), checked("last", "large")]
        with serving(write(tmp_path_factory.mktemp("live"), models, stages)) as (_, url):
            yield Served(url, let_go)
        let_go.set()


def ask(served: Served, text: str) -> None:
    body = {"model": "test", "messages": [{"role": "user", "content": text}]}
    httpx2.post(f"{served.url}/v1/chat/completions", json=body, timeout=120).raise_for_status()


def test_a_run_is_followed_from_the_list_to_its_answer(driver: Any, served: Served) -> None:
    assert "Nothing is at work" in see(driver, f"{served.url}/live")
    asking = threading.Thread(target=ask, args=(served, "Where is my parcel?"))
    asking.start()
    shows(driver, "Where is my parcel?")  # without a reload
    until(driver, lambda: driver.find_element("partial link text", "Where is my parcel?")).click()
    assert "first: escalate" in shows(driver, "last: at work")
    served.let_go.set()
    until(driver, lambda: "/runs/" in driver.current_url)
    shows(driver, "certainly")
    asking.join()


def test_the_list_says_that_there_are_newer_runs(driver: Any, served: Served) -> None:
    served.let_go.set()
    see(driver, served.url)
    ask(served, "And the other one?")

    def offered() -> Any:
        links = driver.find_elements("link text", "Show them")
        return next((link for link in links if link.is_displayed()), None)

    until(driver, offered).click()
    shows(driver, "And the other one?")
