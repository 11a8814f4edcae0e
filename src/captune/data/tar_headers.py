"""Headers of tars from strangers: what they declare is checked before `tarfile` reads it into memory."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from typing import Self

# What reading a tar that is damaged, or made to do harm, raises: a thousand long names for one member end the stack.
BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RecursionError)
# Bytes of a name, or of a header's other properties: a path has 4,096, attributes of a file system up to 64 KiB.
LONGEST_HEADER = 1_048_576
_EXTENDING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class Header(tarfile.TarInfo):
    """A header whose name and properties have a size that such things have; for `tarfile.open(…, tarinfo=Header)`."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDING and not 0 <= found.size <= LONGEST_HEADER:
            raise tarfile.ReadError(f"a name or header of {found.size:,} bytes")
        return found
