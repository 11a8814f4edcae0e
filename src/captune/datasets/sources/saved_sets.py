"""Folders of `save_to_disk`, which may come from strangers: checked before `datasets` opens them.

Their JSON names the Arrow files to open, perhaps elsewhere; it may name a file of labels to read; and an Arrow file
whose columns are packed is unpacked whole as it is opened, to as many bytes as it says. `save_to_disk` writes none of
these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import read_json
from captune.core.files.paths import Boundary, shown

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
                raise CaptuneError(f"{part / STATE} names a file outside of {folder}: {shown(str(file))}.", _STEP)
            if not file.is_file():
                raise CaptuneError(f"{folder} is no whole data set: there is no file {shown(str(file))}.", _STEP)
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
    found = read_json(path)
    if not isinstance(found, dict):
        raise CaptuneError(f"{path} does not hold an object.", _STEP)
    return found


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
            return any(_says_packed(memoryview(message.metadata)) for message in pa.ipc.MessageReader.open_stream(file))
    except (OSError, ValueError, EOFError, struct.error, pa.ArrowException) as error:
        raise CaptuneError(f"{path} is no Arrow file, or damaged ({error}).", _STEP) from None


def _says_packed(message: memoryview) -> bool:
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
    found = int(struct.unpack_from("<H", data, fields + place)[0]) if place < size else 0
    return table + found if found else None
