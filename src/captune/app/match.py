"""`captune match`, `captune embed`: texts and pictures that belong together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import EmbedConfig, MatchConfig, TableOptions, WhereOptions
from captune.core.progress import SILENT, Progress
from captune.data.bulk.listing import find_pictures
from captune.data.inside import Images, mark_written, written_here

if TYPE_CHECKING:
    from captune.engine.matching import Embeddings, Match
    from captune.models.blip_matcher import BlipMatcher

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Matches:
    """Pairs of pictures and texts, and the pictures that could not be read with their reasons."""

    pairs: tuple[Match, ...]
    failed: dict[str, str]


def match(
    pictures: Paths,
    texts: str | Sequence[str],
    *,
    model: str | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Matches:
    """How well texts fit pictures (files, folders, patterns, or an .npz of `captune embed`).

    Options are those of `captune match --help`: with `find` the `best` pictures of each text, or
    texts of each picture, the likeliest first. Without `model` the Hub's `Salesforce/blip-itm-base-coco` is used.
    """
    from captune.engine.matching import Embeddings, embed, match_all, retrieve

    asked = resolve(MatchConfig, environment=_environment(environment), flags=options).values
    find = asked.match.find
    wanted = [texts] if isinstance(texts, str) else list(texts)
    if not wanted or not all(text.strip() for text in wanted):
        raise UsageError("There is no text to match, or an empty one.", "Give texts that say something.")
    matcher, name = load_matcher(model, asked.run_on, progress)
    failed: dict[str, str] = {}
    given = [pictures] if isinstance(pictures, (str, os.PathLike)) else list(pictures)
    kept = [path for path in given if str(path).endswith(".npz")]
    if find == "all" and not kept:
        return Matches(tuple(match_all(matcher, find_pictures(given), wanted, failed, progress)), failed)
    if kept:
        if len(given) > 1:
            raise UsageError("Embeddings are matched alone.", "Name one .npz, or pictures.")
        embedded = Embeddings.load(str(kept[0]))
        if embedded.model != name:
            raise CaptuneError(f"{kept[0]} was made by {embedded.model}, not {name}.", f"Use --model {embedded.model}.")
        embedded = inside(embedded, str(kept[0]), asked.tables)
        if not embedded.images:
            raise CaptuneError(
                f"{kept[0]} names no picture that may be read.", next(iter(embedded.failed.values()), "")
            )
        failed |= embedded.failed
        if find == "all":
            return Matches(tuple(match_all(matcher, embedded.images, wanted, failed, progress)), failed)
    else:
        embedded = embed(matcher, find_pictures(given), name, progress)
    pairs = retrieve(
        matcher,
        embedded,
        wanted,
        best=asked.match.best,
        candidates=asked.match.candidates,
        for_texts=find == "pictures",
        progress=progress,
    )
    return Matches(tuple(pairs), embedded.failed)


def embed(
    pictures: Paths,
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Embeddings:
    """Vectors of pictures in the space that texts share, saved as .npz (`images`, `vectors`, `model`)."""
    from captune.engine.matching import embed as look

    if not str(out).endswith(".npz"):
        raise UsageError(f"{out} does not end in .npz.", "For example: --out photos.npz")
    given = [pictures] if isinstance(pictures, (str, os.PathLike)) else list(pictures)
    paths = find_pictures(given)
    asked = resolve(EmbedConfig, environment=_environment(environment), flags=options).values
    matcher, name = load_matcher(model, asked.run_on, progress)
    found = look(matcher, paths, name, progress)
    if not found.images:
        raise CaptuneError("None of the pictures could be read.", next(iter(found.failed.values()), ""))
    found.save(str(out))
    mark_written(Path(out).parent, [Path(out).name])
    return found


def inside(embedded: Embeddings, file: str, tables: TableOptions) -> Embeddings:
    """Without the pictures that the file names outside of its folder, or of the one that was named."""
    folder, name = os.path.split(file)
    own = written_here(folder, [name])  # by `embed`, on this machine
    images = Images(Path(tables.images) if tables.images else None, tables.allow_outside or own)
    boundary = images.boundary(folder)
    kept = [index for index, name in enumerate(embedded.images) if boundary.holds(name)]
    failed = {name: boundary.reason(name) for name in embedded.images if not boundary.holds(name)}
    names = tuple(embedded.images[index] for index in kept)
    return replace(embedded, images=names, vectors=embedded.vectors[kept], failed={**embedded.failed, **failed})


def load_matcher(model: str | None, run_on: WhereOptions, progress: Progress = SILENT) -> tuple[BlipMatcher, str]:
    """A matcher on its device, and its name (a folder: its whole path)."""
    from captune.engine.loader import load_pretrained
    from captune.models.blip_matcher import MATCHER, BlipMatcher
    from captune.models.devices import choose_device

    name = model or MATCHER
    with progress.task(f"Loading {name}"):
        matcher = load_pretrained(BlipMatcher.load, name)
        matcher.model.to(choose_device(run_on.device))
    return matcher, str(Path(name).resolve()) if Path(name).exists() else name


def _environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if given is None else given
