"""Routes that show a library: lists of images, what is known of them, the images themselves, counts."""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from captune.core.options.library import FilterOptions, Mode
from captune.library.listing import (
    Order,
    image_details,
    image_history,
    keyword_counts,
    listed_ids,
    mark_counts,
    split_counts,
)
from captune.library.query import condition_of
from captune.library.sets.data_set import is_unwritten
from captune.library.touched import serial_of, touched_since
from captune.server.editor.service import EditorService, TheEditor
from captune.server.editor.thumbnails import SIDES
from captune.server.problems import Problem
from captune.server.service import TheContext

router = APIRouter(prefix="/v1/library", tags=["library"])
MAX_DETAILS = 500


# Images that are found by meaning: the rest is ever less like what was looked for.
MAX_SIMILAR = 500


class ListQuery(FilterOptions):
    """Which images, and in which order; those that are found by meaning, or by an image, are the most similar first."""

    words: str = Field("", max_length=2000)
    mode: Mode = "words"
    like: int | None = Field(None, description="Number of an image that those which are looked for resemble.")
    order: Order = "path"

    @property
    def by_meaning(self) -> bool:
        return self.like is not None or (self.mode != "words" and bool(self.words.strip()))


@router.get("/images", summary="Images in an order")
async def images(service: TheEditor, query: Annotated[ListQuery, Query()]) -> dict[str, Any]:
    """The numbers of all images that the conditions are true of: 700 KB for 100,000.

    The list is that of the moment: an image does not move in it or leave it while somebody corrects it.
    """
    filter = FilterOptions(**query.model_dump(include=set(FilterOptions.model_fields)))
    serial = await service.read(serial_of)  # first: what changes meanwhile is told later
    if query.by_meaning:
        found = await service.search.search(
            query.words, mode=query.mode, like=query.like, limit=MAX_SIMILAR, filter=filter
        )
        return {"images": [each.image for each in found], "serial": serial}
    return {"images": await service.read(listed_ids, query.words, condition_of(filter), query.order), "serial": serial}


@router.get("/details", summary="What is known of images")
async def details(service: TheEditor, image: Annotated[list[int], Query(max_length=MAX_DETAILS)]) -> dict[str, Any]:
    """Path, size, keywords, mark and captions of images."""
    return {"images": await service.read(image_details, image)}


@router.get("/images/{image}/jpeg", summary="An image as JPEG", response_class=Response)
async def jpeg(
    service: TheEditor, image: int, side: Annotated[int, Query(ge=1)] = SIDES[0], digest: str = ""
) -> Response:
    """The upright image, its longer side at most the next of 320, 800, 1600 pixels; cacheable with its `digest`."""
    path, known = await service.read(file_of, image)
    data = await service.decode(service.thumbnails.jpeg, path, known, side)
    age = "private, max-age=31536000, immutable" if digest and digest == known else "no-cache"
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": age})


def file_of(connection: sqlite3.Connection, image: int) -> tuple[str, str]:
    """Path and digest of an image; raises `Problem` (404)."""
    row = connection.execute("SELECT path, digest FROM images WHERE id = ? AND gone IS NULL", (image,)).fetchone()
    if row is None:
        raise Problem(404, f"There is no image {image}.", "Load the list again.")
    return row["path"], row["digest"]


@router.get("/images/{image}/history", summary="History of an image")
async def history(service: TheEditor, image: int) -> dict[str, Any]:
    """Everything that was done to an image, the latest first."""
    return {"events": await service.read(image_history, image)}


@router.get("/keywords", summary="Keywords with counts")
async def keywords(
    service: TheEditor, beginning: str = "", limit: Annotated[int, Query(ge=1, le=10_000)] = 200
) -> dict[str, Any]:
    """Keywords that begin so, the commonest first."""
    found = await service.read(keyword_counts, beginning, limit)
    return {"keywords": [{"keyword": keyword, "images": count} for keyword, count in found]}


@router.get("/about", summary="Counts of the library")
async def about(service: TheEditor, context: TheContext) -> dict[str, Any]:
    """How many images, captions, statuses, flags and marks there are; who one is, and which models can caption."""
    return {
        **await service.count(), "marks": await service.read(mark_counts), "splits": await service.read(split_counts),
        "data_set": await _data_set(service),
        "who": service.who_of(context), "models": list(service.models),
    }  # fmt: skip


async def _data_set(service: EditorService) -> dict[str, Any] | None:
    """What the library is of, and whether its files have all of what people changed; None: of a folder of images."""
    data_set = service.library.data_set
    return None if data_set is None else {"kind": data_set.kind, "unwritten": await service.read(is_unwritten)}


@router.get("/changes", summary="What changed lately")
async def changes(service: TheEditor, since: int) -> dict[str, Any]:
    """Images that changed since a serial number, by whatever process; null where too many did: load all again."""
    serial = await service.read(serial_of)
    return {"images": await service.read(touched_since, since), "serial": serial}
