"""A closed cascade says so, whatever it is asked, and never hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hang import ends
from scripting import scripted, write

from cascade import Cascade, CascadeError


async def stream(cascade: Cascade) -> None:
    async for _ in cascade.astream("hello"):
        pass


CALLS: dict[str, Callable[[Cascade], Any]] = {
    "invoke": lambda c: c.invoke("hello"),
    "ainvoke": lambda c: asyncio.run(c.ainvoke("hello")),
    "stream": lambda c: list(c.stream("hello")),
    "astream": lambda c: asyncio.run(stream(c)),
    "batch": lambda c: c.batch(["a", "b"]),
    "abatch": lambda c: asyncio.run(c.abatch(["a", "b"])),
    "resume": lambda c: c.resume("01M", "yes"),
    "aresume": lambda c: asyncio.run(c.aresume("01M")),
    "question": lambda c: c.question("01M"),
    "run_sync": lambda c: c.run_sync(c.ainvoke("hello")),
    "iterate": lambda c: list(c.iterate(c.astream("hello"))),
    "chat model": lambda c: c.as_chat_model().invoke("hello"),
}
ENDS: dict[str, Callable[[Cascade], Any]] = {
    "close": Cascade.close,
    "aclose": lambda c: asyncio.run(c.aclose()),
    "with": lambda c: c.__exit__(None, None, None),
}


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("used", [True, False])
def test_every_call_of_a_closed_cascade_is_one_clear_error(
    tmp_path: Path, end: str, used: bool, record: bool
) -> None:
    path = write(tmp_path, {"m": scripted("yes")}, [{"name": "only", "ask": ["m"]}])
    cascade = Cascade.load(path, record=record)
    if used:
        assert cascade.invoke("hello").text == "yes"
    ends(lambda: ENDS[end](cascade))
    for name, call in CALLS.items():
        with pytest.raises(CascadeError, match="cascade 'test' is closed; load it again"):
            ends(lambda call=call: call(cascade))
        assert name
    for again in ENDS.values():
        ends(lambda again=again: again(cascade))
    cascade.drain()  # nothing is at work
