"""BLIP-2's matching: queries read the image, and the one that is nearest to a text says how near they are.

Li et al. 2023, *BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models*; weights and layers are `transformers.Blip2ForImageTextRetrieval`. Images are encoded once for all their texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from captune.models.blip_matcher import BlipMatcher


class Blip2Matcher(BlipMatcher):
    """As BLIP's matching, with a vector of the image for each query."""

    architecture = "Blip2ForImageTextRetrieval"

    @property
    def longest(self) -> int:
        return int(self.model.config.qformer_config.max_position_embeddings)

    @property
    def image_vectors(self) -> int:
        return int(self.model.config.num_query_tokens)

    @torch.inference_mode()
    def embed_images(self, patches: Tensor) -> Tensor:
        """Unit vectors (images, queries, size)."""
        read = self.model.qformer(
            query_embeds=self._queries(patches), encoder_hidden_states=patches, encoder_attention_mask=_whole(patches)
        ).last_hidden_state
        return functional.normalize(self.model.vision_projection(read), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (texts, size)."""
        inputs = self._text_inputs(texts)
        tokens = self.model.embeddings(input_ids=inputs["input_ids"])
        read = self.model.qformer(query_embeds=tokens, query_length=0, attention_mask=inputs["attention_mask"])
        return functional.normalize(self.model.text_projection(read.last_hidden_state[:, 0]), dim=-1)

    @torch.inference_mode()
    def probability(self, patches: Tensor, texts: Sequence[str]) -> Tensor:
        """For each row (rows, length, width) and the text beside it, the probability that they belong together."""
        queries, inputs = self._queries(patches), self._text_inputs(texts)
        read = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=inputs["input_ids"], query_embeds=queries),
            query_length=self.image_vectors,
            attention_mask=torch.cat([_whole(queries), inputs["attention_mask"]], 1),
            encoder_hidden_states=patches,
            encoder_attention_mask=_whole(patches),
        ).last_hidden_state
        logits = self.model.itm_head(read[:, : self.image_vectors]).mean(1)
        return logits.float().softmax(-1)[:, 1]

    def _queries(self, patches: Tensor) -> Tensor:
        return self.model.query_tokens.expand(len(patches), -1, -1)


def _whole(rows: Tensor) -> Tensor:
    """A mask (rows, length) that hides nothing of (rows, length, width)."""
    return torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device)
