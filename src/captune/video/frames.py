"""Reading films: frames with their times and thumbnails, one after another, in little memory."""

from __future__ import annotations

import math
import os
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from captune.core.errors import CaptuneError, missing_extra
from captune.images.open import MAX_PIXELS

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

# The demuxers that may see a file. Left out on purpose: playlists and scripts (they open other
# files and addresses), text drawn as images, and devices.
CONTAINERS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "mxf", "nut", "rm", "dv", "wtv",
    "gif", "apng", "ivf", "obu", "h263", "h264", "hevc", "m4v", "mjpeg", "swf", "gxf", "nsv", "amv", "yuv4mpegpipe",
    "mp3", "wav", "flac", "aac", "ac3", "eac3", "aiff", "amr", "caf", "w64", "wv", "ape", "dts",
)  # fmt: skip
FILM_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".vob", ".flv",
        ".f4v", ".wmv", ".asf", ".ogv", ".ogm", ".3gp", ".3g2", ".mxf", ".nut", ".rm", ".rmvb", ".dv", ".wtv", ".ivf",
    )
)  # fmt: skip
THUMBNAIL = (128, 72)
# Where the decoder may leave out the frames that no other needs, and still have enough.
_SPARE = 3
# Packets before and after one that are looked at with it, and by how many places codes reorder them.
_AROUND, _REORDERED = 16, 6
# From this many seconds between two samples on, seeking is quicker than decoding all.
_SEEK = 10.0


class FilmError(CaptuneError):
    """A film that cannot be used: `path` and `reason` (a few words)."""

    def __init__(self, path: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint)
        self.path, self.reason = path, reason


@dataclass(slots=True)
class SampledFrame:
    """A frame that is looked at: its time in seconds from the film's start, its thumbnail (72, 128, 3), uint8."""

    time: float
    small: np.ndarray
    frame: VideoFrame


class Film:
    """An open film, to be used in a `with` block; times are seconds from its start.

    `duration` is what the file states (0: nothing); `end` the end of the last frame that was read; `damage`
    says in a few words what was lost, once all was read. Raises `FilmError` for what is no film.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> None:
        self.path = os.fspath(path)
        self.end = 0.0
        self.damage = ""
        self._broken = self._frames = 0
        self._turn: Callable[[Image.Image], Image.Image] | None = None
        self._container = _open(self.path)
        try:
            self._stream = self._video_stream()
            self._stream.thread_type = "AUTO"
            width, height = self._stream.codec_context.width, self._stream.codec_context.height
            if width * height > max_pixels:
                reason = f"{width} × {height} pixels are more than the {max_pixels:,} that are allowed"
                raise FilmError(self.path, reason)
        except BaseException:
            self._container.close()
            raise
        first = self._container.start_time
        self._start = 0.0 if first is None else first / 1_000_000
        self.duration = (self._container.duration or 0) / 1_000_000
        rate = self._stream.average_rate or self._stream.base_rate
        self.rate = float(rate) if rate else 25.0
        self._tolerance = 0.5 / self.rate  # many containers round times

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def samples(self, per_second: float) -> Iterator[SampledFrame]:
        """Frames about 1/`per_second` seconds apart, and every frame that stands for longer; to be read once."""
        step = 1 / per_second
        frames = self._sought(step) if step >= _SEEK and self.duration else self._decoded(step / _SPARE)
        due, passed = 0.0, None
        for time, frame in frames:
            if time < due - self._tolerance:
                passed = time, frame
                continue
            if passed is not None and time - passed[0] > step:  # a frame that stood for long
                yield SampledFrame(passed[0], thumbnail(passed[1]), passed[1])
            due, passed = (due if time - due < step else time) + step, None
            yield SampledFrame(time, thumbnail(frame), frame)
        self._judge()

    def image(self, frame: VideoFrame) -> Image.Image:
        """A frame as a viewer sees it: RGB, upright, with square pixels."""
        image = frame.to_image()
        shape = self._stream.sample_aspect_ratio or 1
        if shape > 0 and shape != 1:
            image = image.resize((max(1, round(image.width * float(shape))), image.height))
        if self._turn is None:
            # Asked once: a frame that was asked for its side data is freed only by the garbage collector.
            self._turn = _turn(frame)
        return self._turn(image)

    def _video_stream(self) -> Any:
        moving = [s for s in self._container.streams.video if not int(s.disposition) & _COVER]
        if moving and moving[0].codec_context is not None:
            return moving[0]
        if moving:
            raise FilmError(self.path, "its images are in a code that is not known here")
        what = "sound alone, no images" if self._container.streams.audio else "no images in it"
        raise FilmError(self.path, what, "Give a film that has a video track.")

    def _decoded(self, spare: float = 0.0) -> Iterator[tuple[float, VideoFrame]]:
        """Every frame with its time; damaged parts are left out and counted.

        Where all frames around last at most `spare` seconds, those that no other needs are left out.
        """
        from av.error import FFmpegError

        time = -1.0 / self.rate
        for packet, crowded in self._packets(spare):
            self._stream.codec_context.skip_frame = "NONREF" if crowded else "DEFAULT"
            try:
                frames = packet.decode()
            except EOFError:
                return
            except FFmpegError:
                self._broken += 1
                continue
            if packet.pts is not None and packet.duration:
                self.end = max(self.end, float((packet.pts + packet.duration) * packet.time_base) - self._start)
            for frame in frames:
                self._frames += 1
                elapsed = None if frame.time is None else frame.time - self._start
                time = time + 1 / self.rate if elapsed is None else elapsed
                self.end = max(self.end, time + 1 / self.rate)
                yield max(time, 0.0), frame

    def _packets(self, spare: float) -> Iterator[tuple[Any, bool]]:
        """The film's packets, and whether the frames before and after each last at most `spare` seconds."""
        from av.error import FFmpegError

        waiting: deque[Any] = deque()
        stamps: deque[int | None] = deque(maxlen=2 * _AROUND)
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                break
            except FFmpegError:
                self._broken += 1
                break
            waiting.append(packet)
            stamps.append(packet.pts)
            if len(waiting) > _AROUND:
                yield waiting.popleft(), spare > 0 and _longest(stamps, packet.time_base) <= spare
        yield from ((packet, False) for packet in waiting)

    def _sought(self, step: float) -> Iterator[tuple[float, VideoFrame]]:
        """The first frame at or after every multiple of `step` seconds, without decoding what lies between."""
        from av.error import FFmpegError

        target = 0.0
        while target < max(self.duration, step / 2):
            try:
                self._container.seek(int((target + self._start) * 1_000_000))
            except FFmpegError:
                self._broken += 1
                return
            found = next(((t, f) for t, f in self._decoded() if t >= target - self._tolerance), None)
            if found is None:
                return
            yield found
            target = max(target + step, found[0])
        self.end = max(self.end, self.duration)

    def _judge(self) -> None:
        if not self._frames:
            raise FilmError(self.path, "damaged (no frame can be decoded)", "Download or copy it again.")
        if self._stream_seconds() - self.end > max(1.0, 0.02 * self.duration):
            self.damage = f"truncated (its images end at {self.end:.1f} s of {self._stream_seconds():.1f} s)"
        elif self._broken:
            self.damage = "damaged (parts of it cannot be decoded)"

    def _stream_seconds(self) -> float:
        """How long the images last by the file's own account: sound may go on without them."""
        first, duration, frames = self._stream.start_time or 0, self._stream.duration, self._stream.frames
        if duration is None:
            return max(self.duration, frames / self.rate)
        return max(float((first + duration) * self._stream.time_base) - self._start, frames / self.rate)


