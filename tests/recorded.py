"""What a piece of work reports, kept for the test to read."""

from __future__ import annotations

from captune.core.progress import Silent


class RecordedProgress(Silent):
    """Keeps the lines and the warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
