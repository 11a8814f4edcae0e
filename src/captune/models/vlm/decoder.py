"""The language model for captune's own search: captions as query rows over one cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captune.models.vlm.images import EncodedImages
from captune.models.vlm.rows import additive, diagonal, prefix_mask

if TYPE_CHECKING:
    from captune.models.vlm.family import Vlm


class PrefixDecoder:
    """The language model behind the prefixes of a batch of images: a `captune.decoding.rows.CachedDecoder`.

    Prefixes are padded on the left. Captions of an image are query rows over one cache, as branches are in training.
    """

    def __init__(self, backbone: Vlm, images: EncodedImages) -> None:
        from transformers import DynamicCache

        self.backbone, self.images, self.cache = backbone, images, DynamicCache()

    def prefill(self, prompts: Tensor, rows: int, max_new_tokens: int) -> Tensor:
        backbone, images, device = self.backbone, self.images, prompts.device
        prefixes = [backbone.with_image(one, text) for one, text in zip(prompts.tolist(), images.texts, strict=True)]
        self.prompt_length, width = prompts.shape[1], max(map(len, prefixes))
        ids = torch.full((len(prefixes), width), backbone.pad_token_id)
        starts = backbone.positions(prefixes, images)
        positions = torch.zeros(*starts[0].shape[:-1], *ids.shape, dtype=torch.long)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for number, prefix in enumerate(prefixes):
            ids[number, width - len(prefix) :] = torch.tensor(prefix)
            real[number, width - len(prefix) :] = True
            positions[..., number, width - len(prefix) :] = starts[number]
        self.following = torch.tensor([int(one.max()) + 1 for one in starts], device=device)
        self.padded, self.real, ids = not real.all(), real.to(device), ids.to(device)
        visible = None
        if self.padded:
            readable = prefix_mask(width, both_ways=backbone.reads_both_ways).to(device)
            # A padding token attends to itself: a row without anything to attend to would be no number.
            visible = (self.real[:, None] & readable) | diagonal(width).to(device)
        inputs = backbone.text_inputs(ids, images)
        return self._logits(ids, positions.to(device), visible, last=True, **inputs)

    def step(self, tokens: Tensor, position: int, visible: Tensor | None) -> Tensor:
        images, rows = tokens.shape
        at = (self.following + position - self.prompt_length)[:, None].expand(images, rows)
        positions = at if not self.three_axes else at.expand(3, images, rows)
        if rows == 1 and not self.padded:
            return self._logits(tokens, positions, None)
        if visible is None:
            written = self.cache.get_seq_length() - self.real.shape[1] + rows
            visible = self.real.new_ones(images, rows, written)
        prefix = self.real[:, None].expand(images, rows, -1)
        return self._logits(tokens, positions, torch.cat([prefix, visible], 2))

    def _logits(
        self, ids: Tensor, positions: Tensor, visible: Tensor | None, *, last: bool = False, **inputs: Any
    ) -> Tensor:
        """Scores (images, rows, vocabulary), fp32, of ids (images, rows); of the last row alone with `last`.

        `visible` (images, rows, slots) is what each row attends to; None: all before it.
        """
        self.three_axes = positions.dim() == 3
        backbone = self.backbone
        hidden = backbone.model.model(
            input_ids=ids,
            attention_mask=None if visible is None else additive(visible, backbone.compute_dtype),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **inputs,
        ).last_hidden_state
        logits = backbone.model.get_output_embeddings()(hidden[:, -1:] if last else hidden)
        return logits.to(ids.device).float()  # layers may lie on several devices
