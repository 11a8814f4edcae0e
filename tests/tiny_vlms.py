"""Tiny vision-language models with random weights, each in the layout of its family: models, processors, templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from captune.models.vlm import Vlm
from captune.models.vlm.processor import build_processor

TEXTS = ("a red circle", "two dogs play in the snow", "a man on a bike .", "Describe this image.", "user assistant")
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SQUARE = {**VISION, "image_size": 56, "patch_size": 14}
SIZE = {"height": 56, "width": 56}
# {0}: what stands for an image, {1}: the end of a turn.
TURNS = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n{{% for part in message['content'] %}}"
    "{{% if part['type'] == 'image' %}}{0}{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{1}\n"
    "{{% endfor %}}{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
LLAVA = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
GEMMA = (
    "<s>{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST]{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}[IMG]{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '[/INST]' if message['role'] == 'user' else '</s>' }}{% endfor %}"
)


def tokenizer(*special: str, end: str = "</s>", **named: str) -> Any:
    """A byte-pair encoding of bytes, with special tokens; `named` are attributes of the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    tokens = list(dict.fromkeys(("<pad>", "<s>", "</s>", *special, end)))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(TEXTS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=learner, pad_token="<pad>", bos_token="<s>", eos_token=end, extra_special_tokens=named
    )
    made.add_special_tokens({"additional_special_tokens": [token for token in special if token not in named.values()]})
    return made


def random_model(kind: str, words: Any, **config: Any) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText

    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    text = {**TEXT, **config.pop("text_config"), "vocab_size": len(words), **ids}
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, text_config=text, **ids, **config))


def llava() -> Vlm:
    import transformers

    words = tokenizer("<image>")
    model = random_model(
        "llava",
        words,
        text_config={"model_type": "llama"},
        vision_config={**SQUARE, "model_type": "clip_vision_model"},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=SIZE)
    values = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return made(model, transformers.LlavaProcessor, images, words, {**values, "chat_template": LLAVA})


def qwen(kind: str) -> Vlm:
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    names = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*names, end="<|im_end|>")
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
    }
    if kind == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [1], "window_size": 56}
    else:
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    ids = {
        f"{name}_token_id": words.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    text = {"rope_parameters": rope, **({"head_dim": 8} if kind == "qwen3_vl" else {})}
    model = random_model(kind, words, text_config=text, vision_config=vision, **ids)
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * 28**2, "longest_edge": 16 * 28**2},
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
    )
    processor = {"qwen2_5_vl": transformers.Qwen2_5_VLProcessor, "qwen3_vl": transformers.Qwen3VLProcessor}[kind]
    template = TURNS.format("<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>")
    return made(model, processor, images, words, {"chat_template": template})


def idefics3() -> Vlm:
    import transformers
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return tiled("idefics3", transformers.Idefics3Processor, Idefics3ImageProcessorPil)


def smolvlm() -> Vlm:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    from captune.models.vlm.image_processors import SmolVLMProcessor

    return tiled("smolvlm", SmolVLMProcessor, SmolVLMImageProcessorPil)


