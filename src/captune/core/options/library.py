"""Options of a library of images: what is added, and what of it is looked for."""

from typing import Literal

from captune.core.options.option import Options, option


class LibraryOptions(Options, section="library", panel="Library"):
    """Where a library is."""

    library: str | None = option(
        None, "Folder of the library's own files; default: .captune in the folder of the images.", env="CAPTUNE_LIBRARY"
    )


class FilterOptions(Options, section="filter", panel="Which images"):
    """Which images of a library are meant; all that is given has to be true of them."""

    under: str | None = option(None, "Only images in this folder of the library, and those below it.")
    tag: tuple[str, ...] = option((), "Only images with these keywords.")
    mark: str | None = option(None, "Only images with this mark.")
    status: Literal["draft", "approved", "rejected"] | None = option(None, "Only captions with this status.")
    by: str | None = option(None, "Only captions by: person, model, or a model's name.")
    flag: tuple[str, ...] = option((), "Only captions with one of these flags; any: with any flag.")
    confidence: str | None = option(
        None, "Only captions whose confidence is so: '<0.3', '>=0.8'.", pattern=r"^\s*(<=|>=|<|>)\s*\d*\.?\d+\s*$"
    )
    taken: str | None = option(
        None,
        "Only images of this time: a year (2024), a month (2024-07), a day, or from..to (2024-07..2024-08).",
        pattern=r"^\d{4}(-\d\d){0,2}(\.\.(\d{4}(-\d\d){0,2})?)?$",
    )
    without_caption: bool = option(False, "Only images that have no caption.")


Mode = Literal["words", "meaning", "both"]


class SearchOptions(Options, section="search", panel="Search"):
    """How images are searched, and how many are found."""

    mode: Mode = option(
        "words", "words: of the captions; meaning: what the images show, by their vectors; both, joined by rank."
    )
    limit: int = option(50, "Most images.", ge=1, le=100_000)
