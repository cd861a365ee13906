"""The best label alone, with proof, by branch and bound: parts of the label tree that cannot win are pruned.

The log-probability of a node bounds those of all labels below it. So nodes are evaluated in order of their
bounds, in waves of one decode each, until a complete label beats all remaining bounds (A. H. Land and A. G.
Doig, "An automatic method of solving discrete programming problems", 1960).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cascade.engine.context import Context
from cascade.engine.labels import ROOT, LabelTree

FloatArray = npt.NDArray[np.float32]
WAVE = 16  # maximum tokens of a wave; decoding a few tokens takes little longer than decoding one
_PROMPT = 0  # the sequence that holds the prompt


class BestLabel(NamedTuple):
    """The most probable label.

    Attributes:
        label: the label.
        logprob: its exact log-probability in nats, not divided by the sum over the labels.
        low, high: bounds of its probability among the labels; equal if all were evaluated.
        evaluated: number of tokens that were decoded.
    """

    label: str
    logprob: float
    low: float
    high: float
    evaluated: int


def find_best_label(
    tree: LabelTree, context: Context, n_prompt: int, row: FloatArray
) -> Generator[None, None, BestLabel]:
    """Return the most probable label; yields between decodes.

    Args:
        tree: the labels.
        context: holds the prompt in sequence 0, with the tree's branches.
        n_prompt: tokens of the prompt.
        row: the logits after the prompt's last token, shape (vocabulary,).
    """
    search = _LabelSearch(tree, context, n_prompt)
    root = row.copy()
    search.read([ROOT], root[None])
    try:
        while wave := search.next_wave():
            yield
            search.evaluate(wave)
    finally:
        search.free()
    if not search.stuck:
        return search.best()
    logprob = yield from tree.logprobs(context, n_prompt, root)
    index = int(logprob.argmax())
    share = 1.0 / float(np.exp(logprob - logprob[index]).sum())
    return BestLabel(tree.labels[index], float(logprob[index]), share, share, len(tree.inner_nodes))


class _LabelSearch:
    """The state of a search.

    The total of a node is the log-probability of the path to it, its own token included.

    Attributes:
        stuck: whether there are more promising branches than the context has, so that pruning saves nothing.
    """

    def __init__(self, tree: LabelTree, context: Context, n_prompt: int) -> None:
        self._tree, self._context, self._n_prompt = tree, context, n_prompt
        self._total = np.full(len(tree.parent), -np.inf)
        self._open: set[int] = set()  # inner nodes that have a total but are not evaluated
        self._held = {ROOT: _PROMPT}  # evaluated node → a sequence that holds the path to it
        self._free = list(range(1, context.shape.branches + 1))
        self._used: set[int] = set()
        self._single: set[int] = set()  # branches that a single open node continues
        self._complete: dict[int, float] = {}  # label → its log-probability
        self._label = {int(node): index for index, node in enumerate(tree.leaves)}
        self._evaluated = 0
        self.stuck = False

    def read(self, nodes: Sequence[int], rows: FloatArray) -> None:
        """Add the logits after `nodes`, parents first, shape (nodes, vocabulary)."""
        children, logprobs = self._tree.conditional(nodes, rows)
        for child, logprob in zip(children.tolist(), logprobs.tolist(), strict=True):
            parent = self._tree.parent[child]
            self._total[child] = logprob + (0.0 if parent == ROOT else self._total[parent])
            if child in self._label:
                self._complete[self._label[child]] = float(self._total[child])
            else:
                self._open.add(child)
        self._open.difference_update(nodes)

    def next_wave(self) -> list[list[int]]:
        """Return the chains of nodes to evaluate next, parents first; none if the best label is proven."""
        best = max(self._complete.values(), default=-math.inf)
        # The first label among equals wins, so branches that can only tie are evaluated too.
        self._open = {node for node in self._open if self._total[node] >= best}
        self._release()
        open_per_branch = Counter(self._held[self._tree.parent[node]] for node in self._open)
        tokens, free = min(WAVE, self._context.max_outputs), len(self._free)
        chains: list[list[int]] = []
        for node in sorted(self._open, key=lambda node: (-self._total[node], node)):
            held = self._held[self._tree.parent[node]]
            needs_copy = held == _PROMPT or open_per_branch[held] > 1
            if tokens and (free or not needs_copy):
                chains.append(self._chain(node)[:tokens])
                tokens -= len(chains[-1])
                free -= needs_copy
        self._single = {b for b, count in open_per_branch.items() if count == 1 and b != _PROMPT}
        self.stuck = bool(self._open and not chains)
        return chains

    def _branch(self, node: int) -> int:
        """Return a branch that holds the path to `node` and that no other node needs."""
        parent = self._tree.parent[node]
        held, length = self._held[parent], self._n_prompt
        length += 0 if parent == ROOT else self._tree.level[parent] + 1
        if held in self._single:
            self._context.drop(held, length)
            return held
        branch = self._free.pop()
        self._used.add(branch)
        self._context.copy(held, branch, length)
        return branch

    def evaluate(self, chains: Sequence[Sequence[int]]) -> None:
        """Decode the nodes of `chains` together, each chain in its own branch."""
        tree, branches = self._tree, [self._branch(chain[0]) for chain in chains]
        nodes = [node for chain in chains for node in chain]
        self._context.feed_branches(
            [tree.token[node] for node in nodes],
            [self._n_prompt + tree.level[node] for node in nodes],
            [[branch] for chain, branch in zip(chains, branches, strict=True) for _ in chain],
        )
        self.read(nodes, self._context.logits(len(nodes)))
        self._evaluated += len(nodes)
        for chain, branch in zip(chains, branches, strict=True):
            self._held.update(dict.fromkeys(chain, branch))

    def free(self) -> None:
        """Drop all branches."""
        for branch in self._used:
            self._context.drop(branch)

    def best(self) -> BestLabel:
        """Return the best label; all remaining branches are proven to be below it."""
        logprob, index = max((value, -index) for index, value in self._complete.items())
        complete = sum(math.exp(value - logprob) for value in self._complete.values())
        # Everything pruned is at most as probable as the topmost pruned nodes together.
        pruned = sum(math.exp(self._total[node] - logprob) for node in self._pruned())
        return BestLabel(
            self._tree.labels[-index], logprob, 1.0 / (complete + pruned), 1.0 / complete, self._evaluated
        )

    def _pruned(self) -> list[int]:
        """Return the inner nodes that were reached but not evaluated."""
        return [
            node for node in self._tree.inner_nodes if self._total[node] > -np.inf and node not in self._held
        ]

    def _chain(self, node: int) -> list[int]:
        """Return `node` and the only children that follow it, which are almost free in the same decode."""
        chain = [node]
        while (child := self._tree.only_child(chain[-1])) is not None and child not in self._label:
            chain.append(child)
        return chain

    def _release(self) -> None:
        """Free the branches that no open node continues."""
        needed = {self._held[self._tree.parent[node]] for node in self._open}
        for branch in self._used - needed:
            self._context.drop(branch)
            self._free.append(branch)
        self._used &= needed
