"""GIT: a CLIP vision transformer whose patches are a prefix of one text transformer.

The image's rows attend to one another and to no token, so they pass the layers once for all captions; a token attends
to them and to the tokens before it in its own caption.

Wang et al. 2022, *GIT: A Generative Image-to-text Transformer*; the weights and layers are
`transformers.GitForCausalLM`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.models.backbone import OPEN_IMAGE, Backbone, Checkpoint, PixelSettings
from captune.models.decoder import Decoder
from captune.models.from_scratch import Size, chosen_size, layers, learn_tokenizer
from captune.models.layers.attention import CaptionGrid, attend
from captune.models.layers.fused import ACTIVATIONS, FusedLinear, FusedSequential, LayerNorm
from captune.models.layers.losses import TokenLosses, token_losses
from captune.models.layers.text_decoder import DecoderLayer, TextDecoder, call_layer
from captune.models.layers.vision_encoder import clip_vision_encoder, resize_clip, resize_processor, set_grid_positions


def decode_grouped(git: Any, image: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False) -> Tensor:
    """Hidden states of every row of the grid, behind the image (images, patches, hidden size)."""
    embeddings = git.embeddings
    hidden = embeddings.word_embeddings(grid.pack(tokens)) + embeddings.position_embeddings(grid.positions)
    hidden = embeddings.dropout(embeddings.LayerNorm(hidden))
    mask = _own_caption_before(grid, image)
    for layer in git.encoder.layer:
        image, hidden = call_layer(_layer, layer, image, hidden, grid, mask, recompute=recompute and git.training)
    return hidden


def _own_caption_before(grid: CaptionGrid, like: Tensor) -> Tensor:
    """0 where a token attends, else -inf; (1, 1, captions · width, patches + captions · width), the image first."""
    slots = torch.arange(grid.max_captions * grid.width, device=like.device)
    caption, step = slots // grid.width, slots % grid.width
    visible = (caption[:, None] == caption) & (step[:, None] >= step)
    over_tokens = torch.zeros(visible.shape, device=like.device).masked_fill(~visible, float("-inf"))
    return functional.pad(over_tokens, (like.shape[1], 0))[None, None]


def _layer(layer: Any, image: Tensor, hidden: Tensor, grid: CaptionGrid, mask: Tensor) -> tuple[Tensor, Tensor]:
    own = layer.attention.self
    heads, dropout = own.num_attention_heads, own.dropout.p if own.training else 0.0
    shape = (*image.shape[:2], heads, -1)
    of_image = [part(image).view(shape).transpose(1, 2) for part in (own.query, own.key, own.value)]
    of_tokens = [grid.per_image(part(hidden), heads) for part in (own.query, own.key, own.value)]
    attended = attend(*of_image, dropout=dropout).transpose(1, 2).flatten(2)
    key, value = (torch.cat([a, b], 2) for a, b in zip(of_image[1:], of_tokens[1:], strict=True))
    read = grid.from_images(attend(of_tokens[0], key, value, mask=mask, dropout=dropout))
    return (
        layer.feed_forward_chunk(layer.attention.output(attended, image)),
        layer.feed_forward_chunk(layer.attention.output(read, hidden)),
    )


def git_decoder(model: Any, dtype: torch.dtype) -> TextDecoder:
    """A `GitForCausalLM`'s text part for generation."""
    git, config = model.git, model.config
    project, norm = git.visual_projection.visual_projection
    return TextDecoder(
        token_embeddings=git.embeddings.word_embeddings.weight,
        position_embeddings=git.embeddings.position_embeddings.weight,
        embedding_norm=LayerNorm(git.embeddings.LayerNorm, dtype),
        layers=[_fused_layer(layer, config.hidden_act, dtype) for layer in git.encoder.layer],
        num_heads=config.num_attention_heads,
        head=FusedLinear(model.output, dtype=dtype),
        dtype=dtype,
        bridge=FusedSequential(FusedLinear(project, dtype=dtype), LayerNorm(norm, dtype)),
    )


def _fused_layer(layer: Any, activation: str, dtype: torch.dtype) -> DecoderLayer:
    own, output = layer.attention.self, layer.attention.output
    return DecoderLayer(
        attention_norm=LayerNorm(output.LayerNorm, dtype),
        qkv=FusedLinear(own.query, own.key, own.value, dtype=dtype),
        attention_out=FusedLinear(output.dense, dtype=dtype),
        cross=None,
        mlp_norm=LayerNorm(layer.output.LayerNorm, dtype),
        mlp=FusedSequential(
            FusedLinear(layer.intermediate.dense, dtype=dtype, activation=activation),
            FusedLinear(layer.output.dense, dtype=dtype),
        ),
    )


class ImagePrefix(nn.Module):
    """Stands in for the vision part while `transformers` searches: its input is the memory, computed before."""

    def forward(self, pixel_values: Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=pixel_values[:, 0])


