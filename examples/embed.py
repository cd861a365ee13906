"""Embed a cascade in a program: one question, the answer, and why it was given.

Run: python examples/embed.py "I have lost my credit card"
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cascade import Cascade

GRAPH = Path(__file__).parents[1] / "graphs" / "support.yaml"


async def main(text: str) -> None:
    """Ask the support cascade and print what came of it."""
    async with Cascade.load(GRAPH) as support:
        result = await support.ainvoke(text, local_only=True)
    if result.status == "accepted":
        print(
            f"{result.text}  (confidence {result.confidence:.3f}, tier {result.tier}, ${result.cost_usd:.6f})"
        )
    else:
        print(f"{result.status}: the best draft is {result.draft!r}; a person should look at it")
    for step in result.trace:
        print(f"  {step.stage}: {step.decision.action} by rule {step.decision.rule}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "Someone stole my credit card, please block it"))
