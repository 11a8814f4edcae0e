"""Options of `captune alt`."""

from captune.core.options.option import Options, option


class AltOptions(Options, section="alt", panel="Pages and texts"):
    """Which images of pages get an alternative text, and which texts are good enough."""

    root: str | None = option(
        None,
        "Folder that addresses such as /images/a.png begin at. Default: the site, its project, and the usual folders "
        "in it (static, docs, public, assets).",
    )
    exclude: tuple[str, ...] = option(
        (), "Files and folders to leave out, relative to the site: drafts, 'blog/*.html'."
    )
    replace_suspicious: bool = option(
        False, "Replace texts that are none too: a file name, 'image', 'untitled', a number."
    )
    functional: bool = option(
        False, "Write texts for images that are alone in a link or a button too; they have to say what that is for."
    )
    alt_characters: int = option(125, "Longest alternative text, in characters.", ge=10, le=1000)
    min_confidence: float = option(
        0.2, "Captions that the model is less sure of (0-1) are for review, and not written.", ge=0, le=1
    )
    write_flagged: bool = option(False, "Write captions that are for review too.")
    batch_size: int = option(8, "Images per batch.", ge=1, env="BATCH_SIZE")
