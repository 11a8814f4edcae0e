"""What an image file says of itself, for a library: keywords, people, place, date, and descriptions."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.images.metadata.fields import read_fields
from captune.images.metadata.files import existing_keywords, existing_marks, existing_texts
from captune.images.metadata.xmp import Mark
from captune.library.database import day_as_time

_READ = ("date", "place", "names")


def read_about(path: str) -> str:
    """As JSON: `date`, `place`, `names`, `keywords`, `captions`; what cannot be read is left out."""
    found: dict[str, object] = {}
    with suppress(OSError, CaptuneError):
        data = Path(path).read_bytes()
        found |= {name: value for name, value in read_fields(path, path, _READ).items() if value}
        found["keywords"] = existing_keywords(data).keywords()
        found["captions"] = [
            *({"text": text, "written_by": "person", "status": "approved"} for text in existing_texts(data)),
            *map(_draft, existing_marks(data)),
        ]
    return json.dumps(found)


def _draft(mark: Mark) -> dict[str, Any]:
    """A caption that captune wrote into an image, with what its mark notes of the model."""
    noted = {"captune" if name == "version" else name: value for name, value in mark.noted.items() if value}
    noted.pop("ownWords", None)
    draft = {"text": mark.caption, "written_by": "model", "status": "draft", "model": noted.get("model", "")}
    draft["provenance"] = json.dumps({"written_by": "model", **noted})
    return draft | ({"written": day_as_time(noted["date"])} if noted.get("date") else {})
