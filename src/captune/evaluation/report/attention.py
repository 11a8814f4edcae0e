"""Where the model looked: sheets of attention maps that an evaluation leaves for its report."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, read_json, write_json
from captune.core.files.paths import Boundary
from captune.core.progress import Progress, track
from captune.core.records import Caption, ImageRecord

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

FOLDER, INDEX = "attention", "sheets.json"


@dataclass(frozen=True)
class AttentionSheet:
    """An image's id, the caption that is explained, and the file of its sheet."""

    id: str
    caption: str
    file: Path

    @property
    def uri(self) -> str:
        """The file as a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.file.read_bytes()).decode()


def draw_attention_sheets(
    backbone: Backbone,
    records: Sequence[ImageRecord],
    captions: Mapping[str, Caption],
    generation: Any,
    into: Path,
    progress: Progress,
) -> None:
    """A JPEG of each image's maps, and what is on them; a family without maps is told and leaves none."""
    from captune.inference.explain import explain

    folder = into / FOLDER
    folder.mkdir(parents=True)
    rows = []
    for number, record in enumerate(track(records, progress, "Attention maps", len(records)), start=1):
        options = generation
        if record.question:
            options = generation.model_copy(update={"prompt": backbone.prompt_for(record.question, generation.prompt)})
        try:
            explained = explain(backbone, record.image, options, caption=captions[record.id])
        except CaptuneError as error:
            progress.info(f"No attention maps: {error.message}")
            break
        with atomic_file(folder / f"{number:03}.jpg", "wb") as file:
            explained.overlay().convert("RGB").save(file, "JPEG", quality=85)
        rows.append({"id": record.id, "caption": explained.caption, "file": f"{number:03}.jpg"})
    write_json(folder / INDEX, rows)


def delete_attention_sheets(folder: Path) -> None:
    """Delete the sheets of an earlier evaluation."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def read_attention_sheets(folder: Path) -> tuple[AttentionSheet, ...]:
    """What `draw_attention_sheets` left in a folder; nothing where it was not asked for, or for files elsewhere."""
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return ()
    boundary = Boundary([folder / FOLDER])  # the page takes their bytes as they are
    try:
        rows = [
            AttentionSheet(str(row["id"]), str(row["caption"]), folder / FOLDER / str(row["file"]))
            for row in read_json(index)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CaptuneError(
            f"{index} is not the list of an evaluation's sheets ({type(error).__name__}: {error}).",
            f"Evaluate again, or remove the folder {FOLDER}.",
        ) from None
    return tuple(sheet for sheet in rows if sheet.file.is_file() and boundary.holds(sheet.file))
