"""Attention whose queries are captions of one picture over one memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attend(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, dropout: float = 0.0) -> Tensor:
    """Softmax attention, `(batch, heads, queries, width)` over `(batch, heads, keys, width)`.

    On a CPU that keeps gradients, two matrix products and a softmax are quicker than the
    fused kernel's backward pass; everywhere else the fused kernel is used.
    """
    if query.device.type == "cpu" and query.requires_grad and not causal:
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        weights = torch.softmax(scores, -1).to(value.dtype)
        return torch.matmul(functional.dropout(weights, dropout, training=dropout > 0), value)
    return functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)


class CaptionGrid:
    """Where the tokens of ragged captions lie: packed rows, one grid a caption, one grid a picture.

    `lengths` (captions,) counts the tokens that are fed; `owner` (captions,) names each
    caption's picture, in rising order. Linear layers run on packed rows (no padding);
    self-attention on `(captions, width)`, cross-attention on `(pictures, most · width)`,
    where `most` is the largest number of captions of a picture.
    """

    def __init__(self, lengths: Tensor, owner: Tensor, pictures: int) -> None:
        self.captions, self.pictures = len(lengths), pictures
        self.width = int(lengths.max())
        steps = torch.arange(self.width, device=lengths.device)
        self.fed = steps < lengths[:, None]
        self.by_caption = self.fed.reshape(-1).nonzero()[:, 0]
        counts = torch.bincount(owner, minlength=pictures)
        self.most = int(counts.max())
        rank = torch.arange(self.captions, device=owner.device) - (counts.cumsum(0) - counts)[owner]
        slots = ((owner * self.most + rank) * self.width)[:, None] + steps
        self.by_picture = slots.reshape(-1)[self.by_caption]
        self.positions = steps.expand(self.captions, -1).reshape(-1)[self.by_caption]
        self.caption_of_token = self.by_caption // self.width

    def pack(self, values: Tensor) -> Tensor:
        """`(captions, ≥ width)` to one value for each fed token."""
        return values[:, : self.width].reshape(-1)[self.by_caption]

    def per_caption(self, rows: Tensor, heads: int) -> Tensor:
        """Packed rows to `(captions, heads, width, head width)`; padding is zero."""
        return self._spread(rows, self.by_caption, self.captions, self.width, heads)

    def per_picture(self, rows: Tensor, heads: int) -> Tensor:
        """Packed rows to `(pictures, heads, most · width, head width)`; padding is zero."""
        return self._spread(rows, self.by_picture, self.pictures, self.most * self.width, heads)

    def from_captions(self, values: Tensor) -> Tensor:
        return self._gather(values, self.by_caption)

    def from_pictures(self, values: Tensor) -> Tensor:
        return self._gather(values, self.by_picture)

    @staticmethod
    def _spread(rows: Tensor, index: Tensor, batch: int, width: int, heads: int) -> Tensor:
        grid = rows.new_zeros(batch * width, rows.shape[-1]).index_copy(0, index, rows)
        return grid.view(batch, width, heads, -1).transpose(1, 2)

    @staticmethod
    def _gather(values: Tensor, index: Tensor) -> Tensor:
        return values.transpose(1, 2).reshape(-1, values.shape[1] * values.shape[3]).index_select(0, index)