_COVER = 0x0400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the cover of a record


_FLIP = Image.Transpose
# The signs of a display matrix (x' = ax + cy, y' = bx + dy) and what brings an image there.
_TURNS = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): _FLIP.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): _FLIP.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): _FLIP.ROTATE_180,
    (0, 1, -1, 0): _FLIP.ROTATE_270,
    (0, -1, 1, 0): _FLIP.ROTATE_90,
    (0, 1, 1, 0): _FLIP.TRANSPOSE,
    (0, -1, -1, 0): _FLIP.TRANSVERSE,
}


def _turn(frame: VideoFrame) -> Callable[[Image.Image], Image.Image]:
    """What brings a frame's image upright, as its film's display matrix says."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return lambda image: image
    a, b, _, c, d = np.sign(np.frombuffer(matrix, "=i4")[:5]).tolist()
    if (a, b, c, d) not in _TURNS:
        angle = frame.rotation
        return lambda image: image.rotate(angle, expand=True)
    turn = _TURNS[a, b, c, d]
    return lambda image: image if turn is None else image.transpose(turn)


def _longest(stamps: Collection[int | None], base: Fraction | None) -> float:
    """The longest time from one frame to the next, in seconds; without bound where it cannot be told."""
    known = sorted(stamp for stamp in stamps if stamp is not None)[_REORDERED:-_REORDERED]
    if len(known) + 2 * _REORDERED < 2 * _AROUND or base is None:
        return math.inf
    return float(max(later - earlier for earlier, later in pairwise(known)) * base)


def thumbnail(frame: VideoFrame) -> np.ndarray:
    """A frame as (72, 128, 3), uint8, RGB; as it is stored, not turned."""
    width, height = THUMBNAIL
    return frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()


def _open(path: str) -> InputContainer:
    try:
        import av
    except ImportError:
        raise missing_extra("av", "video", "Reading films") from None
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise FilmError(path, "there is no such file", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise FilmError(path, f"cannot be opened ({error})") from None
    if not stat.S_ISREG(state.st_mode):
        raise FilmError(path, "a folder, not a film" if stat.S_ISDIR(state.st_mode) else "not a regular file")
    if not state.st_size:
        raise FilmError(path, "empty (no bytes)", "Download or copy it again.")
    if not os.access(path, os.R_OK):
        raise FilmError(path, "no permission to read it", "Change its permissions.")
    av.logging.set_level(None)
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:
        return av.open(os.path.abspath(path), container_options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise FilmError(path, *_refused(path, error)) from None


def _refused(path: str, error: Exception) -> tuple[str, str]:
    """Reason and next step for a file that no demuxer takes."""
    from captune.images.signatures import HEAD_BYTES, detect_unreadable

    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return "truncated or damaged (its index is missing)", "Download or copy it again."
    known = detect_unreadable(head)
    if known and known[0] in ("pointer", "page"):
        reason, step = (text.replace("an image", "a film").replace("image", "film") for text in known[1:])
        return reason, f"{step[0].upper()}{step[1:]}."
    reason = str(getattr(error, "strerror", None) or error)
    return f"not a film ({reason})", "Images are for captune caption."
