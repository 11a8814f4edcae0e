"""More kinds of tiny vision-language models with random weights, for the table of docs/models.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from numpy import uint8
from numpy.random import default_rng

from captune.core.errors import CaptuneError
from captune.core.files import write_json
from captune.core.options import GenerationOptions
from captune.images.batches import stack
from captune.inference.batches import collate
from captune.models.generate import generate
from captune.models.loading.loader import load_backbone
from captune.models.vlm import Vlm
from captune.models.vlm.image_processors import PixtralProcessor
from tiny_vlms import (
    BUILDERS,
    SIZE,
    SQUARE,
    TURNS,
    VISION,
    made,
    processed,
    random_model,
    tokenizer,
    with_large_weights,
)

SIGLIP = {**SQUARE, "model_type": "siglip_vision_model", "vision_use_head": False}
CLIP = {**SQUARE, "model_type": "clip_vision_model"}
GRIDS = [[56, 56], [56, 112], [112, 56], [112, 112]]


def _pil(kind: str, name: str) -> Any:
    """The class of an image processor for Pillow."""
    from importlib import import_module

    return getattr(import_module(f"transformers.models.{kind}.image_processing_pil_{kind}"), name)


def _plain(kind: str, processor: Any, images: Any, values: dict[str, Any], **config: Any) -> Vlm:
    """A kind whose image is one token, `<image>`."""
    words = tokenizer("<|im_start|>", "<image>", end="<|im_end|>", image_token="<image>")
    key = config.pop("key", "image_token_id")
    model = random_model(kind, words, **config, **{key: words.convert_tokens_to_ids("<image>")})
    return made(model, processor, images, words, {"chat_template": TURNS.format("<image>", "<|im_end|>"), **values})


def qwen2_vl() -> Vlm:
    return _qwen("qwen2_vl", transformers.Qwen2VLProcessor, {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2})


def _qwen(kind: str, processor: Any, vision: dict[str, Any], text: dict[str, Any] | None = None) -> Vlm:
    names = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*names, end="<|im_end|>")
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{token}|>") for name, token in tokens.items()}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    shape = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    model = random_model(
        kind, words, text_config={"rope_parameters": rope, **(text or {})}, vision_config={**shape, **vision}, **ids
    )
    images = _pil("qwen2_vl", "Qwen2VLImageProcessorPil")(
        size={"shortest_edge": 4 * 28**2, "longest_edge": 16 * 28**2}, patch_size=14, merge_size=2
    )
    template = TURNS.format("<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>")
    return made(model, processor, images, words, {"chat_template": template})


QWEN3 = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def qwen3_vl_moe() -> Vlm:
    vision = {**QWEN3, "deepstack_visual_indexes": [0, 1]}
    return _qwen("qwen3_vl_moe", transformers.Qwen3VLProcessor, vision, {"head_dim": 8, **EXPERTS})


LINEAR = {
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [1, 1, 0],
        "partial_rotary_factor": 0.25,
        "mrope_interleaved": True,
    },
}


def qwen3_5() -> Vlm:
    return _qwen("qwen3_5", transformers.Qwen3VLProcessor, QWEN3, LINEAR)


def qwen3_5_moe() -> Vlm:
    text = {**LINEAR, **EXPERTS, "shared_expert_intermediate_size": 32}
    return _qwen("qwen3_5_moe", transformers.Qwen3VLProcessor, QWEN3, text)


def glm4v() -> Vlm:
    names = ("<|im_start|>", "<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>")
    words = tokenizer(*names, end="<|im_end|>")
    tokens = {"image": "image", "video": "video", "image_start": "begin_of_image", "image_end": "end_of_image"}
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(f"<|{token}|>") for name, token in tokens.items()}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "image_size": 112}
    vision |= {"out_hidden_size": 32, "intermediate_size": 64, "spatial_merge_size": 2, "temporal_patch_size": 2}
    model = random_model("glm4v", words, text_config={"rope_parameters": rope}, vision_config=vision, **ids)
    images = _pil("glm4v", "Glm4vImageProcessorPil")(
        size={"shortest_edge": 4 * 28**2, "longest_edge": 32 * 28**2}, patch_size=14, merge_size=2
    )
    template = TURNS.format("<|begin_of_image|><|image|><|end_of_image|>", "<|im_end|>")
    return made(model, transformers.Glm4vProcessor, images, words, {"chat_template": template})


def vipllava() -> Vlm:
    values = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _plain(
        "vipllava",
        transformers.LlavaProcessor,
        transformers.CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=SIZE),
        values,
        key="image_token_index",
        text_config={"model_type": "llama"},
        vision_config=CLIP,
        vision_feature_layers=[-2, -1],
        image_seq_length=16,
    )


def llava_next() -> Vlm:
    values = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return _plain(
        "llava_next",
        transformers.LlavaNextProcessor,
        _pil("llava_next", "LlavaNextImageProcessorPil")(
            size={"shortest_edge": 56}, crop_size=SIZE, image_grid_pinpoints=GRIDS
        ),
        values,
        key="image_token_index",
        text_config={"model_type": "mistral", "sliding_window": None},
        vision_config=CLIP,
        image_grid_pinpoints=GRIDS,
    )


def aya_vision() -> Vlm:
    named = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_1", "TILE_GLOBAL")
    words = tokenizer("<|im_start|>", "<image>", *named, end="<|im_end|>")
    model = random_model(
        "aya_vision",
        words,
        text_config={
            "model_type": "cohere2",
            "head_dim": 8,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config=SIGLIP,
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )
    images = _pil("got_ocr2", "GotOcr2ImageProcessorPil")(size=SIZE, max_patches=1)
    values = {"patch_size": 14, "img_size": 56, "downsample_factor": 2}
    template = TURNS.format("<image>", "<|im_end|>")
    return made(model, transformers.AyaVisionProcessor, images, words, {**values, "chat_template": template})


def deepseek_vl() -> Vlm:
    return _plain(
        "deepseek_vl",
        transformers.DeepseekVLProcessor,
        _pil("deepseek_vl", "DeepseekVLImageProcessorPil")(size=SIZE, min_size=14),
        {"num_image_tokens": 16},
        text_config={"model_type": "llama"},
        vision_config=SIGLIP,
    )


def idefics2() -> Vlm:
    words = tokenizer("<|im_start|>", "<fake_token_around_image>", "<image>", end="<end_of_utterance>")
    perceiver = {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2}
    model = random_model(
        "idefics2",
        words,
        text_config={"model_type": "mistral", "sliding_window": None},
        vision_config=SQUARE,
        perceiver_config={**perceiver, "resampler_head_dim": 8, "num_key_value_heads": 1},
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    images = _pil("idefics2", "Idefics2ImageProcessorPil")(size={"shortest_edge": 28, "longest_edge": 56})
    template = TURNS.format("<image>", "<end_of_utterance>")
    values = {"image_seq_len": 4, "chat_template": template}
    return made(model, transformers.Idefics2Processor, images, words, values)


def gemma4() -> Vlm:
    named = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"}
    sound = {"boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>"}
    special = (*named.values(), *sound.values(), "<|video|>")
    words = tokenizer("<|im_start|>", *special, end="<|im_end|>", **named, **sound)
    ids = {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in named.items()}
    text = {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    text |= {"vocab_size_per_layer_input": len(words), "hidden_size_per_layer_input": 8, "global_head_dim": 8}
    vision = {**VISION, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 8, "pooling_kernel_size": 2}
    model = random_model(
        "gemma4",
        words,
        text_config=text,
        vision_config={**vision, "position_embedding_size": 64},
        audio_config=None,
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
        **ids,
    )
    images = _pil("gemma4", "Gemma4ImageProcessorPil")(patch_size=8, pooling_kernel_size=2, max_soft_tokens=70)
    template = TURNS.format("<|image|>", "<|im_end|>")
    return made(model, transformers.Gemma4Processor, images, words, {"chat_template": template})


def ovis2() -> Vlm:
    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    words = tokenizer("<|im_start|>", "<image>", "<IMG_ATOM>", *marks, end="<|im_end|>")
    model = random_model(
        "ovis2",
        words,
        text_config={"model_type": "qwen2"},
        vision_config={**SQUARE, "vocab_size": 64, "hidden_stride": 2},
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(list(marks)),
        vocab_size=len(words),
        hidden_size=32,
    )
    images = _pil("ovis2", "Ovis2ImageProcessorPil")(size=SIZE, crop_to_patches=False)
    values = {"image_seq_length": 4, "chat_template": TURNS.format("<image>", "<|im_end|>")}
    return made(model, transformers.Ovis2Processor, images, words, values)


def janus() -> Vlm:
    named = {"boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image>"}
    words = tokenizer("<|im_start|>", *named.values(), end="<|im_end|>", **named)
    vq = {"embed_dim": 8, "num_embeddings": 16, "latent_channels": 8, "base_channels": 32, "num_res_blocks": 1}
    vq |= {"channel_multiplier": [1, 1], "projection_dim": 32, "image_token_embed_dim": 32, "num_patches": 4}
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    model = random_model(
        "janus",
        words,
        text_config={"model_type": "llama"},
        vision_config={**vision, "projection_dim": 32, "num_image_tokens": 16},
        vq_config=vq,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    images = _pil("janus", "JanusImageProcessorPil")(size=SIZE, min_size=14)
    values = {"num_image_tokens": 16, "chat_template": TURNS.format("<image>", "<|im_end|>")}
    return made(model, transformers.JanusProcessor, images, words, values)


def aria() -> Vlm:
    return _plain(
        "aria",
        transformers.AriaProcessor,
        _pil("aria", "AriaImageProcessorPil")(max_image_size=490),
        {"size_conversion": {490: 4, 980: 8}},
        key="image_token_index",
        text_config={"moe_num_experts": 4, "moe_topk": 2},
        vision_config={**VISION, "model_type": "idefics3_vision", "image_size": 490, "patch_size": 98},
        projector_patch_to_query_dict={25: 4, 100: 8},
    )


def video_llama_3() -> Vlm:
    words = tokenizer("<|im_start|>", "<|image_pad|>", "<|video_pad|>", end="<|im_end|>")
    model = random_model(
        "video_llama_3",
        words,
        text_config={"model_type": "qwen2"},
        vision_config={**VISION, "patch_size": 14},
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
    )
    images = _pil("video_llama_3", "VideoLlama3ImageProcessorPil")(
        size={"shortest_edge": 4 * 14**2, "longest_edge": 16 * 14**2}, patch_size=14
    )
    values = {"chat_template": TURNS.format("<|image_pad|>", "<|im_end|>")}
    return made(model, transformers.VideoLlama3Processor, images, words, values)


def lighton_ocr() -> Vlm:
    named = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    words = tokenizer("<|im_start|>", *named.values(), end="<|im_end|>", **named)
    model = random_model(
        "lighton_ocr",
        words,
        text_config={"model_type": "qwen3", "head_dim": 8},
        vision_config={**VISION, "model_type": "pixtral", "head_dim": 16, "image_size": 112, "patch_size": 14},
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
    )
    images = _pil("pixtral", "PixtralImageProcessorPil")(
        size={"longest_edge": 112}, patch_size={"height": 14, "width": 14}
    )
    values = {"patch_size": 14, "spatial_merge_size": 2, "chat_template": TURNS.format("[IMG]", "<|im_end|>")}
    return made(model, transformers.LightOnOcrProcessor, images, words, values)


def pixtral() -> Vlm:
    words = tokenizer("<|im_start|>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", end="<|im_end|>")
    model = random_model(
        "llava",
        words,
        text_config={"model_type": "mistral", "head_dim": 8, "sliding_window": None},
        vision_config={**VISION, "model_type": "pixtral", "head_dim": 16, "image_size": 112, "patch_size": 14},
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    images = _pil("pixtral", "PixtralImageProcessorPil")(
        size={"longest_edge": 112}, patch_size={"height": 14, "width": 14}
    )
    values = {"patch_size": 14, "chat_template": TURNS.format("[IMG]", "<|im_end|>")}
    return made(model, PixtralProcessor, images, words, values)


MORE: dict[str, Callable[[], Vlm]] = {
    "qwen2_vl": qwen2_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "qwen3_5": qwen3_5,
    "qwen3_5_moe": qwen3_5_moe,
    "glm4v": glm4v,
    "vipllava": vipllava,
    "llava_next": llava_next,
    "llava (Pixtral)": pixtral,
    "aya_vision": aya_vision,
    "deepseek_vl": deepseek_vl,
    "gemma4": gemma4,
    "ovis2": ovis2,
    "janus": janus,
    "aria": aria,
    "video_llama_3": video_llama_3,
    "lighton_ocr": lighton_ocr,
}
KINDS: dict[str, Callable[[], Vlm]] = {**BUILDERS, **MORE}


# Kinds that are refused: the classes that a published folder names for its processor and for its image processor.
REFUSED = {
    "llama4": ("Llama4Processor", "Llama4ImageProcessor"),
    "lfm2_vl": ("Lfm2VlProcessor", "Lfm2VlImageProcessor"),
    "cohere2_vision": ("Cohere2VisionProcessor", "Cohere2VisionImageProcessor"),
    "perception_lm": ("PerceptionLMProcessor", "PerceptionLMImageProcessor"),
    "molmo2": ("Molmo2Processor", "Molmo2ImageProcessor"),
    "kimi_k25": ("Kimi_K25Processor", "Kimi_K25ImageProcessor"),
    "mllama": ("MllamaProcessor", "MllamaImageProcessor"),
    "kosmos-2": ("Kosmos2Processor", "CLIPImageProcessor"),
    "idefics": ("IdeficsProcessor", "IdeficsImageProcessor"),
    "idefics2": ("Idefics2Processor", "Idefics2ImageProcessor"),
    "pix2struct": ("Pix2StructProcessor", "Pix2StructImageProcessor"),
    "udop": ("UdopProcessor", "LayoutLMv3ImageProcessor"),
    "instructblip": ("InstructBlipProcessor", "BlipImageProcessor"),
}


def save_refused(kind: str, folder: Path) -> None:
    """A folder of a kind with all but its weights, as published: the refusal comes before they are read."""
    from transformers import AutoConfig

    named = {} if kind == "idefics2" else {"image_token": "<image>"}
    words = tokenizer("<|im_start|>", "<image>", end="<|im_end|>", **named)
    words.chat_template = TURNS.format("<image>", "<|im_end|>")
    words.save_pretrained(folder)
    AutoConfig.for_model(kind).save_pretrained(folder)
    processor, images = REFUSED[kind]
    write_json(folder / "processor_config.json", {"processor_class": processor})
    write_json(folder / "preprocessor_config.json", {"image_processor_type": images, "processor_class": processor})


def tried(kind: str) -> dict[str, str]:
    """What a kind does: its `text` model, whether captions of an image are `branches` or `rows`; or a `message`.

    Raises `AssertionError` where it captions an image in a batch, or after it was saved, in another way than alone or
    than plain `generate`, where references have other losses together or than by a plain pass, where the image does
    not matter, or where a weight of the language model does not learn.
    """
    with TemporaryDirectory() as folder:
        if kind in REFUSED:
            save_refused(kind, Path(folder))
            try:
                load_backbone(folder)
            except CaptuneError as error:
                return {"message": error.message}
            raise AssertionError(f"{kind} is not refused any more")
        vlm = with_large_weights(KINDS[kind])
        vlm.save(folder)
        again = load_backbone(folder)
    images = stack([default_rng(n).integers(0, 255, (3, *size), dtype=uint8) for n, size in enumerate(SIZES)])
    with torch.inference_mode():
        together = _tokens(vlm, images)
        assert together == [tokens for n in range(len(images)) for tokens in _tokens(vlm, images[n : n + 1])], kind
        assert together == _tokens(again, images), kind
    assert _greedy(vlm, images[:1]) == _plain_tokens(vlm, images[0]), kind
    losses = _losses(vlm, images, REFERENCES)
    alone = [_losses(vlm, images[n : n + 1], [[text]]) for n, texts in enumerate(REFERENCES) for text in texts]
    torch.testing.assert_close(losses, torch.cat(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[0], _plain_losses(vlm, images[:1], REFERENCES[0][0]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(_losses(vlm, images[:1], [["x"]]), _losses(vlm, images[1:2], [["x"]])), kind
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vlm.parts()["text"]), kind
    assert all(vlm.parts().values()), kind
    return {"text": vlm.text_config.model_type, "references": "branches" if vlm.branches else "rows"}


SIZES = [(60, 90), (110, 70), (64, 64)]
REFERENCES = [["a dog runs", "two dogs play in the snow"], ["x"], ["a man on a bike", "a red circle ."]]


def _tokens(vlm: Any, images: Any) -> list[list[tuple[int, ...]]]:
    found = generate(vlm, vlm.image_features(images), GenerationOptions(num_beams=3, num_captions=2, max_new_tokens=6))
    return [[caption.tokens for caption in each] for each in found]


def _plain_losses(vlm: Vlm, images: Any, text: str) -> torch.Tensor:
    """By a pass of the whole model over one row."""
    encoded = vlm.encode_reference(text, 20)
    with torch.no_grad():
        forced = vlm.teacher_forced(vlm.image_features(images), encoded.tokens, encoded.prompt_length)
    assert forced is not None
    labels = torch.tensor(encoded.tokens[encoded.prompt_length :])
    return torch.nn.functional.cross_entropy(forced.logits[: len(labels)], labels, reduction="none")


def _greedy(vlm: Vlm, images: Any) -> list[int]:
    with torch.inference_mode():
        options = GenerationOptions(num_beams=1, max_new_tokens=6)
        return list(generate(vlm, vlm.image_features(images), options)[0][0].tokens)


def _plain_tokens(vlm: Vlm, image: Any) -> list[int]:
    inputs = processed(vlm, vlm.prompt, image)
    inputs.pop("labels", None)
    search = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": vlm.eos_token_id}
    with torch.inference_mode():
        ids = vlm.model.generate(**inputs, **search, suppress_tokens=list(vlm.suppressed_tokens))
    return list(ids[0, inputs["input_ids"].shape[1] :].tolist())


def _losses(vlm: Any, images: Any, references: list[list[str]]) -> torch.Tensor:
    encoded = [[vlm.encode_reference(text, 20) for text in texts] for texts in references]
    batch = collate(list(zip(images, encoded, strict=True)), vlm.pad_token_id)
    return vlm.token_losses(vlm.image_features(batch.pop("images")), **batch).nll
