"""Vision-language models from scratch, in InternVL's layout: a ViT, a projector that joins four tokens, a Qwen2."""

from typing import Any

from captune.models.from_scratch import SPECIAL, Size, layers
from captune.models.vlm.processor import build_processor

SIZES = {"tiny": Size(32, 4, (32, 2, 2), (48, 2, 2), 0.0), "small": Size(128, 16, (256, 4, 4), (256, 4, 4), 0.1)}
IMAGE_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<image>",
    "video_token": "<video>",
}
# The message of a model from scratch: the image, and what a prompt says.
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'user' %}[CLS]{% else %}[SEP]{% endif %}{% endfor %}"
)


def new_model(spec: Size, tokenizer: Any) -> tuple[Any, Any]:
    """A model of these shapes with random weights, and its processor; `tokenizer` is as `learn_tokenizer` makes it."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor
    from transformers import PreTrainedTokenizerFast as Tokenizer
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    learned = tokenizer.backend_tokenizer
    learned.post_processor = None
    tokenizer = Tokenizer(
        tokenizer_object=learned, **SPECIAL, extra_special_tokens=IMAGE_TOKENS, clean_up_tokenization_spaces=False
    )
    ids = tokenizer.get_vocab()
    config = InternVLConfig(
        vision_config={
            **layers(spec.vision),
            "attention_bias": True,
            "image_size": (spec.side, spec.side),
            "patch_size": (spec.patch, spec.patch),
            "layer_scale_init_value": 1.0,
        },
        text_config={
            "model_type": "qwen2",
            **layers(spec.text),
            "intermediate_size": 8 * spec.text[0] // 3 // 8 * 8,
            "num_key_value_heads": spec.text[2],
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
            "attention_dropout": spec.dropout,
            "residual_stream_dropout": spec.dropout,
            "tie_word_embeddings": True,
            "bos_token_id": ids["[CLS]"],
            "eos_token_id": ids["[SEP]"],
            "pad_token_id": ids["[PAD]"],
        },
        image_token_id=ids[IMAGE_TOKENS["context_image_token"]],
        image_seq_length=(spec.side // spec.patch // 2) ** 2,
        tie_word_embeddings=True,
    )
    # The processor cuts tiles whatever `crop_to_patches` says; at most one is the whole image.
    images = GotOcr2ImageProcessorPil(size={"height": spec.side, "width": spec.side}, min_patches=1, max_patches=1)
    values = {"image_seq_length": config.image_seq_length, "chat_template": TEMPLATE}
    return InternVLForConditionalGeneration(config), build_processor(InternVLProcessor, images, tokenizer, values)
