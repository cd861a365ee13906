"""The best label alone, with proof: branches of the label tree that cannot win any more are not evaluated.

The log-probability of a node bounds those of all labels below it. So nodes are evaluated best bound first, in
waves of one decode each, until a complete label beats all bounds that are left (A. H. Land and A. G. Doig,
"An automatic method of solving discrete programming problems", 1960).
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
# Most tokens of one wave: a decode of a few tokens takes little longer than one of a single token.
WAVE = 16
_PROMPT = 0  # the sequence that holds the prompt


class BestLabel(NamedTuple):
    """The most probable label.

    `logprob` is its exact log-probability in nats, not divided by the sum over the labels; `low` and `high`
    bound its probability among the labels (equal where all were evaluated). `evaluated` is the number of
    tokens that were decoded for it.
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
        row: logits after the prompt's last token, shape (vocabulary,).

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
    return BestLabel(tree.labels[index], float(logprob[index]), share, share, len(tree.inner))


class _LabelSearch:
    """What is known so far. The total of a node is the log-probability of the path to it, with its token.

    Attributes:
        stuck: there are more promising branches than the context has, so pruning saves nothing.
    """

    def __init__(self, tree: LabelTree, context: Context, n_prompt: int) -> None:
        self._tree, self._context, self._n_prompt = tree, context, n_prompt
        self._total = np.full(len(tree.parent), -np.inf)
        self._open: set[int] = set()  # inner nodes with a known total that are not evaluated
        self._held = {ROOT: _PROMPT}  # evaluated node → a sequence that holds the path to it
        self._free = list(range(1, context.shape.branches + 1))
        self._used: set[int] = set()
        self._alone: set[int] = set()  # branches that one open node continues
        self._complete: dict[int, float] = {}  # label → its log-probability
        self._label = {int(node): index for index, node in enumerate(tree.ends)}
        self._evaluated = 0
        self.stuck = False

    def read(self, nodes: Sequence[int], rows: FloatArray) -> None:
        """Take in the logits after `nodes`, parents first, shape (nodes, vocabulary)."""
        kids, logprob = self._tree.conditional(nodes, rows)
        for kid, own in zip(kids.tolist(), logprob.tolist(), strict=True):
            parent = self._tree.parent[kid]
            self._total[kid] = own + (0.0 if parent == ROOT else self._total[parent])
            if kid in self._label:
                self._complete[self._label[kid]] = float(self._total[kid])
            else:
                self._open.add(kid)
        self._open.difference_update(nodes)

    def next_wave(self) -> list[list[int]]:
        """Return the chains of nodes to evaluate next, parents first; none if the best label is proven."""
        bar = max(self._complete.values(), default=-math.inf)
        # Of equals the first label wins, so a branch that can only draw is looked at too.
        self._open = {node for node in self._open if self._total[node] >= bar}
        self._release()
        serves = Counter(self._held[self._tree.parent[node]] for node in self._open)
        room, free = min(WAVE, self._context.max_outputs), len(self._free)
        chains: list[list[int]] = []
        for node in sorted(self._open, key=lambda node: (-self._total[node], node)):
            held = self._held[self._tree.parent[node]]
            copied = held == _PROMPT or serves[held] > 1
            if room and (free or not copied):
                chains.append(self._chain(node)[:room])
                room -= len(chains[-1])
                free -= copied
        self._alone = {branch for branch, count in serves.items() if count == 1 and branch != _PROMPT}
        self.stuck = bool(self._open and not chains)
        return chains

    def _branch(self, node: int) -> int:
        """Return a branch that holds the path to `node` and nothing else needs."""
        parent = self._tree.parent[node]
        held, length = self._held[parent], self._n_prompt
        length += 0 if parent == ROOT else self._tree.level[parent] + 1
        if held in self._alone:
            self._context.drop(held, length)
            return held
        branch = self._free.pop()
        self._used.add(branch)
        self._context.copy(held, branch, length)
        return branch

    def evaluate(self, chains: Sequence[Sequence[int]]) -> None:
        """Decode the nodes of `chains` at once, each chain in a branch of its own."""
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
        """Return the best label; all open branches are proven to be below it."""
        logprob, index = max((value, -index) for index, value in self._complete.items())
        complete = sum(math.exp(value - logprob) for value in self._complete.values())
        # What was pruned, open nodes below it included, has at most the probability of its topmost nodes.
        pruned = sum(math.exp(self._total[node] - logprob) for node in self._pruned())
        return BestLabel(
            self._tree.labels[-index], logprob, 1.0 / (complete + pruned), 1.0 / complete, self._evaluated
        )

    def _pruned(self) -> list[int]:
        """Inner nodes that were reached and not evaluated."""
        return [node for node in self._tree.inner if self._total[node] > -np.inf and node not in self._held]

    def _chain(self, node: int) -> list[int]:
        """Return `node` and what follows it without a choice: almost free in the same decode."""
        chain = [node]
        while (only := self._tree.only_kid(chain[-1])) is not None and only not in self._label:
            chain.append(only)
        return chain

    def _release(self) -> None:
        """Take back the branches that no open node continues."""
        needed = {self._held[self._tree.parent[node]] for node in self._open}
        for branch in self._used - needed:
            self._context.drop(branch)
            self._free.append(branch)
        self._used &= needed
