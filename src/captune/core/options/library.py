"""Options of a library of images: what is added, and what of it is looked for."""

from typing import Literal

from captune.core.options.option import Language, Options, option


class LibraryOptions(Options, section="library", panel="Library"):
    """Where a library is."""

    library: str | None = option(
        None, "Folder of the library's own files; default: .captune in the folder of the images.", env="CAPTUNE_LIBRARY"
    )


# An image of a data set that was taken out of all its splits.
NO_SPLIT = "none"


class DraftFilterOptions(Options, section="filter", panel="Which images"):
    """Which images of a library a model captions; all that is given has to be true of them."""

    under: str | None = option(None, "Only images in this folder of the library, and those below it.")
    tag: tuple[str, ...] = option((), "Only images with these keywords.")
    mark: str | None = option(None, "Only images with this mark.")
    split: str | None = option(None, "Only images in this split of a data set; none: in no split.")
    status: Literal["draft", "approved", "rejected"] | None = option(None, "Only captions with this status.")
    by: str | None = option(None, "Only captions by: person, model, or a model's name.")
    flag: tuple[str, ...] = option((), "Only captions with one of these flags; any: with any flag.")
    confidence: str | None = option(
        None, "Only captions whose confidence is so: '<0.3', '>=0.8'.", pattern=r"^\s*(<=|>=|<|>)\s*\d*\.?\d+\s*$"
    )
    taken: str | None = option(
        None,
        "Only images of this time: a year (2024), a month (2024-07), a day, from..to (2024-07..2024-08), from.., ..to.",
        pattern=r"^(\d{4}(-\d\d){0,2}(\.\.(\d{4}(-\d\d){0,2})?)?|\.\.\d{4}(-\d\d){0,2})$",
    )
    without_caption: bool = option(False, "Only images that have no caption.")


class FilterOptions(DraftFilterOptions):
    """Which images of a library are meant; all that is given has to be true of them."""

    language: Language | None = option(
        None, "Only captions in this language, as it was noted when they were written: de, fr …; und: not noted."
    )


Mode = Literal["words", "meaning", "both"]


class SearchOptions(Options, section="search", panel="Search"):
    """How images are searched, and how many are found."""

    mode: Mode = option(
        "words", "words: of the captions; meaning: what the images show, by their vectors; both, joined by rank."
    )
    limit: int = option(50, "Most images; 0: all.", ge=0)


class DraftOptions(Options, section="drafting", panel="Drafts"):
    """How a model captions the images of a library."""

    beside: bool = option(False, "Caption images that have captions as well: one more draft beside these.")
    most: int = option(0, "Most images; 0: all.", ge=0)
    batch_size: int = option(8, "Images per batch.", ge=1, env="BATCH_SIZE")


class WriteOptions(Options, section="write", panel="Where to"):
    """Where captions of a library are written for other programs."""

    to: Literal["sidecars", "xmp"] = option(
        "sidecars", "sidecars: text files beside the images; xmp: into the images themselves, nothing encoded again."
    )
    sidecar_suffix: Literal[".txt", ".caption"] = option(".txt", "Ending of sidecars.")
    keywords: bool = option(False, "With --to xmp: the keywords of the images too (dc:subject).")
    dry_run: bool = option(False, "Count what would be written; write nothing.")


class TableFormatOptions(Options, section="as_table", panel="Format"):
    """The format of captions that leave a library."""

    format: str | None = option(
        None,
        "csv, jsonl, json, parquet, coco, imagefolder, kohya, tar, text, txt or xml; default: what the ending of --out "
        "means, and for .jsonl all that the library knows, for captune library import.",
    )


class EditOptions(Options, section="edit", panel="Page"):
    """Where the page for correcting captions is, and who may use it."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: all addresses of this machine.")
    port: int = option(8700, "Port to listen on; 0: any free port.", ge=0, le=65535)
    open_browser: bool = option(False, "Open the page in this machine's browser.")
    who: str | None = option(
        None, "Name under which changes are noted; default: the system's user. With keys, the name of the key."
    )
    scan: bool = option(True, "Bring the library in step with its folder first.")
    keys_file: str | None = option(
        None, "File with a NAME=KEY on each line, besides those in CAPTUNE_API_KEYS (NAME=KEY,...)."
    )
    hosts: tuple[str, ...] = option(
        (), "Host names, besides localhost, that a server without keys accepts on a loopback address (421)."
    )
    follow_links: bool = option(False, "Show images that are links to files outside the folder.")
