"""A reader types what the pages say, block after block, in a folder of his own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doc_blocks import PAGES, PYTHON, SHELL, Block, blocks
from doc_fixtures import Desk
from doc_reader import SHORT, Failed, Reader

RUN = {page: [one for one in blocks(page) if one.printed or one.is_run] for page in PAGES}
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bash") is None,
    reason="the pages' commands run in bash, by copies of a process that has imported torch: safe on Linux only",
)


@pytest.fixture(scope="session")
def desk(shared_folder: Path) -> Desk:
    return Desk(shared_folder / "desk", SHORT)


@pytest.fixture
def reader(tmp_path: Path, warm: str, hub: dict[str, str], traced_once: Path) -> Iterator[Reader]:
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = Reader(folder, warm, hub, traced_once)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", [page for page, run in RUN.items() if run], ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, reader: Reader, desk: Desk) -> None:
    if shutil.which("curl") is None and any("curl " in block.code for block in RUN[page]):
        pytest.skip("the page's commands need curl")
    for block in RUN[page]:
        for name in block.given:
            desk.lay(name, reader.folder)
        reader.run(block)


def test_a_block_that_fails_is_told_with_its_place(reader: Reader) -> None:
    wrong = {
        SHELL: "captune caption nothing-here.jpg --model nowhere/at/all\n",
        PYTHON: "import captune\ncaptune.Captioner.load('runs/nothing')\n",
    }
    for language, code in wrong.items():
        with pytest.raises(Failed, match=r"(?s)README\.md:7.*nothing"):
            reader.run(Block(PAGES[0], 7, language, code))
    reader.run(Block(PAGES[0], 7, SHELL, "captune --version | grep -o captune\n"))
    reader.run(Block(PAGES[0], 9, "text", "captune\n", printed=True))
    with pytest.raises(Failed, match=r"(?s)README\.md:9.*prints\ncaptune"):
        reader.run(Block(PAGES[0], 9, "text", "another\n", printed=True))
