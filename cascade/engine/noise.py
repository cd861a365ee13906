"""How far numerical noise moves a log-probability: llama.cpp's sums depend on what shares a decode.

The largest difference of any token's log-probability between a prompt decoded alone, among others, in
chunks, and after a copied beginning, and of a label's, per token, in a tree and by itself; measured on the
bundled experts (Q8_0) and on models of random weights of 4 M, 135 M (Q8_0) and 0.5 B (Q4_0) parameters;
`docs/engine.md` has the figures. Other models may differ.
"""

from __future__ import annotations

FAST = 0.07  # nats; 0.065 was the largest difference
REPRODUCIBLE = 0.0  # every request is decoded by itself, in the same way each time


def noise(*, reproducible: bool, tokens: int) -> float:
    """Return the nats by which numerical noise may move the log-probability of `tokens` tokens together."""
    return (REPRODUCIBLE if reproducible else FAST) * tokens
