"""A model captions images of a library: drafts beside what people wrote, never in its place."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from captune import __version__
from captune.captions.provenance import Provenance, today
from captune.captions.quality import flags_of
from captune.core.config import Resolved, leaves, resolve
from captune.core.errors import CaptuneError, needing_torch
from captune.core.progress import SILENT, Progress, track
from captune.core.records import Caption
from captune.core.verbs import CAPTION_LIBRARY
from captune.library.database import Database, encoded
from captune.library.history import Draft, Editor, editing
from captune.library.query import Condition, condition_of

if TYPE_CHECKING:
    from captune.inference.captioner import Captioner

# Captions between two commits: so many images are captioned again after a stop.
_STEP = 16
_PAGE = 1000
# Images that a model of a name and digest has captioned with a prompt, whatever became of the caption.
_BY_THIS = (
    "SELECT m.image FROM captions m WHERE m.written_by = 'model' AND m.model = ? "
    "AND coalesce(m.provenance ->> '$.digest', '') = ? AND coalesce(m.provenance ->> '$.prompt', '') = ?"
)
# What a person wrote or approved of the image `i`.
_A_PERSONS = (
    "SELECT 1 FROM captions p WHERE p.image = i.id AND p.current AND (p.written_by = 'person' OR p.status = 'approved')"
)


@dataclass(frozen=True)
class DraftReport:
    """How many images got a draft, how many of those have a flag, and why others got none, by path."""

    drafts: int
    flagged: int
    failed: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Todo:
    """An image without a caption by this model and prompt; `former` is the draft that gives way to the new one."""

    image: int
    path: str
    former: int | None


def write_drafts(
    database: Database,
    folder: str,
    model: str,
    *,
    config: str | os.PathLike[str] | Resolved | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> DraftReport:
    """Caption images that have no caption, or (with a condition on captions) those whose draft it is true of.

    With `beside` every image of the conditions gets a draft beside its captions. No image is captioned twice by the
    same files of a model with the same prompt; so the same call goes on after a stop. What a person wrote or approved
    stays. Options are those of `captune library caption --help`.
    """
    resolved = resolve(CAPTION_LIBRARY, file=config, flags=options)
    values = resolved.values
    given = [key.split(".") for key in resolved.sources]
    own = {name: getattr(getattr(values, group), name) for group, name in given if name in leaves("caption")}
    condition = condition_of(values.filter)
    query, parameters = _query(condition, None, beside=values.drafting.beside)
    if database.connection.execute(f"{query} LIMIT 1", (*parameters, b"")).fetchone() is None:
        return DraftReport(0, 0, {})  # without loading a model
    with needing_torch():
        from captune.inference.captioner import Captioner

    with progress.task(f"Loading {model}"):
        captioner = Captioner.load(model, config=resolve("caption", flags=own))
    noted = provenance_of(captioner, model)
    query, parameters = _query(condition, noted, beside=values.drafting.beside)
    most = values.drafting.most or None
    with database.read() as connection:
        count = int(connection.execute(f"SELECT count(*) FROM ({query})", (*parameters, b"")).fetchone()[0])
    todo = islice(_todo(database, query, parameters), most)
    stream = captioner.stream((each, os.path.join(folder, each.path)) for each in todo)
    language = captioner.options.translation.language
    total = count if most is None else min(most, count)
    return _written(database, track(stream, progress, "Captioning", total), noted, language)


def provenance_of(captioner: Captioner, model: str) -> Provenance:
    """Who writes the captions of a captioner that was loaded by this name: the model's files, its prompt, today."""
    from captune.inference.captioner import noted_provenance
    from captune.models.loading.identity import identity_of

    identity = identity_of(model)
    base = Provenance("model", model, identity.digest if identity else "", date=today(), captune=__version__)
    return noted_provenance(base, captioner)


def draft_of(caption: Caption, noted: Provenance, language: str | None) -> Draft:
    """A caption as a draft, with its flags and where it comes from."""
    confidence = caption.confidence if math.isfinite(caption.confidence) else None
    provenance = json.dumps(noted.of([caption]).to_json())
    return Draft(caption.text, noted.model, provenance, confidence, tuple(flags_of(caption, language)), language)


def _query(condition: Condition, noted: Provenance | None, *, beside: bool) -> tuple[str, tuple[Any, ...]]:
    """Images to caption, as id, path and former draft, from a path on (the last parameter); by None: by any model."""
    clauses = [condition.sql, "i.problem IS NULL", *([f"i.id NOT IN ({_BY_THIS})"] if noted else [])]
    former, join = "NULL", ""
    if condition.of_captions:
        join = "JOIN captions c ON c.image = i.id AND c.current AND c.written_by = 'model' AND c.status = 'draft'"
        former = "NULL" if beside else "min(c.id)"
        if not beside:
            clauses.append(f"NOT EXISTS ({_A_PERSONS})")
    elif not beside:
        clauses.append("NOT EXISTS (SELECT 1 FROM captions n WHERE n.image = i.id AND n.current)")
    query = (
        f"SELECT i.id, i.path, {former} AS former FROM images i {join} WHERE {' AND '.join(clauses)} "
        "AND i.path > CAST(? AS TEXT) GROUP BY i.id"
    )
    return query, (*condition.values, *(_key(noted) if noted else ()))


def _key(noted: Provenance) -> tuple[str, str, str]:
    return noted.model, noted.digest, noted.prompt


def _todo(database: Database, query: str, parameters: tuple[Any, ...]) -> Iterator[_Todo]:
    """Page by page, by path; any thread may go on."""
    last = b""
    while rows := database.connection.execute(f"{query} ORDER BY i.path LIMIT {_PAGE}", (*parameters, last)).fetchall():
        last = encoded(rows[-1]["path"])
        yield from (_Todo(row["id"], row["path"], row["former"]) for row in rows)


def _written(
    database: Database,
    stream: Iterable[tuple[_Todo, list[Caption] | CaptuneError]],
    noted: Provenance,
    language: str | None,
) -> DraftReport:
    drafts = flagged = 0
    failed: dict[str, str] = {}
    results = iter(stream)
    while some := list(islice(results, _STEP)):
        with editing(database, noted.model, "Drafts") as editor:
            for todo, found in some:
                if isinstance(found, CaptuneError):
                    failed[todo.path] = getattr(found, "reason", "") or found.message
                elif _add(editor, todo, draft := draft_of(found[0], noted, language), noted):
                    drafts += 1
                    flagged += bool(draft.flags)
    return DraftReport(drafts, flagged, failed)


def _add(editor: Editor, todo: _Todo, draft: Draft, noted: Provenance) -> bool:
    """Add a draft, unless another process did meanwhile; the former one goes where it is an untouched draft still."""
    connection = editor.connection
    if connection.execute(f"{_BY_THIS} AND m.image = ?", (*_key(noted), todo.image)).fetchone():
        return False
    if todo.former is not None:
        query = (
            "SELECT 1 FROM captions c JOIN images i ON i.id = c.image "
            f"WHERE c.id = ? AND c.current AND c.status = 'draft' AND NOT EXISTS ({_A_PERSONS})"
        )
        if connection.execute(query, (todo.former,)).fetchone() is None:
            return False
        editor.remove_caption(todo.image, todo.former)
    editor.add_draft(todo.image, draft, of=todo.former)
    return True
