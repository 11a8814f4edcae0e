"""Captions as branches of one row behind the tokens of their image, or as rows of their own."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """A row of the language model: an image, the prompt, and the captions behind it."""

    image: int
    prefix: tuple[int, ...]
    captions: list[int]
    branches: list[list[int]]

    @property
    def behind(self) -> list[int]:
        """The tokens behind the prompt."""
        return [token for branch in self.branches for token in branch]

    def supervised(self, prefix_length: int) -> Iterable[tuple[int, int, int]]:
        """(place that reads, token that it is to choose, caption) of every token that has a loss."""
        at = prefix_length
        for caption, branch in zip(self.captions, self.branches, strict=True):
            for step, token in enumerate(branch):
                yield (prefix_length - 1 if step == 0 else at + step - 1), token, caption
            at += len(branch)


def grouped_rows(
    tokens: list[list[int]], lengths: list[int], owner: list[int], given: list[int], *, branches: bool
) -> list[Row]:
    """Captions in rows: with `branches` all of an image behind one prompt in one row, else a row each."""
    rows: dict[Any, Row] = {}
    for caption, (text, length, image, before) in enumerate(zip(tokens, lengths, owner, given, strict=True)):
        prefix = tuple(text[:before])
        row = rows.setdefault((image, prefix) if branches else caption, Row(image, prefix, [], []))
        row.captions.append(caption)
        row.branches.append(text[before:length])
    return list(rows.values())


def branch_layout(
    prefixes: list[list[int]], positions: list[Tensor], rows: list[Row], width: int, *, both_ways: bool = False
) -> tuple[Tensor, Tensor]:
    """What is visible (rows, width, width), and position ids, in which a branch reads its prefix and itself.

    `positions` are those of the tokens of each prefix. With `both_ways` a token of a prefix reads all of it, else what
    is before it.
    """
    count = len(rows)
    visible = diagonal(width).repeat(count, 1, 1)
    position_ids = torch.zeros(*positions[0].shape[:-1], count, width, dtype=torch.long)
    for number, (prefix, row) in enumerate(zip(prefixes, rows, strict=True)):
        at = len(prefix)
        visible[number, :at, :at] = prefix_mask(at, both_ways=both_ways)
        position_ids[..., number, :at] = positions[number]
        following = int(positions[number].max()) + 1
        for branch in row.branches:
            end = at + len(branch)
            visible[number, at:end, : len(prefix)] = True
            visible[number, at:end, at:end] = torch.ones(len(branch), len(branch)).tril().bool()
            position_ids[..., number, at:end] = torch.arange(following, following + len(branch))
            at = end
    return visible, position_ids


def windowed_masks(
    visible: Tensor, positions: Tensor, blocks: Tensor, window: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Masks of layers that read everything before a token, and of those that read a `window` of tokens.

    Tokens of one of `blocks` (rows, width), which are numbered from 0, -1 for none, read each other in both.
    """
    together = (blocks[:, :, None] == blocks[:, None]) & (blocks[:, :, None] >= 0)
    near = positions[:, :, None] - positions[:, None] < window
    return {
        "full_attention": additive(visible | together, dtype),
        "sliding_attention": additive(visible & near | together, dtype),
    }


def image_blocks(types: Tensor) -> Tensor:
    """Number of the run of ones that a token is in (rows, width), -1 for none; `types` are 1 at an image's tokens."""
    is_image = types == 1
    begins = is_image & ~torch.nn.functional.pad(is_image, (1, 0))[:, :-1]
    return (begins.cumsum(1) - 1).where(is_image, -1)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask (rows, 1, queries, keys) to add to attention scores, of what is visible (rows, queries, keys)."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def plain_layout(prefixes: list[list[int]], rows: list[Row], width: int) -> dict[str, Tensor]:
    """The mask (rows, tokens) of rows with one caption each, padded on the right."""
    lengths = [len(prefix) + len(row.behind) for prefix, row in zip(prefixes, rows, strict=True)]
    return {"attention_mask": (torch.arange(width) < torch.tensor(lengths)[:, None]).long()}


def prefix_mask(width: int, *, both_ways: bool) -> Tensor:
    """Which tokens of a prefix (width, width) a token of it reads: all, or those before it and itself."""
    whole = torch.ones(width, width, dtype=torch.bool)
    return whole if both_ways else whole.tril()


def diagonal(width: int) -> Tensor:
    """True (width, width) where a token meets itself."""
    return torch.ones(width, dtype=torch.bool).diag()
