"""Films read as they are: times, turns, damage; their scenes found, and one sharp frame for each."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from captune.core.errors import CaptuneError
from captune.video.frames import Film, FilmError
from captune.video.scenes import cut_evenly, difference, find_scenes, signature
from films import RATE, drawn, faded, shot, turn, write_film, write_sound

pytest.importorskip("av")
LENGTHS = (2.0, 3.0, 1.5, 4.0, 2.5)
CUTS = list(itertools.accumulate(LENGTHS))[:-1]
# A cut is seen at the first frame that is looked at after it.
LATE = 1 / 5 + 1 / RATE


def scenes(path: Path, **settings: float) -> list[tuple[float, float, float]]:
    """Start, end and the time of the frame of each scene."""
    with Film(path) as film:
        return [(s.start, s.end, s.best.time) for s in find_scenes(film.samples(5), lambda: film.end, **settings)]


def assert_cut(found: list[tuple[float, float, float]], cuts: list[float], late: float = LATE) -> None:
    starts = [start for start, _, _ in found[1:]]
    assert len(starts) == len(cuts), f"{starts} instead of {cuts}"
    assert all(-0.05 <= start - cut <= late for start, cut in zip(starts, cuts, strict=True)), f"{starts}, {cuts}"
    assert [end for _, end, _ in found[:-1]] == starts
    assert all(start <= best <= end for start, end, best in found)


@pytest.fixture(scope="module")
def frames() -> list[Image.Image]:
    return [frame for seed, length in enumerate(LENGTHS) for frame in shot(drawn(seed), length)]


@pytest.fixture(scope="module")
def film(frames: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", frames)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"),
                        ("a.mpg", "mpeg2video"), ("a.ts", "libx264"), ("a.webm", "libvpx"), ("a.mov", "mjpeg")],
)  # fmt: skip
def test_each_scene_is_found_in_each_container(
    name: str, codec: str, frames: list[Image.Image], tmp_path: Path
) -> None:
    import av

    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {codec}")
    pixels = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    path = write_film(tmp_path / name, frames, codec=codec, rate=24 if codec == "mpeg2video" else RATE, **pixels)
    cuts = [cut / 2 for cut in CUTS] if codec == "mpeg2video" else CUTS
    found = scenes(path, least=0.5)
    assert_cut(found, cuts)
    assert found[0][0] == pytest.approx(0, abs=0.1)
    assert found[-1][1] == pytest.approx(sum(LENGTHS) / (2 if codec == "mpeg2video" else 1), abs=0.15)


def test_frames_of_varying_length_keep_their_times(tmp_path: Path) -> None:
    images, times, cuts, now = [], [], [], 0.0
    for seed, (length, step) in enumerate([(2.0, 0.04), (3.0, 0.25), (2.4, 0.1), (6.0, 1.5)]):
        for frame in shot(drawn(seed), length, rate=1 / step):
            images.append(frame)
            times.append(now)
            now += step
        cuts.append(now)
    assert_cut(scenes(write_film(tmp_path / "a.mkv", images, codec="libx264", times=times)), cuts[:-1])


def test_times_count_from_the_films_start(frames: list[Image.Image], tmp_path: Path) -> None:
    late = write_film(tmp_path / "late.ts", frames, codec="mpeg2video", rate=24, times=None, start=50.0)
    assert_cut(scenes(late, least=0.5), [cut / 2 for cut in CUTS])
    with_sound = write_film(tmp_path / "sound.mp4", frames, start=3.0, sound=True)
    found = scenes(with_sound)
    assert found[0][0] == pytest.approx(3.0, abs=0.01)
    assert_cut(found, [cut + 3 for cut in CUTS])


@pytest.mark.parametrize(
    ("matrix", "moved"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
    ],
)
def test_pictures_stand_upright(
    matrix: tuple[int, int, int, int], moved: Image.Transpose | None, tmp_path: Path
) -> None:
    stored = drawn(3)
    path = write_film(tmp_path / "a.mp4", [stored] * 6)
    turn(path, matrix)
    with Film(path) as film:
        shown = film.image(next(film.samples(5)).frame)
    wanted = stored if moved is None else stored.transpose(moved)
    assert shown.size == wanted.size
    assert np.abs(np.asarray(shown, float) - np.asarray(wanted, float)).mean() < 12


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    from fractions import Fraction

    path = write_film(tmp_path / "a.mkv", [drawn(1)] * 6, codec="libx264", sample_aspect_ratio=Fraction(4, 3))
    with Film(path) as film:
        assert film.image(next(film.samples(5)).frame).size == (256, 108)


def test_a_fade_out_and_in_divides_nothing(tmp_path: Path) -> None:
    one = shot(drawn(1), 8)
    half = len(one) // 2
    dark = [Image.new("RGB", one[0].size)] * RATE
    frames = [*faded(one[:half], lambda t: min(1, 3 - 3 * t)), *dark, *faded(one[half:], lambda t: min(1, 3 * t))]
    (found,) = scenes(write_film(tmp_path / "a.mp4", frames))
    with Film(tmp_path / "a.mp4") as film:
        (scene,) = find_scenes(film.samples(5), lambda: film.end)
        assert np.asarray(film.image(scene.best.frame)).mean() > 40
    assert found[1] == pytest.approx(9, abs=0.1)


def test_a_fade_to_another_scene_divides_once(tmp_path: Path) -> None:
    dark = [Image.new("RGB", drawn(1).size)] * (RATE // 2)
    out = faded(shot(drawn(1), 4), lambda t: min(1, 4 - 4 * t))
    into = faded(shot(drawn(2), 4), lambda t: min(1, 4 * t))
    assert_cut(scenes(write_film(tmp_path / "a.mp4", [*out, *dark, *into])), [4.5], late=0.6)


def test_a_dissolve_divides_once(tmp_path: Path) -> None:
    one, two = shot(drawn(1), 4), shot(drawn(2), 4)
    mixed = [Image.blend(a, b, n / RATE) for n, (a, b) in enumerate(zip(one[-RATE:], two[:RATE], strict=True))]
    found = scenes(write_film(tmp_path / "a.mp4", [*one[:-RATE], *mixed, *two[RATE:]]))
    assert_cut(found, [3.0], late=1.2)


def test_a_flash_and_a_pan_divide_nothing(tmp_path: Path) -> None:
    frames = shot(drawn(5), 6, drift=12)
    frames[30] = Image.blend(frames[30], Image.new("RGB", frames[30].size, "white"), 0.8)
    assert len(scenes(write_film(tmp_path / "a.mp4", frames))) == 1


def test_plain_colours_are_scenes(tmp_path: Path) -> None:
    colours = ("red", "lime", "blue", "yellow")
    frames = [Image.new("RGB", (64, 48), colour) for colour in colours for _ in range(2 * RATE)]
    assert_cut(scenes(write_film(tmp_path / "a.mp4", frames)), [2, 4, 6])


def test_no_scene_is_shorter_than_asked(film: Path) -> None:
    assert all(end - start >= 2.9 for start, end, _ in scenes(film, least=3.0))


def test_the_frame_of_a_scene_is_sharp_and_not_black(tmp_path: Path) -> None:
    frames = [frame.filter(ImageFilter.GaussianBlur(4)) for frame in shot(drawn(7), 6)]
    sharp = shot(drawn(7), 6)
    frames[30:36] = sharp[30:36]
    ((_, _, best),) = scenes(write_film(tmp_path / "a.mp4", frames))
    assert 30 / RATE <= best <= 36 / RATE
    black = [Image.new("RGB", sharp[0].size)] * (4 * RATE)
    ((_, _, best),) = scenes(write_film(tmp_path / "b.mp4", [*black, *sharp[: 2 * RATE]]))
    assert best >= 4


@pytest.mark.parametrize("every", [2.5, 12.0])
def test_frames_at_even_intervals(every: float, tmp_path: Path) -> None:
    frames = [frame for seed in range(10) for frame in shot(drawn(seed), 4)]
    path = write_film(tmp_path / "a.mp4", frames, gop_size=10)
    with Film(path) as film:
        found = list(cut_evenly(film.samples(1 / every), lambda: film.end))
        assert not film.damage
    assert [scene.start for scene in found] == pytest.approx(np.arange(0, 40, every).tolist(), abs=0.05)
    assert found[-1].end == pytest.approx(40, abs=0.1)
    for scene in found:
        wanted, given = (
            np.asarray(frames[round(scene.start * RATE)], float),
            scene.best.frame.to_ndarray(format="rgb24"),
        )
        assert np.abs(wanted - given).mean() < 15


def test_one_frame_is_a_film(tmp_path: Path) -> None:
    assert len(scenes(write_film(tmp_path / "a.mp4", [drawn(1)]))) == 1


def refusal(path: Path, **settings: int) -> str:
    with pytest.raises(FilmError) as error, Film(path, **settings) as film:
        list(film.samples(5))
    assert error.value.path == str(path)
    return error.value.reason


def test_what_is_no_film_is_named(film: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("once upon a time\n" * 50)
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:5,\n{film}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile '{film}'\n")
    drawn(1).save(tmp_path / "picture.jpg")
    whole = film.read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path / "nowhere.mp4") == "there is no such file"
    assert refusal(tmp_path) == "a folder, not a film"
    assert refusal(tmp_path / "empty.mp4") == "empty (no bytes)"
    for name in ("text.mp4", "list.m3u8", "list.ffconcat", "picture.jpg"):
        assert refusal(tmp_path / name).startswith("not a film"), name
    assert "HTML" in refusal(tmp_path / "page.mp4") or "not a film" in refusal(tmp_path / "page.mp4")
    (tmp_path / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    assert refusal(tmp_path / "pointer.mp4") == "a Git LFS pointer, not the film itself"
    assert refusal(tmp_path / "head.mp4") == "truncated or damaged (its index is missing)"
    assert refusal(write_sound(tmp_path / "sound.m4a")) == "sound alone, no images"
    assert "more than the 1,000 that are allowed" in refusal(film, max_pixels=1000)


def test_a_truncated_film_gives_what_is_left(frames: list[Image.Image], tmp_path: Path) -> None:
    for name, codec in (("a.mkv", "libx264"), ("a.avi", "mpeg4")):
        whole = write_film(tmp_path / name, frames, codec=codec)
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
        with Film(cut) as film:
            found = list(find_scenes(film.samples(5), lambda: film.end))
            assert film.damage.startswith("truncated (its images end at"), name
        assert_cut([(s.start, s.end, s.best.time) for s in found], CUTS[: len(found) - 1])


def test_damage_in_the_middle_costs_only_itself(frames: list[Image.Image], tmp_path: Path) -> None:
    whole = bytearray(write_film(tmp_path / "a.avi", frames).read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 3000] = bytes(3000)
    (tmp_path / "a.avi").write_bytes(whole)
    assert len(scenes(tmp_path / "a.avi")) >= 4


def test_blank_frames_have_no_look() -> None:
    for value in (0, 12, 250):
        assert signature(np.full((72, 128, 3), value, np.uint8)) is None
    image = np.asarray(drawn(1).resize((128, 72)))
    one, darker, other = (signature(p) for p in (image, image // 3, np.asarray(drawn(2).resize((128, 72)))))
    assert one
    assert darker
    assert other
    assert difference(one, darker) < 0.03 < 0.1 < difference(one, other)


def test_without_pyav_the_extra_is_named(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(CaptuneError, match=r"captune\[video\]"):
        Film(film)
