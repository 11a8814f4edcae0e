"""Styles: prompts under plain names, with the length and the form of captions that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from captune.captions.wording import worded
from captune.core.config import Resolved
from captune.core.options import WordingOptions
from captune.core.options.verbs import Config
from captune.core.records import Caption

# What a model answers of an image that says nothing.
DECORATIVE = "decorative"


@dataclass(frozen=True)
class Style:
    """A prompt with defaults of options around it; `decorative`: the model may say that an image needs no text."""

    prompt: str
    generation: Mapping[str, Any] = field(default_factory=dict)
    wording: Mapping[str, Any] = field(default_factory=dict)
    decorative: bool = False


STYLES = {
    "alt-text": Style(
        "Write the alternative text of this image for somebody who cannot see it: one plain sentence of at most 125 "
        "characters that says what matters in it[, with the names of {names}]. Do not begin with 'image of' or "
        f"'photo of'. If it is an ornament that says nothing, answer with one word: {DECORATIVE}",
        {"max_new_tokens": 60},
        {"max_characters": 125, "one_line": True},
        decorative=True,
    ),
    "sentence": Style("Describe this image in one sentence.", {"max_new_tokens": 60}, {"one_line": True}),
    "detailed": Style(
        "Describe this image in detail: what is in it and where, colours, light, mood, and any text that can be read.",
        {"max_new_tokens": 400},
    ),
    "tags": Style(
        "List what this image shows as tags: short words in lower case with commas between, the most important first. "
        "Write nothing else.",
        {"max_new_tokens": 120},
        {"one_line": True, "lower_case": True},
    ),
    "product": Style(
        "Describe the product in this photo for a shop in two or three sentences: what it is, its colour, material and "
        "shape. Name a brand only where it can be read, and no price.",
        {"max_new_tokens": 160},
        {"one_line": True},
    ),
}


def style_of(values: Config) -> Style | None:
    """The style that the options of a verb name."""
    options = getattr(values, "prompts", None)
    return STYLES[options.style] if options is not None and options.style is not None else None


def with_style(resolved: Resolved, generation: Mapping[str, Any], *, answers: bool) -> Config:
    """The options as they hold for a model: what nobody set comes from the style, else from what the model saved.

    `generation` are those saved options. Where captions continue their prompt instead of answering it, only the form
    of captions comes from the style.
    """
    style = style_of(resolved.values)
    if style is not None and answers:
        generation = {**generation, **style.generation, "prompt": style.prompt}
    return replace(resolved, values=resolved.with_defaults("generation", generation)).with_defaults(
        "wording", style.wording if style is not None else {}
    )


def wording_of(resolved: Resolved) -> WordingOptions:
    """The form of captions, by the options and the style."""
    style = style_of(resolved.values)
    return resolved.with_defaults("wording", style.wording if style is not None else {}).wording


def only_wording_note(values: Config, family: str, *, answers: bool) -> str | None:
    """What to say of a style whose prompt makes no sense for a model."""
    if answers or style_of(values) is None:
        return None
    return (
        f"--style {values.prompts.style}: captions of {family} continue their prompt instead of answering it, so only "
        "the style's length and form of captions count."
    )


def styled(caption: Caption, wording: WordingOptions, style: Style | None) -> Caption:
    """A caption as the options want it; an image that the model calls decorative has an empty one."""
    if style is not None and style.decorative and caption.text.strip(" \n\"'.*!`").casefold() == DECORATIVE:
        return replace(caption, text="", decorative=True)
    return worded(caption, wording)
