"""Options of which prompt an image gets."""

from typing import Literal

from captune.core.options.option import Options, option


class PromptOptions(Options, section="prompts", panel="Prompts"):
    """Several prompts instead of one; --prompt is among the options of the caption search."""

    style: Literal["alt-text", "sentence", "detailed", "tags", "product"] | None = option(
        None,
        "A prompt with the length and the form of captions that go with it, by its name: alt-text, sentence, detailed, "
        "tags or product. Options that are given count more.",
    )
    prompts: str | None = option(
        None,
        "File of prompts of which each image gets one: YAML or JSON (entries with prompt, weight, folder), or a text "
        "file with a prompt a line.",
    )
    prompt_seed: int = option(0, "Another seed gives images other prompts of the file.", ge=0, needs="prompts")
    prompt_column: str | None = option(
        None, "Column of a Parquet file or data set with the prompt of each row, word for word.", max_length=1000
    )
