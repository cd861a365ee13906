"""Helper of the tests: a watchdog. What hangs fails the test instead of stopping the whole suite."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 60.0  # generous: a busy machine is not a hang


def ends(call: Callable[[], T], seconds: float = SECONDS) -> T:
    """Return what `call` returns, or raise what it raises; AssertionError if it does not end in time."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # noqa: BLE001 - handed over to the test
            outcome.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"it hangs: no end after {seconds} s"
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]
