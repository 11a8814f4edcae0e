"""Hugging Face data sets, saved by `save_to_disk` or streamed: the one reader of `prepare` and `caption`."""

import os
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from captune.core.errors import CaptuneError, first_line, missing_extra
from captune.core.files import read_json
from captune.core.files.limits import max_rows
from captune.core.files.paths import Boundary
from captune.core.text import shortened
from captune.datasets.sources.input_shards import ImageSource, InputShard
from captune.datasets.sources.parquet import TableImages, decode_cell, image_columns, row_number, with_prompt

KIND = "datasets"
HUB = "hf:"
T = TypeVar("T")


def find(location: str, shard_size: int) -> Iterator[InputShard]:
    """Input shards of each split: rows of a saved set (from `start`), or files of a streamed set (number `start`)."""
    for split, data in _splits(location).items():
        _columns(data, location)
        if location.startswith(HUB):
            for number in range(data.num_shards):
                yield InputShard(KIND, location, number, None, (split,))
        else:
            for start in range(0, len(data), shard_size):
                yield InputShard(KIND, location, start, min(shard_size, len(data) - start), (split,))


def read(shard: InputShard) -> Iterator[ImageSource]:
    """Rows are named `place/split#row`, those of a streamed set `hf:org/name/split#file-row`."""
    (split,) = shard.names
    on_hub = shard.location.startswith(HUB)
    data = _splits(shard.location).get(split)
    if data is None:
        raise CaptuneError(f"{shard.location} has no split '{split}' any more.", "Start a new job for it.")
    base = shard.location.removesuffix(f":{split}") if on_hub else shard.location
    image, name = _columns(data, shard.location)
    where = "/".join(filter(None, (base, split)))
    if on_hub:
        rows = hub_errors(iter(data.shard(data.num_shards, shard.start)), shard.location)
        prefix, first = f"{where}#{shard.start}-", 0
    else:
        assert shard.count is not None
        rows = iter(validated(data.select(range(shard.start, shard.start + shard.count)), shard.location))
        prefix, first = f"{where}#", shard.start
    table = TableImages(None if on_hub else f"{shard.location}/", shard.inside)
    for number, row in enumerate(rows, start=first):
        found = decode_cell(f"{prefix}{number}", row[image], row.get(name) if name else None, table)
        yield with_prompt(found, row, shard.prompts)


def image_shard(location: str, rest: str) -> InputShard:
    """The row of an image of a saved set; `rest` is `/SPLIT#ROW` or `#ROW`, perhaps with a file name behind it."""
    split, sign, row = rest.partition("#")
    return InputShard(KIND, location, row_number(sign + row), 1, (split.removeprefix("/"),))


def columns_of(location: str) -> list[str]:
    """The names of the columns, of all splits."""
    return [name for data in _splits(location).values() for name in column_names(data)[0]]


def _splits(location: str) -> dict[str, Any]:
    return _streamed(location.removeprefix(HUB)) if location.startswith(HUB) else saved_splits(Path(location))


@lru_cache(maxsize=4)
def _streamed(name: str) -> dict[str, Any]:
    """Opening a set on the Hub asks it for its files: once for a job, not for each input shard."""
    return streamed_splits(name)


def _columns(data: Any, location: str) -> tuple[str, str | None]:
    return image_columns(*column_names(data), location)


def _import() -> Any:
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "hub", "Reading Hugging Face data sets") from None
    return datasets


def saved_splits(source: Path) -> dict[str, Any]:
    """Saved data sets by split; their images stay the bytes they are, since decoding raises in mid-iteration."""
    datasets = _import()
    check_saved(source)
    try:
        loaded = datasets.load_from_disk(str(source))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError) as error:
        raise CaptuneError(
            f"{source}: not a whole data set folder ({first_line(error).rstrip('.')}).",
            "Save it again with save_to_disk.",
        ) from None
    named = list(loaded.items()) if isinstance(loaded, dict) else [(str(loaded.split or ""), loaded)]
    for _, data in named:
        if len(data) > max_rows(sum(os.path.getsize(file["filename"]) for file in data.cache_files)):
            raise CaptuneError(
                f"{source} says it has {len(data):,} rows, far more than its files hold.", "Save it again."
            )
    # As they are stored: what a saved set says of its format may hide columns, or make tensors of them.
    return {name: _undecoded(data.with_format(None), datasets) for name, data in named}


