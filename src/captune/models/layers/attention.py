"""Attention whose queries are captions of one image over one memory."""

import torch
from torch import Tensor
from torch.nn import functional

# Attention scores that are worked on at once, 4 MB of bf16.
CACHED = 1 << 21


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Softmax attention, `(batch, heads, queries, width)` over `(batch, heads, keys, width)`.

    `mask` is added to the scores. On a CPU that keeps gradients, two matrix products and a softmax are quicker than the
    fused kernel's backward pass; everywhere else the fused kernel is used.
    """
    if query.device.type == "cpu" and query.requires_grad and not causal:
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
        scores = scores if mask is None else scores + mask
        weights = torch.softmax(scores, -1).to(value.dtype)
        return torch.matmul(functional.dropout(weights, dropout, training=dropout > 0), value)
    mask = mask if mask is None else mask.to(query.dtype)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )


def attend_now(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same without gradients; `mask` is added to the scores.

    In bf16 on a CPU, two matrix products with a softmax between them are 2 to 10 times
    quicker than the fused kernel (measured with 1 to 577 queries over 577 keys); images
    go one by one where their scores would not stay in the cache.
    """
    if torch.compiler.is_exporting():
        # The fused kernel's own decomposition multiplies the keys as well, all places of an image at every step.
        return _products(query * query.shape[-1] ** -0.5, key, value, mask)
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    query = query * query.shape[-1] ** -0.5
    if query[0, :, :, 0].numel() * key.shape[2] * len(query) <= CACHED:
        return _products(query, key, value, mask)
    masks = [None] * len(query) if mask is None else mask.expand(len(query), -1, -1, -1)
    return torch.stack([_products(*one) for one in zip(query, key, value, masks, strict=True)])


def attention(query: Tensor, key: Tensor) -> Tensor:
    """The weights (batch, heads, queries, keys) of that attention, fp32."""
    return torch.softmax(torch.matmul(query, key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5, -1)


def _products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.matmul(query, key.transpose(-1, -2))
    return torch.matmul(torch.softmax(scores if mask is None else scores + mask, -1), value)


class CaptionGrid:
    """Where the tokens of ragged captions lie: packed rows, one grid a caption, one grid an image.

    `lengths` (captions,) counts the tokens that are fed; `owner` (captions,) names each
    caption's image, in rising order. Linear layers run on packed rows (no padding);
    self-attention on `(captions, width)`, cross-attention on `(images, max_captions · width)`,
    where `max_captions` is the largest number of captions of an image.

    Rows and width are rounded up a little (`round_up`): batches of ever new sizes leave
    the memory allocator and the kernel caches of a CPU with hundreds of sizes to keep. The
    rows that fill up are not `real` and reach nothing.
    """

    def __init__(self, lengths: Tensor, owner: Tensor, images: int) -> None:
        self.captions, self.images = len(lengths), images
        self.width = round_up(int(lengths.max()), 4)
        steps = torch.arange(self.width, device=lengths.device)
        slots = (steps < lengths[:, None]).reshape(-1).nonzero()[:, 0]
        rows = len(slots)
        self.real = torch.arange(round_up(rows), device=lengths.device) < rows
        counts = torch.bincount(owner, minlength=images)
        self.max_captions = int(counts.max())
        rank = torch.arange(self.captions, device=owner.device) - (counts.cumsum(0) - counts)[owner]
        by_image = (((owner * self.max_captions + rank) * self.width)[:, None] + steps).reshape(-1)[slots]
        # Rows that fill up are written behind the grid and read from its first place.
        fill = len(self.real) - rows
        self._captions_to = _padded(slots, fill, self.captions * self.width)
        self._images_to = _padded(by_image, fill, images * self.max_captions * self.width)
        self._captions_from = _padded(slots, fill, 0)
        self._images_from = _padded(by_image, fill, 0)
        self.positions = self._captions_from % self.width
        self.caption_of_token = self._captions_from // self.width

    def pack(self, values: Tensor) -> Tensor:
        """`(captions, steps)` to one value for each row; steps beyond `values` are its last."""
        return values[self.caption_of_token, self.positions.clamp_max(values.shape[1] - 1)]

    def per_caption(self, rows: Tensor, heads: int) -> Tensor:
        """Packed rows to `(captions, heads, width, head width)`; padding is zero."""
        return _spread(rows, self._captions_to, self.captions, self.width, heads)

    def per_image(self, rows: Tensor, heads: int) -> Tensor:
        """Packed rows to `(images, heads, max_captions · width, head width)`; padding is zero."""
        return _spread(rows, self._images_to, self.images, self.max_captions * self.width, heads)

    def from_captions(self, values: Tensor) -> Tensor:
        """The inverse of `per_caption`."""
        return _gather(values, self._captions_from)

    def from_images(self, values: Tensor) -> Tensor:
        """The inverse of `per_image`."""
        return _gather(values, self._images_from)


def round_up(count: int, step: int | None = None) -> int:
    """The next multiple of `step`; by default of about a thirtieth of `count`, a power of two, at least 8."""
    step = step or max(8, 1 << max(0, count.bit_length() - 6))
    return -(-count // step) * step


def _padded(index: Tensor, fill: int, value: int) -> Tensor:
    return functional.pad(index, (0, fill), value=value)


def _spread(rows: Tensor, index: Tensor, batch: int, width: int, heads: int) -> Tensor:
    grid = rows.new_zeros(batch * width + 1, rows.shape[-1]).index_copy(0, index, rows)
    return grid[:-1].view(batch, width, heads, -1).transpose(1, 2)


def _gather(values: Tensor, index: Tensor) -> Tensor:
    return values.transpose(1, 2).reshape(-1, values.shape[1] * values.shape[3]).index_select(0, index)
