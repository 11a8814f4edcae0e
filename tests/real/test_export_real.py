"""An export checked on real photos, and on files that are hardly pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

import captune
from exported import EXPORTABLE, saved_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = [pytest.mark.real, pytest.mark.usefixtures("traced_once")]


@pytest.mark.parametrize("family", EXPORTABLE)
def test_an_export_says_of_real_photos_what_its_model_says(family: str, test_data: Path, tmp_path: Path) -> None:
    model = saved_model(family, tmp_path / "m")
    photos = str(test_data / "flickr8k" / "original")
    report = captune.export(model, tmp_path / "x", check_on=photos, check_images=24)
    assert (report.check.pictures, report.check.identical) == (24, 1.0)


def test_odd_files_spoil_no_check(test_data: Path, tmp_path: Path) -> None:
    model = saved_model("blip", tmp_path / "m")
    report = captune.export(model, tmp_path / "x", check_on=str(test_data / "odd"), check_images=400)
    assert 20 < report.check.pictures < 400
    assert report.check.identical == 1.0
