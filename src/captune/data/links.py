"""Folders that links lead into again: followed, as long as that comes to an end."""

from __future__ import annotations

from captune.core.errors import CaptuneError

# Visits to folders that were visited before. Data sets that link a few hundred times stay far below; two links in
# each of 22 nested folders are four million.
MOST_AGAIN = 10_000


class Visits:
    """The folders of a walk; raises `CaptuneError` where links lead into the same ones without end."""

    def __init__(self, start: str, most: int = MOST_AGAIN) -> None:
        self._start, self._most = start, most
        self._known: set[tuple[int, ...]] = set()
        self._again = 0

    def enter(self, folder: tuple[int, ...], name: str) -> None:
        """Count a visit to a folder, known by its device and number and whatever else tells visits apart."""
        self._again += folder in self._known
        self._known.add(folder)
        if self._again > self._most:
            raise CaptuneError(
                f"Links in {self._start} lead into the same folders more than {self._most:,} times (at {name}).",
                "Remove links, or name the folders: find FOLDER -name '*.jpg' | captune caption - --images FOLDER",
            )
