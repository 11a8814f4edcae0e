"""Options of keywords: where they come from, which are taken, and where they go."""

from typing import Literal

from captune.core.options.option import Options, option


class TagOptions(Options, section="tag", panel="Keywords"):
    """Which keywords images get, and where these are written."""

    labels: str | None = option(
        None,
        "File with a keyword on each line, synonyms behind it after commas; a line with {label} is a prompt, such as "
        "'a photo of a {label}'.",
    )
    from_captions: str | None = option(
        None,
        "Take keywords from captions instead of a matcher: a file or folder of captune caption. With --labels the "
        "labels that a caption mentions; without, each caption is a list of keywords.",
    )
    captioner: str | None = option(None, "The same from captions that this model writes now.")
    threshold: float | None = option(
        None,
        "Least probability of a keyword. Default: 0.5; 0.1 where the probabilities of all labels add up to 1 (CLIP).",
        ge=0,
        le=1,
    )
    best: int = option(10, "At most this many keywords for an image.", ge=1)
    candidates: int = option(32, "BLIP: number of nearest labels by vector whose probability is computed.", ge=1)
    format: Literal["text", "json", "jsonl", "csv", "sidecar", "xmp"] = option(
        "text",
        "text, json, jsonl or csv: a table; sidecar: a text file for each image; xmp: the images' own keywords (XMP, "
        "and IPTC and XPKeywords where they are).",
    )
    in_place: bool = option(False, "With --format xmp: change the images themselves, not copies.")
    existing: Literal["keep", "replace", "append", "prepend"] = option(
        "append",
        "Keywords that captune did not write: append or prepend new ones, each once; keep: leave such images as they "
        "are; replace them.",
    )
