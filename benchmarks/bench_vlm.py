"""Training steps and captions of a vision-language model by captune against plain `transformers`.

    python benchmarks/bench_vlm.py [--threads 2] [--repeats 3]

A LLaVA layout with random weights: SigLIP of 448 pixels (1,024 image tokens), a projector, a Llama of 6 layers of
width 512, 32,000 tokens. A step is 4 images with 5 references of 20 tokens each, vision part frozen: forward, backward,
AdamW. The other side trains an (image, caption) pair a row, 5 rows at a time with accumulated gradients, labels on the
caption alone. Captions: 4 images, 20 new tokens, by `generate` with pixels on the other side; prompts and weights are
the same, images are prepared before. CPU seconds in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench import Bench
from captune.core.options import GenerationOptions
from captune.inference.batches import collate
from captune.models.from_scratch import layers, learn_tokenizer
from captune.models.generate import generate
from captune.models.vlm import Vlm
from captune.models.vlm.from_scratch import TEMPLATE
from captune.models.vlm.images import encode_prepared, prepare
from machine import paired

IMAGES, CAPTIONS, TOKENS, SIDE, PATCH, WORDS = 4, 5, 20, 448, 14, 32_000
SEARCHES = {
    "greedy": {"num_beams": 1},
    "5 beams": {"num_beams": 5},
    "5 samples": {"num_beams": 1, "sample": True, "num_captions": 5, "top_k": 0, "sample_seed": 0},
}


def main() -> None:
    bench = Bench("vlm", __doc__, "transformers", ("captune", "torch", "transformers"), repeats=3)
    asked = bench.begin()
    images = np.random.default_rng(0).integers(0, 255, (IMAGES, 3, SIDE, SIDE), dtype=np.uint8)
    for threads in asked.threads:
        torch.set_num_threads(threads)
        bench.row(f"{threads} threads, training step", paired(_rows(images), _branches(images), asked.repeats))
        for name, options in SEARCHES.items():
            sides = _captions(images, GenerationOptions(max_new_tokens=TOKENS, min_new_tokens=TOKENS, **options))
            bench.row(f"{threads} threads, {name}", paired(*sides, asked.repeats))
    bench.end()


def _vlm() -> Vlm:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessorPil

    torch.manual_seed(0)
    words = learn_tokenizer(["a man on a bike", "two dogs play"], 200)
    words.backend_tokenizer.post_processor = None
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    ids = words.get_vocab()
    config = LlavaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            **layers((384, 6, 6)),
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "llama",
            **layers((512, 6, 8)),
            "vocab_size": WORDS,
            "max_position_embeddings": 2048,
            **{
                f"{name}_token_id": ids[token] for name, token in (("bos", "[CLS]"), ("eos", "[SEP]"), ("pad", "[PAD]"))
            },
        },
        image_token_index=ids["<image>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    images = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        images, words, patch_size=PATCH, vision_feature_select_strategy="full", chat_template=TEMPLATE
    )
    made = Vlm.of_processor(LlavaForConditionalGeneration(config), processor, {"prompt": "", "generation": {}})
    made.freeze(["vision"])
    return made


def _references(vlm: Vlm) -> list[list[Any]]:
    from captune.models.backbone import Encoded

    chance, prefix = np.random.default_rng(1), vlm.codec.start("")

    def one() -> Encoded:
        return Encoded((*prefix, *chance.integers(300, WORDS, TOKENS - 1).tolist(), vlm.eos_token_id), len(prefix))

    return [[one() for _ in range(CAPTIONS)] for _ in range(IMAGES)]


def _step(vlm: Vlm, losses: Callable[[], None]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW([p for p in vlm.model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        losses()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _rows(images: np.ndarray) -> Callable[[], None]:
    """A row for each pair, by the model's own forward pass."""
    vlm = _vlm()
    pixels = torch.cat([prepare(vlm.processor, image).tensors["pixel_values"] for image in _opened(images)])
    references = _references(vlm)
    text = vlm.image_features(images[:1]).texts[0]

    def losses() -> None:
        for image, encoded in zip(pixels, references, strict=True):
            prefix = vlm.with_image(encoded[0].tokens[: encoded[0].prompt_length], text)
            ids = torch.tensor([[*prefix, *one.tokens[one.prompt_length :]] for one in encoded])
            labels = ids.clone()
            labels[:, : len(prefix)] = -100
            one = image[None].expand(len(encoded), -1, -1, -1)
            (vlm.model(input_ids=ids, pixel_values=one, labels=labels).loss / IMAGES).backward()

    return _step(vlm, losses)


def _opened(images: np.ndarray) -> list[Any]:
    from PIL import Image

    return [Image.fromarray(image.transpose(1, 2, 0)) for image in images]


def _branches(images: np.ndarray) -> Callable[[], None]:
    """All captions of an image behind one prefix."""
    vlm = _vlm()
    prepared = [prepare(vlm.processor, image) for image in _opened(images)]
    batch = collate(list(zip(images, _references(vlm), strict=True)), vlm.pad_token_id)

    def losses() -> None:
        captions = {name: value for name, value in batch.items() if name != "images"}
        vlm.token_losses(encode_prepared(vlm.model, prepared), **captions).nll.mean().backward()

    return _step(vlm, losses)


def _captions(images: np.ndarray, options: GenerationOptions) -> tuple[Callable[[], object], Callable[[], object]]:
    vlm = _vlm()
    vlm.model.eval()
    prepared = [prepare(vlm.processor, image) for image in _opened(images)]
    pixels = torch.cat([image.tensors["pixel_values"] for image in prepared])
    text = vlm.image_features(images[:1]).texts[0]
    ids = torch.tensor([vlm.with_image(vlm.codec.start(""), text)] * IMAGES)
    keywords = vlm.generate_kwargs(options, 1.0)

    @torch.inference_mode()
    def plain() -> object:
        return vlm.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, **keywords)

    @torch.inference_mode()
    def own() -> object:
        return generate(vlm, encode_prepared(vlm.model, prepared), options)

    return plain, own


if __name__ == "__main__":
    main()
