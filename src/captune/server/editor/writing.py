"""Routes that change a library, each as a step that can be undone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from captune.core.errors import ImageError
from captune.library.bulk import make_bulk
from captune.library.database import Database
from captune.library.history import Draft, Editor, Step, editing, redo, rewrite, undo
from captune.library.listing import image_details, listed_captions, printable
from captune.library.replacing import digest_of, find_changes, make_changes
from captune.server.bodies import RequestBody
from captune.server.editor.reading import MAX_DETAILS, file_of
from captune.server.editor.schemas import (
    AnyChange,
    BulkRequest,
    DraftRequest,
    RemoveCaption,
    ReplaceRequest,
    SetKeywords,
    SetMark,
    SetSplit,
    SetStatus,
    StepRequest,
    WriteCaption,
)
from captune.server.editor.service import EditorService, TheEditor
from captune.server.service import TheContext

router = APIRouter(prefix="/v1/library", tags=["library"])
STEP = RequestBody(
    StepRequest, {"changes": [{"kind": "caption", "image": 1, "of": 1, "text": "a dog in the snow"}]}, forms=False
)
REPLACE = RequestBody(ReplaceRequest, {"find": "dgo", "replace": "dog"}, forms=False)
BULK = RequestBody(
    BulkRequest, {"filter": {"flag": []}, "change": {"kind": "status", "status": "approved"}}, forms=False
)
DRAFT = RequestBody(DraftRequest, {"model": "base", "images": [1]}, forms=False)


@router.post("/steps", summary="Change captions, statuses, keywords, marks")
async def steps(
    request: Annotated[StepRequest, Depends(STEP)], service: TheEditor, context: TheContext
) -> dict[str, Any]:
    """Make changes as one step: it is on the disk when this answers. 409: nothing is changed, and what stands there."""
    who = service.who_of(context)
    return await _answer(service, *await service.write(_make_step, service.library.database, who, request))


def _make_step(database: Database, who: str, request: StepRequest) -> tuple[Step | None, list[int]]:
    first = request.changes[0]
    if request.rewrites is not None and isinstance(first, WriteCaption) and len(request.changes) == 1:
        caption = rewrite(database, who, request.rewrites, first.text, of=first.of)
        if caption is not None:
            return Step(request.rewrites, request.name, (first.image,)), [caption]
    with editing(database, who, request.name) as editor:
        captions = [_make(editor, change) for change in request.changes]
    step = Step(editor.step, request.name, tuple(editor.images)) if editor.images else None
    return step, [caption for caption in captions if caption is not None]


def _make(editor: Editor, change: AnyChange) -> int | None:
    """Make a change; the caption that it wrote."""
    if isinstance(change, WriteCaption):
        return editor.write_caption(change.image, change.text, of=change.of, language=change.language)
    if isinstance(change, RemoveCaption):
        editor.remove_caption(change.image, change.caption)
    elif isinstance(change, SetStatus):
        editor.set_status(change.caption, change.status, was=change.was)
    elif isinstance(change, SetMark):
        editor.set_mark(change.image, change.mark)
    elif isinstance(change, SetSplit):
        editor.set_split(change.image, change.split)
    elif isinstance(change, SetKeywords):
        editor.set_keywords(change.image, add=change.add, remove=change.remove)
    return None


@router.post("/undo", summary="Undo the last step")
async def undo_step(service: TheEditor, context: TheContext) -> dict[str, Any]:
    """Take back one's own last step; 409, and nothing is changed, where somebody changed the same since."""
    return await _move(service, partial(undo, service.library.database, service.who_of(context)))


@router.post("/redo", summary="Do a step again")
async def redo_step(service: TheEditor, context: TheContext) -> dict[str, Any]:
    """Do again what was undone last."""
    return await _move(service, partial(redo, service.library.database, service.who_of(context)))


async def _move(service: EditorService, move: Callable[[], Step | None]) -> dict[str, Any]:
    return await _answer(service, await service.write(move))


