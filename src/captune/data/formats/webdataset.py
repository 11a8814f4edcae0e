"""WebDataset: tar shards in which `000017.jpg` and `000017.txt` (or `.json`, `.caption`) make one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.formats.columns import find_columns
from captune.data.formats.grouping import note
from captune.data.formats.places import is_image_name, shards
from captune.data.formats.split_words import split_in, split_named
from captune.data.formats.text import caption_text, check_file, parse_json
from captune.data.source import EmbeddedImage, Problem, SourceRecord

DESCRIPTION = (
    "WebDataset tar shards: `key.jpg` with `key.txt`, `key.json` or `key.caption`; a folder or `{000..009}.tar`"
)
RANK = 20
_TEXTS = ("txt", "caption", "json")
_LARGEST_MEMBER = 512 * 1024 * 1024


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _shards(source)
    if not paths:
        return None
    try:
        with tarfile.open(paths[0]) as shard:
            kinds = {_kind(member.name) for member in islice(shard, 20) if member.isfile()}
    except (OSError, tarfile.TarError, EOFError):
        return None
    return f"{paths[0].name} is a tar of pictures and their texts" if {"image", "text"} <= kinds else None


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    paths = _shards(source)
    if not paths:
        raise CaptuneError(
            f"There are no tar shards in {source}.", "Name a .tar file, a folder, or shard-{000..009}.tar."
        )
    for path in paths:
        check_file(path)
    return _records(paths, source, problems)


def _records(paths: list[Path], source: Path, problems: list[Problem] | None) -> Iterator[SourceRecord]:
    found = False
    for path in paths:
        split = split_in(path.name.split(".")[0]) or split_in(path.parent.name)
        seen: set[str] = set()
        for key, members in _samples(path, problems):
            where = f"{path.name}, sample {key}"
            if key in seen:
                note(problems, where, "the key stands twice in the shard")
                continue
            seen.add(key)
            picture = next((name for name in members if is_image_name("x." + name)), None)
            captions, said = _captions(members, where, problems)
            if picture is None:
                note(problems, where, f"has no picture, only {', '.join(members)}")
            elif captions:
                found = True
                name = f"{path.name.split('.')[0]}_{key.replace('/', '_')}.{picture.rpartition('.')[2]}"
                data = members[picture]
                image = EmbeddedImage(name, lambda data=data: data)  # type: ignore[misc]
                yield SourceRecord(f"{path.name.split('.')[0]}/{key}", image, captions, said or split, where)
    if not found:
        raise CaptuneError(f"{source} holds no sample with a picture and a caption.", f"Expected: {DESCRIPTION}.")


def _shards(source: Path) -> list[Path]:
    return shards(source, (".tar", ".tar.gz", ".tgz"))


def _samples(path: Path, problems: list[Problem] | None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Keys with their members by what follows the key's first dot; one sample in memory at a time."""
    key = ""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                base = member.name.rpartition("/")[2]
                if not member.isfile() or base.startswith(".") or not _kind(member.name):
                    continue
                here, _, kind = base.partition(".")
                here = member.name[: -len(base)].removeprefix("./") + here
                if here != key and members:
                    yield key, members
                    members = {}
                key = here
                if member.size > _LARGEST_MEMBER:
                    note(problems, f"{path.name}, {member.name}", f"has {member.size:,} bytes, too many for a picture")
                    continue
                file = shard.extractfile(member)
                assert file is not None
                members[kind.lower()] = file.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        note(problems, path.name, f"the shard cannot be read on after sample {key or 'none'} ({error}); copy it again")
        return
    if members:
        yield key, members
    if not _ends(path):
        note(problems, path.name, f"the shard is cut off after sample {key or 'none'}; copy it again")


def _ends(path: Path) -> bool:
    """Whether a tar has its end mark, a block of zeros: tarfile is silent about a missing one."""
    if path.suffix != ".tar":
        return True  # a compressed one has its own check
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - tarfile.BLOCKSIZE))
        return not file.read().strip(b"\0")


def _kind(name: str) -> str:
    kind = name.rpartition("/")[2].partition(".")[2].lower()
    if is_image_name("x." + kind):
        return "image"
    return "text" if kind in _TEXTS else ""


def _captions(
    members: Mapping[str, bytes], where: str, problems: list[Problem] | None
) -> tuple[tuple[str, ...], str | None]:
    """The captions of a sample (a text's lines; JSON's usual keys) and the split its JSON names."""
    split = None
    for kind in _TEXTS:
        if kind not in members:
            continue
        try:
            text = members[kind].decode("utf-8-sig")
            if kind == "json":
                texts, split = _from_json(parse_json(text))
            else:
                texts = text.splitlines()
        except UnicodeDecodeError as error:
            note(problems, where, f"its .{kind} is not UTF-8 (byte {error.start})")
            return (), None
        except json.JSONDecodeError as error:
            note(problems, where, f"its .json is not valid JSON ({error.msg})")
            return (), None
        captions = tuple(caption for caption in map(caption_text, texts) if caption)
        if captions:
            return captions, split
    note(problems, where, "has no caption" if not any(kind in members for kind in _TEXTS) else "its caption is empty")
    return (), None


def _from_json(value: Any) -> tuple[list[str], str | None]:
    if isinstance(value, str):
        return [value], None
    if isinstance(value, list):
        return [text for text in value if isinstance(text, str)], None
    columns = find_columns(value, image="") if isinstance(value, dict) else None
    if columns is None:
        return [], None
    said = value.get(columns.split) if columns.split else None
    return columns.texts(value), split_named(said) if isinstance(said, str) else None
