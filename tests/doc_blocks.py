"""The fenced blocks of README.md and docs/, with what the comments before them say.

A block of `sh` or `python` is run (tests/journeys/test_docs_run.py). In the comments above it,
which no reader sees, stand

    <!-- given: photo.jpg, runs/x -->    what lies in the reader's folder (tests/doc_desk.py)
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
# What stands in pages beside commands: outputs, files and pictures drawn with letters.
SHOWN = ("", "json", "toml", "yaml", "nginx", "dockerfile", "text")
_MARK = re.compile(r"<!-- (given|not run|printed)(?:: (.*?))? -->")


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
    """All blocks of a page in order. A mark with anything but marks and space between it and a block is an error."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    fence, first, code = "", 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence:
            if line.strip() == fence:
                given = tuple(name.strip() for name in marks.pop("given", "").split(",") if name.strip())
                text = "".join(f"{one}\n" for one in code)
                why = marks.pop("not run", "")
                found.append(Block(page, first, language, text, given, why, "printed" in marks))
                fence, marks = "", {}
            else:
                code.append(line)
        elif opened := re.match(r"\s*(```+)(\S*)", line):
            fence, language = opened.groups()
            first, code = number, []
        elif mark := _MARK.match(line.strip()):
            marks[mark[1]] = mark[2] or ""
        elif marks and line.strip():
            raise ValueError(f"{page.name}:{number}: the comment <!-- {next(iter(marks))} --> belongs before a block.")
    if fence or marks:
        raise ValueError(f"{page.name} ends within a block or behind a comment that belongs to one.")
    return found
