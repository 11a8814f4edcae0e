"""`captune tag`: keywords of images, by a matcher or from captions."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from captune.captions.tags.labels import Labels, read_labels
from captune.captions.tags.mentions import MentionFinder, list_in
from captune.captions.tags.row import Keyword, TagRow
from captune.captions.writers.writer import encodable
from captune.core.config import Resolved, leaves, resolve
from captune.core.errors import CaptuneError, UsageError, needing_torch
from captune.core.files import as_paths
from captune.core.options import DEFAULT_MATCHER
from captune.core.options.tag import TagOptions
from captune.core.progress import SILENT, Progress, track
from captune.datasets.sources.listing import find_image_paths
from captune.evaluation.review import read_captions
from captune.inference.captioner import Captioner


def tag(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | Resolved | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[TagRow]:
    """Keywords of files, folders (with what lies in them) and patterns, in order.

    Yields a row for every image; one that cannot be read has status `error` and its reason, and stops nothing. A
    matcher (`model`: one that `match` takes; by default the Hub's `Salesforce/blip-itm-base-coco`) finds
    the labels of the file `labels` in images; with `from_captions` or a `captioner` they are found in captions.
    Options are those of `captune tag --help`.
    """
    resolved = resolve("tag", file=config, environment=environment, flags=options, sets=sets)
    chosen: TagOptions = resolved.values.tag
    if chosen.from_captions is not None and chosen.captioner is not None:
        raise UsageError("Captions are read from a file, or written by a model.", "Leave out --captioner.")
    from_captions = chosen.from_captions is not None or chosen.captioner is not None
    if from_captions and model is not None:
        raise UsageError("--model names a matcher, and keywords from captions need none.", "Leave out --model.")
    if chosen.labels is None and not from_captions:
        raise UsageError(
            "No labels were given.",
            "Write keywords into a file, one on each line: --labels labels.txt; or take them from captions: "
            "--from-captions captions.jsonl",
        )
    labels = None if chosen.labels is None else read_labels(chosen.labels)
    images = find_image_paths(as_paths(inputs))
    if from_captions:
        return _from_captions(images, labels, chosen, resolved, progress)
    assert labels is not None
    with needing_torch():
        from captune.inference.tagging import Tagger
        from captune.models.matcher import load_matcher

        matcher = load_matcher(model or DEFAULT_MATCHER, resolved.values.run_on.device, progress)
    return Tagger(matcher, labels, chosen, progress).rows(images, progress)


def _from_captions(
    images: Sequence[str], labels: Labels | None, options: TagOptions, resolved: Resolved, progress: Progress
) -> Iterator[TagRow]:
    finder = None if labels is None else MentionFinder(labels.labels)
    if options.from_captions is not None:
        with progress.task("Reading the captions"):
            captions = _read(options.from_captions, images)
    else:
        captions = _written(str(options.captioner), images, resolved, progress)
    return (_row(image, found, finder, options.best) for image, found in captions)


def _row(image: str, caption: str | CaptuneError, finder: MentionFinder | None, best: int) -> TagRow:
    try:
        if isinstance(caption, CaptuneError):
            raise caption
        found = list_in(caption) if finder is None else finder.find(caption)
    except CaptuneError as error:
        reason = getattr(error, "reason", "") or error.message
        return TagRow(image, (), "error", reason, None if isinstance(caption, CaptuneError) else caption)
    return TagRow(image, tuple(map(Keyword, found[:best])), caption=caption)


def _written(
    name: str, images: Sequence[str], resolved: Resolved, progress: Progress
) -> Iterator[tuple[str, str | CaptuneError]]:
    """The captions that a model writes now, with the options of captions that were given."""
    known = leaves("caption")
    given = {key.partition(".")[2]: key.partition(".")[0] for key in resolved.sources}
    flags = {
        name: getattr(getattr(resolved.values, section), name)
        for name, section in given.items()
        if name in known and known[name].section == section
    }
    with progress.task(f"Loading {name}"):
        captioner = Captioner.load(name, config=resolve("caption", flags=flags))
    stream = captioner.stream((image, image) for image in images)
    for image, found in track(stream, progress, "Captioning", len(images)):
        yield image, found if isinstance(found, CaptuneError) else found[0].text


def _read(path: str, images: Sequence[str]) -> Iterator[tuple[str, str | CaptuneError]]:
    """The caption of each image in a file or a folder, by its path, else by its file name where one image has it."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    by_path: dict[str, str | CaptuneError] = {}
    by_name: dict[str, list[str | CaptuneError]] = {}
    for row in read_captions(path):
        caption = row.captions[0].text if row.captions else CaptuneError(row.error or "it has no caption")
        for place in (row.image, os.path.join(folder, row.image)):
            by_path.setdefault(encodable(os.path.abspath(place)), caption)
        by_name.setdefault(encodable(os.path.basename(row.image)), []).append(caption)

    def found(image: str) -> str | CaptuneError:
        named = by_name.get(encodable(os.path.basename(image)), [])
        missing = CaptuneError(
            f"{path} has no caption of it" if not named else f"{path} has several files of this name"
        )
        return by_path.get(encodable(os.path.abspath(image))) or (named[0] if len(named) == 1 else missing)

    return ((image, found(image)) for image in images)
