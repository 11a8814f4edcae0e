"""What a training learns from, in a few digests: to notice on the way that it has become something else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.records import ImageRecord

_THREADS = 8


def split_fingerprint(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Counts and digests of a split: `records` (ids, questions, references, in order), `sizes` and `times` of images.

    Image files are not read. Raises `CaptuneError` where one is not there.
    """
    texts, sizes, times = (hashlib.blake2b(digest_size=16) for _ in range(3))
    for record in records:
        texts.update(json.dumps([record.id, record.question, list(record.references)]).encode() + b"\n")
        try:
            state = os.stat(record.image)
        except OSError as error:
            raise CaptuneError(
                f"The image {record.image} of the {record.split} split cannot be read: {error.strerror}.",
                "Bring it back, or run `captune prepare` again with --on-bad skip.",
            ) from None
        sizes.update(f"{state.st_size}\n".encode())
        times.update(f"{state.st_mtime_ns}\n".encode())
    return {
        "images": len(records),
        "references": sum(len(record.references) for record in records),
        "records": texts.hexdigest(),
        "sizes": sizes.hexdigest(),
        "times": times.hexdigest(),
    }


def file_content(path: str) -> str:
    """The digest of an image file that `captune prepare` knows it by; raises `OSError`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def contents_digest(contents: Iterable[str]) -> str:
    """One digest of those of the image files of a split, in their order."""
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def read_contents(records: Sequence[ImageRecord]) -> str:
    """`contents_digest` of the image files as they are now, every one of them read."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return contents_digest(pool.map(file_content, (record.image for record in records)))


def difference(began: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two fingerprints of a split, in words; empty where nothing does but times."""
    for name in ("images", "references"):
        if began.get(name) != now[name]:
            return f"{now[name]:,} {name} instead of {began.get(name, 0):,}"
    if began.get("records") != now["records"]:
        return "other ids, questions or references, or another order"
    if began.get("sizes") != now["sizes"]:
        return "other image files"
    return ""
