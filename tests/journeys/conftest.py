"""Fixtures of the journeys: jobs whose model only looks at colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.app.captioner import Captioner
from jobs import FakeCaptioner, fake_loading, model_folder, pictures


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeCaptioner]:
    """The captioners without a model that were loaded."""
    monkeypatch.setattr(Captioner, "load", Captioner.load)  # put back afterwards
    return fake_loading()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[FakeCaptioner]) -> Path:
    """The working folder, with `pics/` of 20 pictures (two of them bad) and `model/`."""
    monkeypatch.chdir(tmp_path)
    pictures(Path("pics"), 20, bad=(3, 17))
    model_folder(Path("model"))
    return tmp_path
