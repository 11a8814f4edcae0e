"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos, or a skip that says where it is looked for."""
    folder = Path(os.environ.get("CAPTUNE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "flickr8k").is_dir():
        pytest.skip(f"real photos not found in {folder}; set CAPTUNE_TEST_DATA to the folder that holds flickr8k/")
    return folder