async def _answer(service: EditorService, step: Step | None, captions: Sequence[int] = ()) -> dict[str, Any]:
    """A step, the captions that it wrote, and the first of its images as they are now; null where there was none."""
    if step is None:
        return {"step": None, "captions": [], "changed": [], "images": []}
    shown = step.images[:MAX_DETAILS]
    return {
        "step": {"id": step.id, "name": step.name}, "captions": captions, "changed": list(step.images),
        "images": await service.read(image_details, shown),
    }  # fmt: skip


@router.post("/write", summary="Write into the files of the data set")
async def write_back(service: TheEditor, context: TheContext) -> dict[str, Any]:
    """Write what people changed into the files of the data set or the job; copies of the former files stay."""
    report = await service.write(partial(service.library.write_back, who=service.who_of(context)))
    return {**report.to_json(), "sentence": report.sentence()}


@router.post("/replace", summary="Find and replace in captions")
async def replace(
    request: Annotated[ReplaceRequest, Depends(REPLACE)], service: TheEditor, context: TheContext
) -> dict[str, Any]:
    """Without `digest` what would change, a page of it; with the `digest` of that the changes are made, as one step.

    409 where captions were changed since they were shown.
    """
    captions = await service.read(listed_captions, request.words, request.condition)
    changes = await service.decode(find_changes, captions, request.replacement)
    if request.digest is None:
        page = changes[request.offset : request.offset + request.limit]
        shown = [{**asdict(change), "path": printable(change.path)} for change in page]
        return {"count": len(changes), "captions": len(captions), "digest": digest_of(changes), "changes": shown}

    def make() -> Step:
        names = {"prefix": "begin with", "suffix": "end with"}
        name = names[request.how] if request.how in names else f"replace “{request.find[:60]}”"
        with editing(service.library.database, service.who_of(context), name) as editor:
            make_changes(editor, changes, request.digest or "", request.without)
        return Step(editor.step, name, tuple(editor.images))

    return await _answer(service, await service.write(make))


@router.post("/bulk", summary="The same change of all images of a selection")
async def bulk(
    request: Annotated[BulkRequest, Depends(BULK)], service: TheEditor, context: TheContext
) -> dict[str, Any]:
    """Without `digest` how many captions or images would change; with it they are changed, as one step.

    409 where these are not those that were counted.
    """
    change, words, condition = request.bulk_change, request.words, request.condition
    if request.digest is None:
        found = await service.read(change.targets, words, condition)
        return {"count": len(found.targets), "images": found.images, "digest": found.digest}

    def make() -> Step | None:
        name = request.change.name
        with editing(service.library.database, service.who_of(context), name) as editor:
            make_bulk(editor, change, words, condition, request.digest or "")
        return Step(editor.step, name, tuple(editor.images)) if editor.images else None

    return await _answer(service, await service.write(make))


@router.post("/drafts", summary="Caption images by a model")
async def drafts(
    request: Annotated[DraftRequest, Depends(DRAFT)], service: TheEditor, context: TheContext
) -> dict[str, Any]:
    """A draft by the model for each image, beside its captions; the reasons for those that could not be captioned."""
    files = await service.read(_files_of, request.images)
    failed: dict[int, str] = {}
    sources: dict[int, str | bytes] = {}
    for image, path in files.items():
        try:
            sources[image] = await service.decode(service.thumbnails.source, path)
        except ImageError as error:
            failed[image] = error.message
    written = dict(zip(sources, await service.draft(request.model, [*sources.values()]), strict=True))
    found = [(image, draft) for image, draft in written.items() if isinstance(draft, Draft)]
    failed |= {image: why for image, why in written.items() if isinstance(why, str)}

    def add() -> Step:
        name = f"caption by {request.model}"
        with editing(service.library.database, service.who_of(context), name) as editor:
            for image, draft in found:
                editor.add_draft(image, draft)
        return Step(editor.step, name, tuple(editor.images))

    return {**await _answer(service, await service.write(add) if found else None), "failed": failed}


def _files_of(connection: sqlite3.Connection, images: list[int]) -> dict[int, str]:
    return {image: file_of(connection, image)[0] for image in images}
