"""Answers that came, in a file: a job that was stopped in the middle of a shard asks for none of them again."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any


class AnswerCache:
    """The answers of a server by the keys of their requests, a line each; a line that was cut off is none."""

    def __init__(self, file: Path) -> None:
        self._known: dict[str, Any] = {}
        self._writing = Lock()
        if file.is_file():
            for line in file.read_bytes().split(b"\n")[:-1]:
                self._read(line)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(file, "ab")  # noqa: SIM115 (as long as the process)
        if self._file.tell():
            self._file.write(b"\n")  # a line that was cut off is not joined with the next

    def _read(self, line: bytes) -> None:
        try:
            read = json.loads(line)
            self._known[read["key"]] = read["answer"]
        except (ValueError, KeyError, TypeError):
            return

    def get(self, key: str) -> Any:
        """The answer to a request; None where none is known."""
        return self._known.get(key)

    def add(self, key: str, answer: Any) -> None:
        """Write an answer: it is on the disk when this returns."""
        with self._writing:
            self._file.write(json.dumps({"key": key, "answer": answer}).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._known[key] = answer


def request_key(url: str, body: Mapping[str, Any], number: int) -> str:
    """The same for the same request to the same server; `number` tells apart what is asked for several times."""
    whole = json.dumps({"url": url, "number": number, **body}, sort_keys=True).encode()
    return hashlib.blake2b(whole, digest_size=16).hexdigest()
