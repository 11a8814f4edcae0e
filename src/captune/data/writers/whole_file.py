"""Text files that are written as a whole, such as subtitles: one that a person wrote or corrected stays."""

from __future__ import annotations

from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file
from captune.data.writers.existing import ExistingCaptions, digest, digest_of_file


class ProtectedFiles:
    """Files of captions without rows that could be joined: `existing` keeps those of a person or replaces them."""

    def __init__(self, existing: ExistingCaptions) -> None:
        self.existing = existing

    def stands(self, path: Path) -> bool:
        """Whether a file is there that captune did not write, or that was changed since, and that is to stay."""
        if self.existing.mode == "replace" or not path.is_file() or not path.stat().st_size:
            return False
        return not self.existing.ledger(path.parent).has(path.name, digest_of_file(path))

    def check(self, path: Path) -> None:
        """Raise `CaptuneError` where such a file stands, before anything is captioned."""
        if self.stands(path):
            raise CaptuneError(
                f"{path} was not written by captune, or was changed since.",
                "Take another --out, or overwrite it: --existing replace",
            )

    def write(self, path: Path, text: str) -> bool:
        """Write a file; returns whether it was written, and not kept as it was."""
        if self.stands(path):
            self.existing.preserved += 1
            return False
        ours = path.is_file() or not path.exists()  # else a pipe or a device
        with atomic_file(path) as file:
            file.write(text)
            if ours:
                file.flush()
                self.existing.ledger(path.parent).add([digest(path.name, digest_of_file(Path(file.name)))])
        return True
