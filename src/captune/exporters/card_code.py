"""Code for a model card that captions with plain `transformers` as captune did: same prompt, same search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captune.core.options import GenerationOptions
from captune.decoding.encoding import prompt_for
from captune.decoding.settings import keywords, normalized

QUESTION = "what is it?"
_IMAGE = 'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")'
# What `generate` does by itself, in every version.
_PLAIN = {
    "min_new_tokens": None, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_return_sequences": 1,
    "do_sample": False, "length_penalty": 1.0, "early_stopping": False, "top_p": 1.0, "temperature": 1.0,
}  # fmt: skip


def card_code(family: str, repo: str, *, prompt: str, generation: Mapping[str, Any], encoder: bool) -> str:
    """Lines of Python that print the caption of photo.jpg; empty for a family that is not known here.

    `generation` are the options of the search (those that differ from the defaults are enough); with `encoder`, the
    language model of a BLIP-2 reads the prompt with an encoder.
    """
    options = normalized(GenerationOptions(**generation))
    chosen = keywords(options, options.temperature)
    search = ", ".join(f"{name}={value!r}" for name, value in chosen.items() if value != _PLAIN.get(name, "none"))
    writer = {"blip": _blip, "blip-vqa": _blip_vqa, "git": _git, "clip-gpt2": _clip_gpt2}.get(family)
    if family == "blip-2":
        return _blip2(repo, prompt, search, encoder=encoder)
    return writer(repo, prompt, search) if writer else ""


def _blip(repo: str, prompt: str, search: str) -> str:
    text = f"text={prompt!r}, " if prompt else ""
    # The processor puts a token behind the prompt, which `generate` takes off again.
    shown = "found[0, inputs.input_ids.shape[1] - 1 :]" if prompt else "found[0]"
    return f"""from PIL import Image, ImageOps
from transformers import BlipForConditionalGeneration, BlipProcessor

processor = BlipProcessor.from_pretrained("{repo}")
model = BlipForConditionalGeneration.from_pretrained("{repo}")
{_IMAGE}
inputs = processor(image, {text}return_tensors="pt")
found = model.generate(**inputs, {search})
print(processor.decode({shown}, skip_special_tokens=True).strip())"""


def _blip_vqa(repo: str, prompt: str, search: str) -> str:
    return f"""from PIL import Image, ImageOps
from transformers import BlipForQuestionAnswering, BlipProcessor

processor = BlipProcessor.from_pretrained("{repo}")
model = BlipForQuestionAnswering.from_pretrained("{repo}")
{_IMAGE}
inputs = processor(image, text={prompt_for(prompt, QUESTION)!r}, return_tensors="pt")
found = model.generate(**inputs, {search})
print(processor.decode(found[0], skip_special_tokens=True).strip())"""


def _git(repo: str, prompt: str, search: str) -> str:
    return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, GitForCausalLM

processor = AutoImageProcessor.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = GitForCausalLM.from_pretrained("{repo}")
{_IMAGE}
pixels = processor(image, return_tensors="pt").pixel_values
given = torch.tensor([[model.config.bos_token_id, *tokenizer({prompt!r}, add_special_tokens=False).input_ids]])
found = model.generate(pixel_values=pixels, input_ids=given, {search})
print(tokenizer.decode(found[0, given.shape[1] :], skip_special_tokens=True).strip())"""


def _clip_gpt2(repo: str, prompt: str, search: str) -> str:
    return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

processor = AutoImageProcessor.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = VisionEncoderDecoderModel.from_pretrained("{repo}")
{_IMAGE}
pixels = processor(image, return_tensors="pt").pixel_values
start = model.generation_config.decoder_start_token_id
given = torch.tensor([[start, *tokenizer({prompt!r}, add_special_tokens=False).input_ids]])
found = model.generate(pixel_values=pixels, decoder_input_ids=given, {search})
print(tokenizer.decode(found[0, given.shape[1] :], skip_special_tokens=True).strip())"""


def _blip2(repo: str, prompt: str, search: str, *, encoder: bool) -> str:
    words = f"*tokenizer({prompt!r}, add_special_tokens=False).input_ids"
    read = f"{words}, text.eos_token_id" if encoder else f"text.bos_token_id, {words}"
    # With an encoder the first token is the one that the decoder starts from; 4.46 gives the new tokens behind one.
    behind = "1" if encoder else "given.shape[1] if found[0, 0] == given[0, 0] else 1"
    return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration

processor = AutoImageProcessor.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = Blip2ForConditionalGeneration.from_pretrained("{repo}")
text = model.config.text_config
{_IMAGE}
pixels = processor(image, return_tensors="pt").pixel_values
seen = [model.config.image_token_index] * model.config.num_query_tokens
given = torch.tensor([[*seen, {read}]])
found = model.generate(
    pixel_values=pixels, input_ids=given, attention_mask=torch.ones_like(given), eos_token_id=text.eos_token_id,
    pad_token_id=text.pad_token_id, {search},
)
behind = {behind}
print(tokenizer.decode(found[0, behind:], skip_special_tokens=True).strip())"""
