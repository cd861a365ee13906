"""The student: a small llama-shaped encoder whose label tokens are rows of its own vocabulary.

The layout matches llama.cpp's `llama` architecture weight for weight, so `student_file` only
copies. Attention is bidirectional; the last token's state is compared with the label tokens' embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

EPSILON = 1e-5
ROPE_BASE = 10000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one student."""

    vocab: int
    width: int
    layers: int
    heads: int
    feed: int
    causal: bool = False
    dropout: float = 0.1


class Norm(nn.Module):  # type: ignore[misc]  # torch is not seen by the type checker
    """Root-mean-square normalization with a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each vector to unit mean square, then by the gain."""
        return fn.rms_norm(x, (x.shape[-1],), self.gain, EPSILON)


def rope_table(length: int, size: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of llama's rotary positions, each of shape (length, size / 2)."""
    step = ROPE_BASE ** (-torch.arange(0, size, 2).float() / size)
    angle = torch.outer(torch.arange(length).float(), step)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate adjacent pairs of channels by their position's angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


class Block(nn.Module):  # type: ignore[misc]
    """Attention and a gated feed-forward layer, both with normalized input and a residual connection."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, feed = shape.width, shape.feed
        self.heads, self.causal = shape.heads, shape.causal
        self.attn_norm, self.ffn_norm = Norm(width), Norm(width)
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.ffn_gate, self.ffn_up = nn.Linear(width, feed, bias=False), nn.Linear(width, feed, bias=False)
        self.ffn_down = nn.Linear(feed, width, bias=False)
        self.drop = nn.Dropout(shape.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return `x` after this block; `cos` and `sin` are its positions' angles."""
        rows, length, width = x.shape
        h = self.attn_norm(x)

        def split(y: Tensor) -> Tensor:
            return y.view(rows, length, self.heads, width // self.heads).transpose(1, 2)

        q, k = (rotate(split(layer(h)), cos, sin) for layer in (self.attn_q, self.attn_k))
        v = split(self.attn_v(h))
        attended = fn.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.drop(self.attn_output(attended.transpose(1, 2).reshape(rows, length, width)))
        h = self.ffn_norm(x)
        out: Tensor = x + self.drop(self.ffn_down(fn.silu(self.ffn_gate(h)) * self.ffn_up(h)))
        return out


class Student(nn.Module):  # type: ignore[misc]
    """Maps token ids to the last position's hidden state, which `logits` compares with label tokens."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width)
        self.drop = nn.Dropout(shape.dropout)
        self.reset()

    def reset(self) -> None:
        """Draw new weights."""
        nn.init.normal_(self.token_embd.weight, std=0.05)
        for name, weight in self.blk.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("attn_output.weight", "ffn_down.weight"))
                scale = (2 * self.shape.layers) ** -0.5 if deep else 1.0
                nn.init.normal_(weight, std=scale * weight.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return hidden states, shape (rows, width); `tokens` are rows of one length, without padding."""
        cos, sin = rope_table(tokens.shape[1], self.shape.width // self.shape.heads)
        x = self.drop(self.token_embd(tokens))
        for block in self.blk:
            x = block(x, cos, sin)
        out: Tensor = self.output_norm(x[:, -1])
        return out

    def logits(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of the given label tokens, shape (rows, labels)."""
        return hidden @ self.token_embd(labels).T

    @property
    def parameters_count(self) -> int:
        """The number of weights."""
        return sum(weight.numel() for weight in self.parameters())
