"""`captune caption`: pictures in, one row for each out, whatever happens to any of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from captune.app.captioner import Captioner
from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.options import DEFAULT_MODEL, CaptionConfig
from captune.core.progress import SILENT, Progress, track
from captune.data.bulk.pieces import Picture, Piece, Unreadable, find_pieces, read_piece
from captune.data.explained_files import ExplainedFolder
from captune.data.writers.row import CaptionRow


def caption(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    explain: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[CaptionRow]:
    """Caption files, folders (with what lies in them), patterns, archives and addresses, in order.

    Yields a row for every picture; one that cannot be read has status `error` and its
    reason, and stops nothing. Without `model` the Hub's
    `Salesforce/blip-image-captioning-base` is used. Into the folder `explain` go heat maps of
    the words of each picture's best caption. Options are those of `captune caption --help`.
    """
    environment = os.environ if environment is None else environment
    resolved = resolve(CaptionConfig, file=config, environment=environment, flags=options, sets=sets)
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    tables = resolved.values.tables
    pieces = list(
        find_pieces(
            given,
            recursive=resolved.values.caption.recursive,
            warn=progress.warn,
            images=tables.images,
            allow_outside=tables.allow_outside,
        )
    )
    return _rows(pieces, model or DEFAULT_MODEL, resolved, explain, progress)


def _rows(
    pieces: Sequence[Piece], model: str, resolved: Any, explain: str | os.PathLike[str] | None, progress: Progress
) -> Iterator[CaptionRow]:
    with progress.task("Loading the model"):
        captioner = Captioner.load(model, config=resolved)
    folder = None if explain is None else ExplainedFolder(explain)
    counts = [piece.count for piece in pieces]
    total = None if None in counts else sum(count or 0 for count in counts)
    stream = captioner.stream((picture, picture.source) for picture in _pictures(pieces))
    for picture, found in track(stream, progress, "Captioning", total):
        name = picture.name
        if isinstance(found, CaptuneError):
            yield CaptionRow(image=name, captions=(), status="error", error=reason_of(found, name), model=model)
        else:
            if folder is not None:
                source = picture.source() if callable(picture.source) else picture.source
                folder.write(captioner.explain(source, found[0]), name)
            yield CaptionRow(image=name, captions=tuple(found), status="ok", error=None, model=model)


def _pictures(pieces: Iterable[Piece]) -> Iterator[Picture]:
    """The pictures of all pieces; a piece that cannot be read (any more) is one picture with that reason."""
    for piece in pieces:
        try:
            yield from read_piece(piece)
        except CaptuneError as error:
            yield Picture(piece.place, Unreadable(error))


def reason_of(error: CaptuneError, path: str) -> str:
    """Why a picture failed, without its path."""
    reason = getattr(error, "reason", None)
    return reason or error.message.removeprefix(f"{path}: ")