def tiled(kind: str, processor: Any, image_processor: Any) -> Vlm:
    """An image as up to 2 × 2 tiles, and once more as a whole."""
    grid = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    names = ("<|im_start|>", "<fake_token_around_image>", "<image>", "<global-img>", *grid)
    words = tokenizer(*names, end="<end_of_utterance>")
    model = random_model(
        kind,
        words,
        text_config={"model_type": "llama"},
        vision_config=SQUARE,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    images = image_processor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    template = TURNS.format("<image>", "<end_of_utterance>")
    return made(model, processor, images, words, {"image_seq_len": 4, "chat_template": template})


def gemma3() -> Vlm:
    import transformers
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = tokenizer("<start_of_turn>", *named.values(), end="<end_of_turn>", **named)
    model = random_model(
        "gemma3",
        words,
        text_config={"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config=SQUARE,
        mm_tokens_per_image=4,
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
    )
    values = {"image_seq_length": 4, "chat_template": GEMMA}
    return made(model, transformers.Gemma3Processor, Gemma3ImageProcessorPil(size=SIZE), words, values)


def llava_onevision() -> Vlm:
    import transformers
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    words = tokenizer("<|im_start|>", "<image>", "<video>", end="<|im_end|>")
    grids = [[56, 56], [56, 112], [112, 56], [112, 112]]
    model = random_model(
        "llava_onevision",
        words,
        text_config={"model_type": "qwen2"},
        vision_config={**SQUARE, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    images = LlavaOnevisionImageProcessorPil(size=SIZE, image_grid_pinpoints=grids)
    values = {
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
        "chat_template": TURNS.format("<image>", "<|im_end|>"),
    }
    return made(model, transformers.LlavaOnevisionProcessor, images, words, values)


def internvl() -> Vlm:
    import transformers
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer("<|im_start|>", *named.values(), end="<|im_end|>", **named)
    model = random_model(
        "internvl",
        words,
        text_config={"model_type": "qwen2"},
        vision_config={**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = GotOcr2ImageProcessorPil(size=SIZE, crop_to_patches=False)
    values = {"image_seq_length": 4, "chat_template": TURNS.format("<IMG_CONTEXT>", "<|im_end|>")}
    return made(model, transformers.InternVLProcessor, images, words, values)


def mistral3() -> Vlm:
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    from captune.models.vlm.image_processors import PixtralProcessor

    words = tokenizer("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    model = random_model(
        "mistral3",
        words,
        text_config={"model_type": "mistral", "head_dim": 8, "sliding_window": None},
        vision_config={**VISION, "model_type": "pixtral", "head_dim": 16, "image_size": 112, "patch_size": 14},
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
    )
    images = PixtralImageProcessorPil(size={"longest_edge": 112}, patch_size={"height": 14, "width": 14})
    values = {"patch_size": 14, "spatial_merge_size": 2, "chat_template": MISTRAL}
    return made(model, PixtralProcessor, images, words, values)


def paligemma() -> Vlm:
    import transformers

    words = tokenizer("<image>", image_token="<image>")
    model = random_model(
        "paligemma",
        words,
        text_config={"model_type": "gemma", "head_dim": 8, "num_key_value_heads": 1},
        vision_config={**SQUARE, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    images = transformers.SiglipImageProcessorPil(size=SIZE)
    images.image_seq_length = 16
    return made(model, transformers.PaliGemmaProcessor, images, words, {})


def made(model: Any, processor: Any, images: Any, words: Any, values: dict[str, Any]) -> Vlm:
    return Vlm.of_processor(model.eval(), build_processor(processor, images, words, values))


BUILDERS: dict[str, Callable[[], Vlm]] = {
    "llava": llava,
    "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: qwen("qwen3_vl"),
    "idefics3": idefics3,
    "gemma3": gemma3,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "mistral3": mistral3,
    "paligemma": paligemma,
}


def lively(kind: str) -> Vlm:
    """A model whose weights are so large that images decide what it says."""
    return with_large_weights(BUILDERS[kind])


def with_large_weights(build: Callable[[], Vlm]) -> Vlm:
    """What `build` makes, with weights so large that images decide what it says."""
    torch.manual_seed(1)
    vlm = build()
    for parameter in vlm.model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.2)
    if vlm.model.config.model_type == "gemma3":
        vlm.model.model.multi_modal_projector.mm_input_projection_weight.data.mul_(20)
    return vlm


def processed(vlm: Vlm, prompt: str, image: np.ndarray, answer: str | None = None) -> Any:
    """A prompt about an image, answered or not, as its own processor makes tensors of it."""
    pictures = [[Image.fromarray(image.transpose(1, 2, 0))]]
    if not vlm.processor.chat_template:
        text = vlm.processor.image_token + prompt
        return vlm.processor(text=[text], images=pictures, suffix=answer, return_tensors="pt", add_special_tokens=False)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text = vlm.processor.apply_chat_template(messages, add_generation_prompt=answer is None)
    return vlm.processor(text=[text], images=pictures, return_tensors="pt", add_special_tokens=False)
