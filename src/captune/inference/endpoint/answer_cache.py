"""Answers that came, in a file: a job that was stopped in the middle of a shard asks for none of them again."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from captune.captions.row import caption_json
from captune.core.records import Caption


class AnswerCache:
    """The captions that a server gave to each request, a line each; a line that was cut off is none."""

    def __init__(self, file: Path) -> None:
        self._known: dict[str, list[Caption]] = {}
        self._writing = Lock()
        if file.is_file():
            for line in file.read_bytes().split(b"\n")[:-1]:
                self._read(line)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(file, "ab")  # noqa: SIM115 (as long as the model)
        if self._file.tell():
            self._file.write(b"\n")  # a line that was cut off is not joined with the next

    def _read(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
            self._known[answer["request"]] = [
                Caption(one["text"], math.nan if one["confidence"] is None else one["confidence"], cut="cut" in one)
                for one in answer["captions"]
            ]
        except (ValueError, KeyError, TypeError):
            return

    def get(self, request: str) -> list[Caption] | None:
        """The captions that a request got."""
        return self._known.get(request)

    def add(self, request: str, captions: list[Caption]) -> None:
        """Keep them: on the disk when this returns."""
        line = json.dumps({"request": request, "captions": [caption_json(caption) for caption in captions]})
        with self._writing:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._known[request] = captions

    def close(self) -> None:
        self._file.close()


def request_key(url: str, body: Mapping[str, Any]) -> str:
    """The same for the same request to the same server."""
    whole = json.dumps({"url": url, **body}, sort_keys=True).encode()
    return hashlib.blake2b(whole, digest_size=16).hexdigest()
