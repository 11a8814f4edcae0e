"""The fenced blocks of README.md and docs/, with what the comments before them say.

A block of `sh` or `python` is run (tests/journeys/test_docs_run.py). In the comments above it,
which no reader sees, stand

    <!-- given: photo.jpg, runs/x -->    what lies in the reader's folder (tests/doc_fixtures.py)
    <!-- not run: needs Docker -->       why it is only parsed
    <!-- printed -->                     this is, to the letter, what the block before printed
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL, PYTHON = "sh", "python"
# What stands in pages beside commands: outputs, files and images drawn with letters.
SHOWN = ("", "json", "toml", "yaml", "nginx", "dockerfile", "text")
_MARK = re.compile(r"^<!-- (given|not run|printed)(?:: (.*))? -->$", re.MULTILINE)
_BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- [^\n]* -->\n\s*)*)^(?P<fence>```+)(?P<language>\S*)\n(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is that of its fence, `given` what it assumes, `not_run` why it is not run.

    `printed`: it is what the block before prints.
    """

    page: Path
    line: int
    language: str
    code: str
    given: tuple[str, ...] = ()
    not_run: str = ""
    printed: bool = False

    @property
    def is_run(self) -> bool:
        return self.language in (SHELL, PYTHON) and not self.not_run

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page in order; a comment that stands before none is an error."""
    text, found, used = page.read_text(encoding="utf-8"), [], 0
    for block in _BLOCK.finditer(text):
        marks = dict(_MARK.findall(block["marks"]))
        used += len(marks)
        given = tuple(name.strip() for name in marks.get("given", "").split(",") if name.strip())
        line = text.count("\n", 0, block.start("fence")) + 1
        why = marks.get("not run", "")
        found.append(Block(page, line, block["language"], block["code"], given, why, "printed" in marks))
    if used < len(_MARK.findall(text)):
        raise ValueError(f"{page.name}: a comment such as <!-- given --> belongs directly before a block.")
    return found
