"""What an image file says of itself, for a library: keywords, people, place, date, and a person's description."""

import json
from contextlib import suppress
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.images.metadata.fields import read_fields
from captune.images.metadata.files import existing_keywords, existing_texts

_READ = ("date", "place", "names")


def read_about(path: str) -> str:
    """As JSON: `date`, `place`, `names`, `keywords`, `captions`; what cannot be read is left out."""
    found: dict[str, object] = {}
    with suppress(OSError, CaptuneError):
        data = Path(path).read_bytes()
        found |= {name: value for name, value in read_fields(path, path, _READ).items() if value}
        found["keywords"] = existing_keywords(data).keywords()
        found["captions"] = [
            {"text": text, "written_by": "person", "model": "", "status": "approved"} for text in existing_texts(data)
        ]
    return json.dumps(found)
