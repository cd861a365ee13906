"""The exact distribution over a closed label set.

The probability of a label is the product of the model's probabilities of its tokens after the prompt, divided
by the sum over all labels. Labels of one token only need the prompt's last logits row. Longer labels form a
trie, whose inner nodes are evaluated in a few decodes, in branches that share the prompt's KV cells.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cascade.engine.batch import even_part_size
from cascade.engine.context import MAX_BRANCHES, Context
from cascade.engine.stats import NOT_FINITE
from cascade.engine.weights import Weights
from cascade.errors import ModelError

FloatArray = npt.NDArray[np.float32]
NodeArray = npt.NDArray[np.int64]

ROOT = -1
_CACHED_FLOATS = 2**17  # floats that stay in a core's cache from one pass to the next
_KERNEL_ROWS = 16  # llama.cpp's kernels take 4 to 16 rows of a matrix at a time, and the remainder one by one


class LabelTree:
    """A closed label set as a trie of tokens. Nodes are numbered so that parents come first.

    Attributes:
        labels: the label strings.
        inner_nodes: nodes with children; each costs one decoded token.
        leaves: the last node of each label.
        token, parent, level: of each node; the parent of a first token is `ROOT`, its level is 0.
        depth: decoded tokens on the longest path.
        branches: branches of the widest wave; 0 if every label is one token.
    """

    def __init__(self, labels: Sequence[str], sequences: Sequence[Sequence[int]]) -> None:
        """Build the trie; `sequences[i]` are the tokens of `labels[i]`.

        Raises:
            ModelError: a label has no tokens, or one label is a prefix of another: these are not disjoint
                events, and the longer one could never win.
        """
        self.labels = tuple(labels)
        self.token: list[int] = []
        self.parent: list[int] = []
        self.level: list[int] = []
        children: dict[int, dict[int, int]] = {ROOT: {}}
        self.leaves = np.array([self._insert(children, sequence) for sequence in sequences])
        inner = [node for node in children if node != ROOT]
        prefixes = set(inner) & set(self.leaves.tolist())
        if len(set(self.leaves.tolist())) < len(self.labels) or prefixes or ROOT in self.leaves:
            raise ModelError(
                "labels are not distinct sequences of tokens, or one is a prefix of another; rename them"
            )
        # Depth first, because attention skips blocks of cells that no token of a block sees, and neighbors
        # share paths.
        self.inner_nodes = sorted(inner, key=self._path)
        self.depth = 1 + max((self.level[node] for node in inner), default=-1)
        self._children = {  # node → (its children, their tokens)
            node: (np.array(list(by_token.values())), np.array(list(by_token)))
            for node, by_token in children.items()
        }
        # Neighbors share most of their path, so a wave of them evaluates few nodes twice.
        self._tips = [  # inner nodes whose children are all leaves
            node for node in self.inner_nodes if not any(c in children for c in children[node].values())
        ]
        self.branches = min(len(self._tips), MAX_BRANCHES)

    def _insert(self, children: dict[int, dict[int, int]], sequence: Sequence[int]) -> int:
        node = ROOT
        for level, token in enumerate(sequence):
            by_token = children.setdefault(node, {})
            if token not in by_token:
                by_token[token] = len(self.token)
                self.token.append(token)
                self.parent.append(node)
                self.level.append(level)
            node = by_token[token]
        return node

    def conditional(
        self, nodes: Sequence[int], rows: FloatArray
    ) -> tuple[NodeArray, npt.NDArray[np.float64]]:
        """Return the children of `nodes` and their log-probabilities, concatenated over all nodes.

        Args:
            nodes: inner nodes, or `ROOT`.
            rows: the logits after each node, shape (nodes, vocabulary).

        Raises:
            ModelError: a logit is NaN or infinite.
        """
        entries = [self._children[node] for node in nodes]
        children = np.concatenate([own for own, _ in entries])
        row = np.repeat(np.arange(len(entries)), [len(own) for own, _ in entries])
        logits = rows[row, np.concatenate([tokens for _, tokens in entries])]
        return children, logits.astype(np.float64) - log_sum_exp(rows)[row]

    def only_child(self, node: int) -> int | None:
        """Return the only child of `node`; None if there are several."""
        children = self._children[node][0]
        return int(children[0]) if len(children) == 1 else None

    def score(
        self, context: Context, n_prompt: int, row: FloatArray
    ) -> Generator[None, None, dict[str, float]]:
        """Return label → probability, best first, summing to 1; yields between decodes.

        See `logprobs` for the arguments.
        """
        logprob = yield from self.logprobs(context, n_prompt, row)
        weight = np.exp(logprob - logprob.max())
        probability = weight / weight.sum()
        order = np.argsort(-probability, kind="stable")
        return {self.labels[i]: float(probability[i]) for i in order}

    def logprobs(
        self, context: Context, n_prompt: int, row: FloatArray
    ) -> Generator[None, None, npt.NDArray[np.float64]]:
        """Return the log-probability of every label in nats, shape (labels,); yields between decodes.

        Args:
            context: holds the prompt in sequence 0; with fewer branches than the tree, it takes more waves.
            n_prompt: tokens of the prompt.
            row: the logits after the prompt's last token, shape (vocabulary,).
        """
        conditional = np.zeros(len(self.token))
        self._read(conditional, [ROOT], row[None])
        width = min(self.branches, context.shape.branches)
        for first in range(0, len(self._tips), max(1, width)):
            tips = self._tips[first : first + width]
            wave = self._wave(tips)
            context.fork(len(tips))
            nodes = [node for node in self.inner_nodes if node in wave]
            size = _rows_per_decode(len(nodes), context.max_outputs)
            for start in range(0, len(nodes), size):
                yield
                chunk = nodes[start : start + size]
                context.feed_branches(
                    [self.token[node] for node in chunk],
                    [n_prompt + self.level[node] for node in chunk],
                    [wave[node] for node in chunk],
                )
                self._read(conditional, chunk, context.logits(len(chunk)))
            context.join(len(tips))
        for node, parent in enumerate(self.parent):  # parents come first
            if parent != ROOT:
                conditional[node] += conditional[parent]
        logprob: npt.NDArray[np.float64] = conditional[self.leaves]
        return logprob

    def _wave(self, tips: Sequence[int]) -> dict[int, list[int]]:
        """Give each of `tips` a branch; return the nodes on their paths → the branches through each."""
        branches: dict[int, list[int]] = {}
        for branch, tip in enumerate(tips, 1):
            for node in self._path(tip):
                branches.setdefault(node, []).append(branch)
        return branches

    def _read(self, conditional: npt.NDArray[np.float64], nodes: Sequence[int], rows: FloatArray) -> None:
        children, logprob = self.conditional(nodes, rows)
        conditional[children] = logprob

    def _path(self, node: int) -> list[int]:
        path = []
        while node != ROOT:
            path.append(node)
            node = self.parent[node]
        return path[::-1]


def log_sum_exp(rows: FloatArray) -> npt.NDArray[np.float64]:
    """Return the logarithm of the sum of exponentials of each logits row, shape (rows,).

    Raises:
        ModelError: a logit is NaN or infinite.
    """
    totals = np.empty(len(rows))
    size = max(1, _CACHED_FLOATS // rows.shape[1])
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        best = block.max(axis=1)  # propagates a NaN
        if not (np.isfinite(best).all() and np.isfinite(block.min())):
            raise ModelError(NOT_FINITE)
        shifted = block - best[:, None]
        np.exp(shifted, out=shifted)
        totals[start : start + size] = best + np.log(shifted.sum(axis=1).astype(np.float64))
    return totals


def _rows_per_decode(count: int, max_rows: int) -> int:
    """Split `count` rows into about equal parts of whole kernels; return the size of a part."""
    max_rows -= max_rows % _KERNEL_ROWS if max_rows > _KERNEL_ROWS else 0
    kernels = -(-even_part_size(count, max_rows) // _KERNEL_ROWS)
    return min(max_rows, kernels * _KERNEL_ROWS)


def label_tree(weights: Weights, labels: Sequence[str], *, lead: str, limit: int) -> LabelTree:
    """Tokenize `labels`, each after `lead` (usually a space), and build their tree.

    If one label is a prefix of another ("card", "card lost"), the end-of-text token closes every label.

    Raises:
        ModelError: the model cannot tell labels apart.
    """
    sequences = [weights.tokenize(lead + label, limit).tolist() for label in labels]
    empty = [label for label, tokens in zip(labels, sequences, strict=True) if not tokens]
    if empty or not labels:
        raise ModelError(f"labels without tokens: {empty!r}; give labels with visible characters")
    if _any_prefix(sequences):
        end = _end_token(weights)
        sequences = [[*tokens, end] for tokens in sequences]
    return LabelTree(labels, sequences)


def _any_prefix(sequences: Sequence[Sequence[int]]) -> bool:
    ordered = sorted(map(tuple, sequences))  # a prefix sorts right before a sequence that it starts
    return any(b[: len(a)] == a for a, b in pairwise(ordered))


def _end_token(weights: Weights) -> int:
    for which in ("eot", "eos"):
        token, _ = weights.special_token(which)
        if token >= 0:
            return token
    raise ModelError(
        "one label is a prefix of another and the vocabulary has no end token; rename the labels"
    )


def single_token_tree(labels: Sequence[str], tokens: Sequence[int]) -> LabelTree:
    """Return the tree of labels that are one token each."""
    return LabelTree(labels, [[token] for token in tokens])
