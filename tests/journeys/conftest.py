"""Fixtures of the journeys: command lines as typed, and jobs whose model only looks at colours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from captune.inference.captioner import Captioner
from jobs import FakeCaptioner, fake_loading, model_folder, pictures
from typed import Typed


@pytest.fixture(scope="session")
def hub(pages_hub: dict[str, str]) -> dict[str, str]:
    return pages_hub


@pytest.fixture(scope="session")
def captune(request: pytest.FixtureRequest) -> Typed:
    """Runs a command line in a process of its own; on Linux a copy of a warm one, which starts ten times as fast."""
    if sys.platform != "linux":
        return Typed((sys.executable, "-m", "captune"))
    address = request.getfixturevalue("warm")
    return Typed((str(Path(address).parent / "bin" / "captune"),), {"DOC_WARM": address})


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[FakeCaptioner]:
    """The captioners without a model that were loaded."""
    monkeypatch.setattr(Captioner, "load", Captioner.load)  # put back afterwards
    return fake_loading()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: list[FakeCaptioner]) -> Path:
    """The working folder, with `pics/` of 20 images (two of them bad) and `model/`."""
    monkeypatch.chdir(tmp_path)
    pictures(Path("pics"), 20, bad=(3, 17))
    model_folder(Path("model"))
    return tmp_path
