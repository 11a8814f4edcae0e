"""Fingerprints of files and data, to notice damage and changes later."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.records import ImageRecord

_THREADS = 4
SEAL = "seal"


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits; raises `OSError` where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents_of(folder: Path, known: Mapping[tuple[int, int], str] | None = None) -> dict[str, Any]:
    """`files` (bytes) and `sha256` of every file below a folder, by its path within.

    `known` has digests by (device, inode) of files that need not be read: those that another folder shares.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sizes = {name: (folder / name).stat().st_size for name in names}

    def digest(name: str) -> str:
        state = (folder / name).stat()
        return (known or {}).get((state.st_dev, state.st_ino)) or file_digest(folder / name)

    with ThreadPoolExecutor(_THREADS) as pool:  # hashing lets other threads run
        return {"files": sizes, "sha256": dict(zip(names, pool.map(digest, names), strict=True))}


def linked_digests(folder: Path, contents: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    """The digests in `contents` (of `contents_of`) of files that have more than one name, by (device, inode)."""
    digests = {}
    for name, digest in contents.get("sha256", {}).items():
        state = (folder / name).stat() if (folder / name).is_file() else None
        if state is not None and state.st_nlink > 1:
            digests[state.st_dev, state.st_ino] = str(digest)
    return digests


def find_damage(
    folder: Path, contents: Mapping[str, Any], names: Iterable[str] | None = None, *, sizes_only: bool = False
) -> str:
    """The first file that is not as `contents` (of `contents_of`) says, with what is wrong; empty where all are.

    Only `names` are checked, where they are given; without digests (or with `sizes_only`) only sizes.
    """
    sizes, digests = contents.get("files", {}), contents.get("sha256", {})
    chosen = [name for name in sizes if names is None or name in names]
    for name in chosen:
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return f"{folder / name} is missing"
        if size != sizes[name]:
            return f"{folder / name} has {size:,} bytes, and {sizes[name]:,} were written"

    def differs(name: str) -> str:
        try:
            changed = file_digest(folder / name) != digests[name]
        except OSError as error:
            return f"{folder / name} cannot be read ({error.strerror})"
        return f"{folder / name} is not what was written (its SHA-256 differs)" if changed else ""

    checked = [] if sizes_only else [name for name in chosen if name in digests]
    with ThreadPoolExecutor(_THREADS) as pool:
        return next(filter(None, pool.map(differs, checked)), "")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a digest of the rest of it."""
    return {**value, SEAL: _seal(value)}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether an object is as `sealed` left it; one that never was sealed counts as whole."""
    return SEAL not in value or value[SEAL] == _seal({key: item for key, item in value.items() if key != SEAL})


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


THREADS = 8


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


def bytes_content(data: bytes) -> str:
    """What `file_content` gives of a file with these bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def contents_digest(contents: Iterable[str]) -> str:
    """One digest of those of the image files of a split, in their order."""
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()


def read_contents(records: Sequence[ImageRecord]) -> str:
    """`contents_digest` of the image files as they are now, every one of them read."""
    with ThreadPoolExecutor(THREADS) as pool:
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
