"""Every block of README.md and docs/ is run or says why not; what is not run is parsed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from doc_blocks import PAGES, PYTHON, SHELL, SHOWN, Block, blocks
from doc_commands import command_lines, refusal, unknown_extras, unknown_flags, unknown_targets

BLOCKS = [block for page in PAGES for block in blocks(page)]
READERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_is_run_or_parsed(block: Block) -> None:
    assert block.language in (SHELL, PYTHON, *SHOWN), f"{block.place}: is it run? Known are {SHELL} and {PYTHON}."
    if block.language == PYTHON:
        compile(block.code, block.place, "exec")
    elif block.language == SHELL:
        assert not unknown_targets(block.code)
        assert {" ".join(words): why for words in command_lines(block.code) if (why := refusal(words))} == {}
    elif block.language in READERS:
        assert READERS[block.language](block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_and_extras_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert unknown_flags(text) == []
    assert unknown_extras(text) == set()


def test_commands_are_found_in_pipes_and_behind_variables() -> None:
    code = "ls a | captune caption - --num-beams \\\n 5 | head  # why\nX='1 2' captune models && captune runs list\n"
    assert list(command_lines(code)) == [["caption", "-", "--num-beams", "5"], ["models"], ["runs", "list"]]


def test_what_the_parser_refuses_is_told() -> None:
    assert "--beams" in refusal(["caption", "a.jpg", "--beams", "5"])
    assert refusal(["captoin", "a.jpg"])
    assert refusal(["runs", "list", "--nothing"])
    assert refusal(["caption", "a.jpg", "--num-beams", "5", "-m", "runs/x"]) == ""
    assert unknown_flags("`captune models --num-beams 5`, `--num-beams`, `--numbeams 3`, `ls --all`") == [
        "--num-beams",
        "--numbeams",
    ]
    assert unknown_extras("pip install 'captune[serve,nonsense]'") == {"nonsense"}
    assert unknown_targets("make demo\nmake nothing # here\n") == {"nothing"}


def test_a_comment_away_from_its_block_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: why -->\n<!-- given: a, b -->\n\n```sh\nx\n```\n", encoding="utf-8")
    (block,) = blocks(page)
    assert (block.given, block.not_run, block.line, block.code) == (("a", "b"), "why", 4, "x\n")
    page.write_text("<!-- not run: why -->\n\ntext\n\n```sh\nx\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="directly before a block"):
        blocks(page)
