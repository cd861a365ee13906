"""A BERT encoder in PyTorch whose weights bear the names of llama.cpp's `bert` architecture.

So fine-tuning needs no other library, and writing the result only replaces tensors of the file that it
began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn


@dataclass(frozen=True, slots=True)
class BertShape:
    """The sizes of one encoder."""

    vocab: int
    width: int
    layers: int
    heads: int
    feed: int
    positions: int
    epsilon: float = 1e-12
    dropout: float = 0.1


class Layer(nn.Module):  # type: ignore[misc]  # torch is not seen by the type checker
    """Attention and a feed-forward layer, each followed by a residual connection and a normalization."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        width = shape.width
        self.heads, self.dropout = shape.heads, shape.dropout
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (nn.Linear(width, width) for _ in range(4))
        self.attn_output_norm = nn.LayerNorm(width, shape.epsilon)
        self.ffn_up, self.ffn_down = nn.Linear(width, shape.feed), nn.Linear(shape.feed, width)
        self.layer_output_norm = nn.LayerNorm(width, shape.epsilon)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return `x` (rows, length, width) after this layer; `mask` is added to the attention scores."""
        rows, length, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(rows, length, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = split(self.attn_q(x)), split(self.attn_k(x)), split(self.attn_v(x))
        scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + mask
        weights = fn.dropout(scores.softmax(-1), self.dropout, self.training)
        attended = self.attn_output((weights @ v).transpose(1, 2).reshape(rows, length, width))
        x = self.attn_output_norm(x + fn.dropout(attended, self.dropout, self.training))
        fed = self.ffn_down(fn.gelu(self.ffn_up(x), approximate="tanh"))  # as llama.cpp computes it
        out: Tensor = self.layer_output_norm(x + fn.dropout(fed, self.dropout, self.training))
        return out


class Bert(nn.Module):  # type: ignore[misc]
    """Maps token ids to mean-pooled sentence vectors of unit length."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.position_embd = nn.Embedding(shape.positions, shape.width)
        self.token_types = nn.Embedding(2, shape.width)
        self.token_embd_norm = nn.LayerNorm(shape.width, shape.epsilon)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return sentence vectors, shape (rows, width).

        Args:
            tokens: ids, shape (rows, length), padded with any id.
            lengths: the number of real tokens of each row, shape (rows,).
        """
        here = torch.arange(tokens.shape[1]) < lengths[:, None]
        mask = torch.where(here, 0.0, -1e9)[:, None, None, :]
        x = (
            self.token_embd(tokens)
            + self.position_embd.weight[: tokens.shape[1]]
            + self.token_types.weight[0]
        )
        x = fn.dropout(self.token_embd_norm(x), self.shape.dropout, self.training)
        for layer in self.blk:
            x = layer(x, mask)
        pooled = (x * here[..., None]).sum(1) / lengths[:, None]
        return fn.normalize(pooled, dim=-1)


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids as one tensor (rows, longest) and their lengths (rows,)."""
    lengths = torch.tensor([len(row) for row in ids])
    tokens = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
    for row, values in zip(tokens, ids, strict=True):
        row[: len(values)] = torch.tensor(values)
    return tokens, lengths
