"""Embed a cascade in a program: a question, the answer, and why it was given.

Run: python examples/embed.py "I have lost my credit card"

Without a question it asks three: the smallest expert answers the first, the second climbs to a larger one,
and nobody on this machine is sure enough of the third.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cascade import Cascade, Result

GRAPH = Path(__file__).parents[1] / "graphs" / "support.yaml"
QUESTIONS = (
    "Set an alarm for half past six tomorrow",
    "Will my shaver fit the wall socket in Dublin?",
    "wats my credti score",
)


async def main(*questions: str) -> None:
    """Ask the support cascade and print what came of each question."""
    async with Cascade.load(GRAPH) as support:
        for text in questions:
            show(await support.ainvoke(text, local_only=True))


def show(result: Result) -> None:
    """Print a result, and what each stage decided."""
    if result.status == "accepted":
        print(
            f"{result.text}  (confidence {result.confidence:.3f}, tier {result.tier}, ${result.cost_usd:.6f})"
        )
    else:
        print(f"{result.status}: the best draft is {result.draft!r}; a person should look at it")
    for step in result.trace:
        print(f"  {step.stage}: {step.decision.action} by rule {step.decision.rule}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:])) if sys.argv[1:] else main(*QUESTIONS))
