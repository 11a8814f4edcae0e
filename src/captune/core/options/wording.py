"""Options of what is made of a caption's text, once a model has written it."""

from captune.core.options.option import Options, option


class WordingOptions(Options, section="wording", panel="Around the caption"):
    """What captune adds to a caption, and how long it may be; no model is asked for it."""

    prefix: str = option("", "Text before every caption, such as a trigger word.", max_length=1000)
    suffix: str = option("", "Text behind every caption.", max_length=1000)
    max_characters: int = option(
        0,
        "Shorten captions to at most this many characters, --prefix and --suffix included, at the end of a sentence, "
        "else of a word; 0: no limit.",
        ge=0,
    )
    lower_case: bool = option(False, "Captions in lower case; --prefix and --suffix stay as they are.")
    one_line: bool = option(False, "Line breaks and repeated spaces become one space.")
