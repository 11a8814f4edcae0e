"""What a job is: its model, options and inputs, fixed when it begins, and the list of its input shards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.files.paths import Listed, is_pattern
from captune.core.stores import MANIFEST, SHARD_LIST
from captune.core.stores.local import Store
from captune.datasets.sources.input_shards import InputShard
from captune.datasets.sources.listing import ARCHIVES, FILES
from captune.images.signatures import IMAGE_SUFFIXES

_VERSION = 1
_SAVED = {"shards": "pieces", "images": "pictures"}  # names in manifest.json


@dataclass(frozen=True)
class Inputs:
    """The inputs of a job.

    `named` are folders, patterns, archives and addresses as the user typed them, `files` the number of images
    that were named one by one, `folder` the working folder where any of them depends on it.
    """

    named: tuple[str, ...]
    files: int
    folder: str | None

    @classmethod
    def of(cls, sources: Sequence[str]) -> Inputs:
        named = tuple(item for item in sources if not is_image(item) and not _is_missing_image(item))
        depends = any("://" not in item and not os.path.isabs(item) and not item.startswith("hf:") for item in sources)
        return cls(named, len(sources) - len(named), os.getcwd() if depends else None)

    def __str__(self) -> str:
        return ", ".join([*self.named, *(["single images"] if self.files else [])])

    def check_exist(self, hint: str = "") -> None:
        """Raise `CaptuneError` where an input folder or archive is gone, or a folder is empty now."""
        hint = hint or "Nothing is lost: bring it back (is a disk not mounted?) and run the same command again."
        for name in self.named:
            # A file with another suffix may be an image: its row will tell.
            container = not os.path.splitext(name)[1] or name.lower().endswith(tuple(ARCHIVES)) or os.path.isdir(name)
            if not container or "://" in name or name.startswith("hf:") or is_pattern(name):
                continue
            try:
                if not os.path.isdir(name):
                    os.stat(name)
                elif not any(os.scandir(name)):
                    raise CaptuneError(f"The input folder {name} is empty.", hint)
            except OSError as error:
                raise CaptuneError(f"The input {name} cannot be read: {error.strerror}.", hint) from None


@dataclass(frozen=True)
class Manifest:
    """What identifies a job; `options` are those that change captions or rows, by section.name.

    `images` is None where only reading tells how many there are, `started` the day (UTC) on which the job began.
    """

    captune: str
    model: str
    digest: str
    options: dict[str, Any]
    inputs: Inputs
    shards: int
    images: int | None
    started: str = ""

    def to_json(self) -> dict[str, Any]:
        value = {_SAVED.get(key, key): each for key, each in asdict(self).items()}
        return {"version": _VERSION, **value}

    @classmethod
    def read(cls, store: Store) -> Manifest:
        """The manifest of a job; raises `CaptuneError` where it is none, or of a later captune."""
        try:
            value = json.loads(store.read(MANIFEST))
            if value.pop("version") != _VERSION:
                raise CaptuneError(
                    f"The job in {store.location} is of another captune ({value.get('captune')}).",
                    "Go on with that one, or take another --out.",
                )
            inputs = value.pop("inputs")
            value |= {key: value.pop(saved) for key, saved in _SAVED.items()}
            return cls(**value, inputs=Inputs(**{**inputs, "named": tuple(inputs["named"])}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CaptuneError(
                f"{store.location}/{MANIFEST} is damaged: {error}.", "Take another --out, or start anew with --restart."
            ) from None

    def write(self, store: Store) -> None:
        store.publish(MANIFEST, (json.dumps(self.to_json(), indent=2) + "\n").encode())

    def differences(self, model: str, digest: str, options: dict[str, Any], inputs: Inputs) -> list[str]:
        """How another request differs, in words."""
        differences = []
        if digest != self.digest:
            differences.append(
                f"model: {self.model}" + (f", now {model}" if model != self.model else ", whose files changed")
            )
        for key in sorted({*options, *self.options}):
            then, now = self.options.get(key), options.get(key)
            if then != now:
                differences.append(f"--{key.partition('.')[2].replace('_', '-')}: {_shown(then)}, now {_shown(now)}")
        if inputs.named != self.inputs.named or bool(inputs.files) != bool(self.inputs.files):
            differences.append(f"inputs: {self.inputs}, now {inputs}")
        elif inputs.folder != self.inputs.folder:
            differences.append(f"working folder: {self.inputs.folder}, now {inputs.folder}")
        return differences


class ShardList:
    """The input shards of a job, listed when it began."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines

    @classmethod
    def of(cls, shards: Iterable[InputShard]) -> ShardList:
        return cls([json.dumps(shard.to_json()).encode("ascii") for shard in shards])

    @classmethod
    def read(cls, store: Store, count: int) -> ShardList:
        lines = store.read(SHARD_LIST).splitlines()
        if len(lines) != count:
            raise CaptuneError(
                f"{store.location}/{SHARD_LIST} has {len(lines)} lines instead of {count}.",
                "Start anew with --restart.",
            )
        return cls(lines)

    def write(self, store: Store) -> None:
        store.publish(SHARD_LIST, b"".join(line + b"\n" for line in self._lines))

    @cached_property
    def counts(self) -> list[int | None]:
        """Images of each input shard, None where only reading tells."""
        return [shard.count for shard in self]

    def count_images(self, numbers: Iterable[int] | None = None) -> int | None:
        """Images of some input shards, or of all; None where only reading tells."""
        counts = self.counts if numbers is None else [self.counts[number] for number in numbers]
        return None if None in counts else sum(count or 0 for count in counts)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> InputShard:
        return InputShard.from_json(json.loads(self._lines[number]))

    def __iter__(self) -> Iterator[InputShard]:
        return (self[number] for number in range(len(self)))

    def compare(self, shards: Iterable[InputShard]) -> tuple[int, int]:
        """How many files and archives of other shards this list lacks, and how many both have."""
        known, others = (np.unique(np.fromiter(map(hash, _input_names(each)), np.int64)) for each in (self, shards))
        both = len(np.intersect1d(known, others, assume_unique=True))
        return len(others) - both, both


def _input_names(shards: Iterable[InputShard]) -> Iterator[str]:
    for shard in shards:
        if shard.kind == FILES:
            yield from shard.names
        else:
            yield f"{shard.kind}:{shard.location}"


def _is_missing_image(item: str) -> bool:
    """Whether a name from a list is of no file here: most likely an image's, which becomes a row with that reason."""
    archive = item.lower().endswith(tuple(ARCHIVES)) or "://" in item or item.startswith("hf:")
    return isinstance(item, Listed) and not archive and not os.path.lexists(item)


def is_image(item: str) -> bool:
    """Whether an input names one image, by its ending."""
    ending = os.path.splitext(item)[1].lower()
    return ending in IMAGE_SUFFIXES and not os.path.isdir(item) and not is_pattern(item)


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
