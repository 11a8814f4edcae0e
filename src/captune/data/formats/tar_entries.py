"""What an entry of a tar is that is no file with bytes of its own."""

from __future__ import annotations

import tarfile


def what_instead(entry: tarfile.TarInfo) -> str:
    """In words: a link and where it leads, a pipe, a device."""
    if entry.islnk() or entry.issym():
        kind = "hard link" if entry.islnk() else "link"
        return f"is a {kind} to {entry.linkname}, which tars hold without its bytes"
    return "is a pipe, not a file" if entry.isfifo() else "is a device, not a file"
