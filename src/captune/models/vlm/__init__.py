"""Vision-language models: any checkpoint of `AutoModelForImageTextToText` in the format of `transformers`."""

from captune.models.vlm.family import Vlm

__all__ = ["Vlm"]
