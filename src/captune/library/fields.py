"""What an image file and a packet beside it say of the image: keywords, people, place, date, and descriptions."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.images.metadata.fields import read_fields
from captune.images.metadata.files import existing_keywords, existing_marks, existing_texts, packet_path
from captune.images.metadata.xmp import Mark
from captune.library.database import day_as_time

_READ = ("date", "place", "names")


def read_about(path: str, data: bytes | None = None) -> str:
    """As JSON: `date`, `place`, `names`, `keywords`, `captions`; what cannot be read is left out.

    `data` are the bytes of an image in an archive, which has no packet beside it.
    """
    found: dict[str, object] = {}
    with suppress(OSError, CaptuneError):
        beside = None
        fields = read_fields(path if data is None else data, path, _READ)
        if data is None:
            data, packet = Path(path).read_bytes(), packet_path(Path(path))
            beside = packet.read_bytes() if packet.is_file() else None
        found |= {name: value for name, value in fields.items() if value}
        found["keywords"] = existing_keywords(data, beside).keywords()
        found["captions"] = [
            *({"text": text, "written_by": "person", "status": "approved"} for text in existing_texts(data, beside)),
            *map(_draft, existing_marks(data, beside)),
        ]
    return json.dumps(found)


def _draft(mark: Mark) -> dict[str, Any]:
    """A caption that captune wrote into an image, with what its mark notes of the model."""
    noted = {"captune" if name == "version" else name: value for name, value in mark.noted.items() if value}
    noted.pop("ownWords", None)
    draft = {"text": mark.caption, "written_by": "model", "status": "draft", "model": noted.get("model", "")}
    draft["provenance"] = json.dumps({"written_by": "model", **noted})
    return draft | ({"written": day_as_time(noted["date"])} if noted.get("date") else {})
