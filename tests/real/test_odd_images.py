"""227 difficult files, each opened in a process that may use 2 GB: an image or a reason, never a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from captune.core.errors import ImageError
from captune.datasets.prepare import prepare
from captune.datasets.prepared import read_split
from captune.images.open import open_image

pytestmark = pytest.mark.real

TWO_GB = 2 * 1000**3

# Opens every file it is told of and reports the outcome and the peak of memory after it.
OPEN_ALL = """
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
from captune.images.open import ImageError, open_image

def peak():  # getrusage would count the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

for line in sys.stdin:
    path = json.loads(line)
    try:
        image = open_image(path)
        assert image.mode == "RGB" and not image.info
        said = ["ok", list(image.size)]
        del image
    except ImageError as error:
        said = [error.kind, error.reason]
    print(json.dumps([path, *said, peak()]), flush=True)
"""

EXPECTED = {
    "truncated/truncated_jpeg.jpg": "truncated",
    "truncated/truncated_image.png": "truncated",
    "truncated/shortfile.bmp": "truncated",
    "truncated/broken_data_stream.png": "damaged",
    "truncated/badwidth.bmp": "giant",
    "truncated/truncated_exif_dpi.jpg": "ok",
    "truncated/sugarshack_bad_mpo_header.jpg": "ok",
    "bomb_dims/decompression_bomb.ico": "giant",
    "bomb_dims/made_20000x20000_1bit.png": "giant",
    "bomb_dims/made_11000x9000_1bit.png": "ok",
    "bomb_dims/made_header_only_100000x100000.png": "damaged",
    "bomb_dims/png_decompression_dos.png": "damaged",
    "bomb_dims/made_1x5000.png": "ok",
    "wrong_or_empty/made_zero_byte.png": "empty",
    "wrong_or_empty/made_one_newline.jpg": "empty",
    "wrong_or_empty/made_html_404_named.jpg": "page",
    "wrong_or_empty/made_svg_named.png": "unsupported",
    "wrong_or_empty/made_heic_named.jpg": "ok",
    "wrong_or_empty/test-ole-file.doc": "unsupported",
    "wrong_or_empty/.DS_Store": "unknown",
    "wrong_or_empty/xet_pointer_1000092795.jpg": "pointer",
    "wrong_or_empty/made_jpeg_named.png": "ok",
    "wrong_or_empty/made name with spaces & ümläut 猫.jpg": "ok",
    "avif_heic/hopper.heif": "ok",
    "avif_heic/with-alpha-512x512.heic": "ok",
    "avif_heic/github_15.heic": "unknown",
    "fuzz/clusterfuzz-testcase-minimized-file-fuzzer-5671864958976000.heic": "truncated",
    "fuzz/clusterfuzz-testcase-minimized-file-fuzzer-5752063708495872.heic": "damaged",
    "avif_heic/example.avif": "ok",
    "formats/drawing.wmf": "unsupported",
    "formats/zero_bb.eps": "unsupported",
    "formats/hopper.psd": "ok",
    "formats/hopper.dds": "ok",
    "formats/hopper.fits": "ok",
    "formats/hopper.pcd": "ok",
    "formats/pillow.icns": "ok",
    "formats/balloon.jpf": "ok",
    "exif_bad/exif_typeerror.jpg": "ok",
    "exif_bad/hopper_bad_exif.jpg": "ok",
    "fuzz/timeout-60d8b7c8469d59fc9ffff6b3a3dc0faeae6ea8ee.blp": "unknown",
    "fuzz/timeout-c60a3d7314213624607bfb3e38d551a8b24a7435.dds": "truncated",
    "fuzz/timeout-1ee28a249896e05b83840ae8140622de8e648ba9.psd": "damaged",
    "lfs_pointer_images/COCO_val2014_000000006005.jpg": "pointer",
}
WHOLE_FOLDERS = ("exif_rotated", "exif_bad", "animated", "palette_alpha", "webp")


@pytest.fixture(scope="module")
def odd(test_data: Path) -> Path:
    folder = test_data / "odd"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return folder


@pytest.fixture(scope="module")
def opened(odd: Path) -> dict[str, tuple[str, object, int]]:
    """Outcome, reason or size, and peak memory of every file."""
    paths = sorted(str(path) for path in odd.rglob("*") if path.is_file())
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, str(TWO_GB)],
        input="".join(json.dumps(path) + "\n" for path in paths),
        capture_output=True,
        text=True,
    )
    assert done.stderr == "", "nothing may spill on the terminal"
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(paths)
    return {str(Path(row[0]).relative_to(odd)): tuple(row[1:]) for row in rows}


def test_all_have_an_outcome_within_two_gigabytes(opened: dict[str, tuple[str, object, int]]) -> None:
    assert len(opened) >= 227
    assert max(peak for _, _, peak in opened.values()) < TWO_GB
    outcomes = Counter(kind for kind, _, _ in opened.values())
    assert outcomes["ok"] >= 140
    assert "memory" not in outcomes


def test_reasons_are_the_right_ones(opened: dict[str, tuple[str, object, int]]) -> None:
    wrong = {name: (opened[name], kind) for name, kind in EXPECTED.items() if opened[name][0] != kind}
    assert wrong == {}
    for name, said in opened.items():
        if name.split("/")[0] in WHOLE_FOLDERS:
            assert said[0] == "ok", (name, said)
        if name.startswith("lfs_pointer"):
            assert "Git LFS" in str(said[1])


def test_rotated_photos_show_the_same_scene(odd: Path) -> None:
    def small(path: Path) -> np.ndarray:
        return np.asarray(open_image(path).resize((32, 32)), np.int16)

    for name, size in (("Landscape", (1800, 1200)), ("Portrait", (1200, 1800))):
        upright = small(odd / "exif_rotated" / f"{name}_1.jpg")
        others = sorted((odd / "exif_rotated").glob(f"{name}_[2-8].jpg"))
        assert len(others) >= 4
        for other in others:
            assert open_image(other).size == size
            # Each photo has its own digit drawn in it: the scene is equal, not every pixel.
            assert np.abs(small(other) - upright).mean() < 3, other.name


def test_deep_pictures_are_neither_white_nor_black(odd: Path) -> None:
    for name in ("hopper_16bit.pgm", "hopper16.rgb", "hopper.pfm", "basi0g16.png", "tiff_16bit_RGB.tiff"):
        mean = np.asarray(open_image(odd / "deep_16bit" / name)).mean()
        assert 20 < mean < 200, name
    same = np.asarray(open_image(odd / "deep_16bit" / "uint16_1_4660.tif"))
    assert set(same.ravel().tolist()) == {18}, "4660 of 65535 is 18 of 255"


def test_an_animation_shows_its_first_frame(odd: Path) -> None:
    from PIL import Image

    with Image.open(odd / "animated" / "iss634.gif") as gif:
        first = np.asarray(gif.convert("RGB"))
    assert np.array_equal(np.asarray(open_image(odd / "animated" / "iss634.gif")), first)


def test_bytes_and_paths_give_the_same(odd: Path) -> None:
    for path in sorted((odd / "truncated").iterdir()):
        said = []
        for source in (path, path.read_bytes()):
            try:
                said.append(open_image(source).tobytes())
            except ImageError as error:
                said.append(error.reason)
        assert said[0] == said[1], path.name


def test_prepare_lists_what_is_odd_and_keeps_the_rest(
    odd: Path, opened: dict[str, tuple[str, object, int]], tmp_path: Path
) -> None:
    paths = [path for path in sorted(odd.rglob("*")) if path.is_file() and path.suffix != ".md"]
    with open(tmp_path / "captions.jsonl", "w", encoding="utf-8") as file:
        for path in paths:
            file.write(json.dumps({"image": str(path), "caption": f"a picture of {path.parent.name}"}) + "\n")
    result = prepare(tmp_path / "captions.jsonl", tmp_path / "out", on_bad="skip", allow_outside=True)
    good = {record.image for split in ("train", "val", "test") for record in read_split(tmp_path / "out", split)}
    assert good == {str(odd / name) for name, said in opened.items() if said[0] == "ok"}
    assert len(result.problems) == len(paths) - len(good)