def streamed_splits(name: str) -> dict[str, Any]:
    """Data sets of `org/name[:split]` by split, streamed, their images as bytes."""
    datasets = _import()
    from huggingface_hub.errors import HfHubHTTPError

    repository, colon, chosen = name.rpartition(":") if ":" in name else (name, "", "")
    try:
        loaded = datasets.load_dataset(repository, streaming=True)
    except datasets.exceptions.DatasetNotFoundError:
        raise CaptuneError(
            f"There is no data set '{repository}' on huggingface.co, or it is private.",
            "Check the name; for a private one log in first: hf auth login",
        ) from None
    except (OSError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        raise _unreachable(repository, error) from None
    except (ValueError, RuntimeError) as error:
        raise CaptuneError(
            f"hf:{repository} cannot be opened: {first_line(error).rstrip('.')}.", "Does its page show a table?"
        ) from None
    if colon and chosen not in loaded:
        raise CaptuneError(f"hf:{repository} has no split '{chosen}'.", f"It has: {', '.join(loaded)}.")
    splits = {chosen: loaded[chosen]} if colon else dict(loaded)
    return {split: _undecoded(data, datasets) for split, data in splits.items()}


def hub_errors(records: Iterator[T], source: str) -> Iterator[T]:
    """What a stream yields; a connection that breaks on the way is said in the user's words."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield from records
    except (ConnectionError, HfHubHTTPError) as error:
        raise _unreachable(source.removeprefix(HUB), error) from None


def _unreachable(repository: str, error: Exception) -> CaptuneError:
    return CaptuneError(
        f"hf:{repository} cannot be read: huggingface.co was not reached ({first_line(error).rstrip('.')}).",
        "Check the network (HF_HUB_OFFLINE must not be 1), or point at a folder that is already there.",
    )


def validated(data: Any, source: str) -> Any:
    """A saved data set, once its offsets are known to point into its own file: reading others ends the process.

    Raises `CaptuneError` where they do not.
    """
    import pyarrow as pa

    try:
        data.data.table.validate(full=True)
    except pa.ArrowException as error:
        raise CaptuneError(
            f"{source}: the data set is damaged ({first_line(error).rstrip('.')}).",
            "Copy or save it again, with save_to_disk.",
        ) from None
    return data


def _undecoded(data: Any, datasets: Any) -> Any:
    for column, feature in (data.features or {}).items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
    return data


def column_names(data: Any) -> tuple[list[str], list[str]]:
    """All columns, and those that hold images as bytes or Hugging Face's pair of bytes and path."""
    datasets = _import()
    # Without a declared image column, the pair still shows itself.
    names = list(data.features or data.column_names or next(iter(data), {}))
    images = [
        name
        for name, feature in (data.features or {}).items()
        if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)
    ]
    return names, images


DICT, INFO, STATE = "dataset_dict.json", "dataset_info.json", "state.json"
_STEP = "Copy it again, or save it again with save_to_disk."
# Fields of Arrow's Message, DictionaryBatch and RecordBatch by number (apache/arrow, format/Message.fbs), and kinds
# of messages.
_KIND, _HEADER, _DATA, _COMPRESSION = 1, 2, 1, 3
_DICTIONARY, _RECORDS = 2, 3


def check_saved(folder: Path) -> None:
    """Raise `CaptuneError` for a saved data set that is not whole, or that `save_to_disk` does not write."""
    boundary = Boundary([folder])
    for part in _parts(folder):
        for file in _files(part):
            if not boundary.holds(file):
                raise CaptuneError(f"{part / STATE} names a file outside of {folder}: {shortened(str(file))}.", _STEP)
            if not file.is_file():
                raise CaptuneError(f"{folder} is no whole data set: there is no file {shortened(str(file))}.", _STEP)
            if _is_packed(file):
                raise CaptuneError(
                    f"{file} holds packed columns, which could take any memory: save_to_disk writes none.",
                    "Save it again with save_to_disk.",
                )


def _parts(folder: Path) -> list[Path]:
    """The folders of its splits, or the folder itself."""
    if not (folder / DICT).is_file():
        return [folder]
    splits = _object(folder / DICT).get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise CaptuneError(f"{folder / DICT} does not list its splits.", _STEP)
    return [folder / name for name in splits]


def _files(part: Path) -> list[Path]:
    """The Arrow files that one split names."""
    if "names_file" in _keys(_object(part / INFO)):
        raise CaptuneError(f"{part / INFO} names a file of labels (names_file), which is not read.", _STEP)
    try:
        return [part / file["filename"] for file in _object(part / STATE)["_data_files"]]
    except (KeyError, TypeError) as error:
        raise CaptuneError(f"{part / STATE} does not list its files ({error!r}).", _STEP) from None


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise CaptuneError(f"{path} does not hold an object.", _STEP)
    return value


def _keys(value: Any) -> Iterator[str]:
    """Keys of an object and of all below that have a value; JSON that was read is not deep."""
    if isinstance(value, dict):
        yield from (key for key, inner in value.items() if inner is not None)
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _keys(inner)


def _is_packed(path: Path) -> bool:
    """Whether a stream of Arrow holds packed columns. Only what stands before each part of it is read."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            return any(
                _is_packed_message(memoryview(message.metadata)) for message in pa.ipc.MessageReader.open_stream(file)
            )
    except (OSError, ValueError, EOFError, struct.error, pa.ArrowException) as error:
        raise CaptuneError(f"{path} is no Arrow file, or damaged ({error}).", _STEP) from None


def _is_packed_message(message: memoryview) -> bool:
    kind = _field(message, _offset(message, 0), _KIND)
    header = _field(message, _offset(message, 0), _HEADER)
    if kind is None or header is None or message[kind] not in (_DICTIONARY, _RECORDS):
        return False
    records: int | None = _offset(message, header)
    if message[kind] == _DICTIONARY:
        data = _field(message, _offset(message, header), _DATA)
        records = None if data is None else _offset(message, data)
    return records is not None and _field(message, records, _COMPRESSION) is not None


def _offset(data: memoryview, at: int) -> int:
    """Where a table begins that is named at `at` (FlatBuffers: relative to that place)."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Where a field of a table lies, None where the table has none."""
    fields = table - int(struct.unpack_from("<i", data, table)[0])
    size = int(struct.unpack_from("<H", data, fields)[0])
    place = 4 + 2 * number
    offset = int(struct.unpack_from("<H", data, fields + place)[0]) if place < size else 0
    return table + offset if offset else None