SIZES = {
    "tiny": Size(32, 8, (32, 2, 2), (48, 2, 2), 0.0),
    "small": Size(128, 16, (256, 4, 4), (256, 4, 4), 0.1),
    "base": Size(224, 16, (768, 12, 12), (768, 6, 12), 0.1),
}


class Git(Backbone):
    """`GitForCausalLM` with its tokenizer and image processor."""

    family: ClassVar[str] = "git"
    kind: ClassVar[str] = "GitForCausalLM"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)
    placed: ClassVar[bool] = True
    text_modules: ClassVar[tuple[str, ...]] = ("git.embeddings", "git.encoder")
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("microsoft/git-base-coco", 177_000_000, "mit"),
        Checkpoint("microsoft/git-large-coco", 394_000_000, "mit"),
    )

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Git:
        loaded = super().load(folder, **options)
        if loaded.model.config.num_image_with_embedding:
            raise CaptuneError(
                f"{folder} is a GIT for films of {loaded.model.config.num_image_with_embedding} images.",
                "Take one for single images, such as microsoft/git-base-coco.",
            )
        return loaded

    @classmethod
    def resize(cls, model: Any, processor: Any, image_size: int | None) -> None:
        if image_size in (None, PixelSettings.of(processor).size):
            return
        vision = model.git.image_encoder
        resize_clip(vision.vision_model.embeddings, image_size)
        vision.config.image_size = model.config.vision_config.image_size = image_size
        for layer in model.git.encoder.layer:
            layer.attention.self.image_patch_tokens = vision.vision_model.embeddings.num_positions
        resize_processor(processor, image_size)

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Git:
        from transformers import GitConfig, GitForCausalLM
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        spec = chosen_size("GIT", SIZES, size, image_size)
        side, patch, vision, text = spec.side, spec.patch, spec.vision, spec.text
        tokenizer = learn_tokenizer(texts, vocab_size)
        ids = tokenizer.get_vocab()
        config = GitConfig(
            vision_config={**layers(vision), "image_size": side, "patch_size": patch},
            **layers(text),
            vocab_size=len(tokenizer),
            max_position_embeddings=128,
            hidden_dropout_prob=spec.dropout,
            attention_probs_dropout_prob=spec.dropout,
            bos_token_id=ids["[CLS]"],
            eos_token_id=ids["[SEP]"],
            pad_token_id=ids["[PAD]"],
        )
        model = GitForCausalLM(config)
        set_grid_positions(
            model.git.image_encoder.vision_model.embeddings.position_embedding.weight.data, side // patch
        )
        processor = CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)
        return cls.from_components(model, tokenizer, processor)

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, GitForCausalLM

processor = AutoImageProcessor.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = GitForCausalLM.from_pretrained("{repo}")
{OPEN_IMAGE}
pixels = processor(image, return_tensors="pt").pixel_values
given = torch.tensor([[model.config.bos_token_id, *tokenizer({prompt!r}, add_special_tokens=False).input_ids]])
found = model.generate(pixel_values=pixels, input_ids=given, {search})
print(tokenizer.decode(found[0, given.shape[1] :], skip_special_tokens=True).strip())"""

    def part_of(self, name: str) -> str:
        return "vision" if "git.image_encoder." in name else "bridge" if "git.visual_projection." in name else "text"

    def shardable_parts(self) -> dict[str, nn.Module]:
        return {"vision": self.model.git.image_encoder, "text": self.model.git.encoder}

    def encode(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.git.image_encoder
        return self.fused_features(
            vision,
            pixel_values,
            lambda: clip_vision_encoder(vision.vision_model, vision.config, self.compute_dtype, post_norm=True),
        )

    def token_losses(
        self,
        memory: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        owner: Tensor,
        given: Tensor,
        *,
        label_smoothing: float = 0.0,
        recompute: bool = False,
    ) -> TokenLosses:
        git = self.model.git
        grid = CaptionGrid(lengths - 1, owner, memory.shape[0])
        hidden = decode_grouped(git, git.visual_projection(memory), tokens, grid, recompute=recompute)
        return token_losses(self.model.output, hidden, tokens, grid, given, label_smoothing)

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        git, vision = self.model.git, self.model.git.image_encoder
        git.image_encoder = ImagePrefix()
        try:
            return self.model.generate(
                input_ids=torch.tensor([list(prefix)], device=memory.device).repeat(memory.shape[0], 1),
                pixel_values=memory[:, None],
                **self.generate_kwargs(options, temperature),
            )
        finally:
            git.image_encoder = vision

    def text_decoder(self) -> Decoder | None:
        if self.model.config.hidden_act not in ACTIVATIONS:
            return None
        git = self.model.git
        text = nn.ModuleList([git.embeddings, git.encoder, git.visual_projection, self.model.output])
        return self.fused("text", text, lambda: git_decoder(self.model, self.compute_dtype))

    def _save_model(self, folder: Path, **weights: Any) -> None:
        from transformers import GitProcessor

        self.set_generation_config(self.model.generation_config)
        self.model.save_pretrained(folder, **weights)
        GitProcessor(self.processor, self.tokenizer).save_pretrained(folder)
