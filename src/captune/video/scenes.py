"""Where a film's scenes change, and which frame stands for a scene.

Not PySceneDetect: it needs OpenCV, and takes the frame of a scene by its position, not the sharpest one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from captune.video.frames import SampledFrame

# Samples on either side that say how much a film moves at the moment.
AROUND = 5
# A cut is this many times the usual difference above the threshold.
RISE = 3.0
# A dissolve is this many times the movement before and after it above the threshold.
CALM = 8.0
# Changes in a row that make a dissolve.
GRADUAL = 3
# Frames on either side of a cut that must all differ from those on the other.
CONFIRMED = 3
# Frames of less contrast are flat: blank where they have no colour either.
FLAT, GREY, DARK, BRIGHT = 24, 24, 32, 224
# Full frames of the current scene that may become its image.
CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Scene:
    """From `start` to `end`, in seconds, with the frame that stands for it."""

    start: float
    end: float
    best: SampledFrame


@dataclass(frozen=True, slots=True)
class FrameSignature:
    """What of a thumbnail stays the same while it fades: its layout and its colours."""

    layout: np.ndarray
    colours: np.ndarray


def signature(small: np.ndarray) -> FrameSignature | None:
    """The look of a thumbnail (height, width, 3), uint8; None for a blank frame: black, white or nearly so."""
    height, width = (side // 4 for side in small.shape[:2])
    coarse = small[: 4 * height, : 4 * width].reshape(height, 4, width, 4, 3).mean((1, 3), dtype=np.float32)
    light = coarse.mean(-1)
    low, high = np.percentile(light, (2, 98))
    if high - low < FLAT:
        mean = coarse.mean((0, 1))
        if np.ptp(mean) < GREY and (high < DARK or low > BRIGHT):
            return None
        pure = coarse / max(float(mean.max()), 1.0)
        return FrameSignature(np.zeros_like(light), np.sort(np.clip(pure, 0, 1).reshape(-1, 3), axis=0))
    stretched = np.clip((coarse - low) / (high - low), -0.5, 1.5)
    light = stretched.mean(-1)
    return FrameSignature((light - light.mean()) / light.std(), np.sort(stretched.reshape(-1, 3), axis=0))


def difference(one: FrameSignature, other: FrameSignature) -> float:
    """How different two frames look, about 0–1: only what differs in layout and in colours counts.

    A pan changes the layout and keeps the colours; a fade, a flash or a cloud changes neither much.
    """
    layout = (1 - float((one.layout * other.layout).mean())) / 2
    colours = float(np.abs(one.colours - other.colours).mean())
    return (max(layout, 0.0) * colours) ** 0.5


def sharpness(small: np.ndarray) -> float:
    """Variance of a thumbnail's second derivative: blurred and faded frames have little."""
    light = small.mean(-1, dtype=np.float32)
    around = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:]
    return float((around - 4 * light[1:-1, 1:-1]).var())


@dataclass(slots=True)
class _Frame:
    sample: SampledFrame
    signature: FrameSignature | None  # None: blank
    sharp: float
    change: float | None  # from the last frame that was not blank


class _Candidates:
    """The sharpest frames of a scene's stretches: a few whole frames however long it becomes."""

    def __init__(self) -> None:
        self._frames: list[_Frame] = []
        self._stretch = 1  # samples that share a place
        self._open = 0

    def add(self, frame: _Frame) -> None:
        if self._open and self._open < self._stretch:
            self._frames[-1] = _better(self._frames[-1], frame)
        else:
            if len(self._frames) == CANDIDATES:
                pairs = zip(self._frames[::2], self._frames[1::2], strict=True)
                self._frames = [_better(*pair) for pair in pairs]
                self._stretch *= 2
            self._frames.append(frame)
            self._open = 0
        self._open += 1

    def __bool__(self) -> bool:
        return bool(self._frames)

    def best(self, start: float, end: float) -> SampledFrame:
        """The sharpest of the middle half that is not blank, else of the whole scene."""
        quarter = (end - start) / 4
        middle = [s for s in self._frames if start + quarter <= s.sample.time <= end - quarter and s.signature]
        shown = middle or [s for s in self._frames if s.signature] or self._frames
        # Among equals the nearest to the middle.
        return max(shown, key=lambda s: (round(s.sharp, 1), -abs(s.sample.time - (start + end) / 2))).sample


def _better(one: _Frame, other: _Frame) -> _Frame:
    return max(one, other, key=lambda frame: (frame.signature is not None, frame.sharp))


def find_scenes(
    samples: Iterable[SampledFrame], end: Callable[[], float], *, threshold: float = 0.06, least: float = 1.0
) -> Iterator[Scene]:
    """The scenes of a film in order; each is there about a second after its end was read.

    A scene begins where a frame differs from the one before by `threshold` and three times the usual
    difference around it, or in the middle of a dissolve of up to a second. Blank frames are passed over,
    so a fade out and in again divides nothing, and a fade to another scene divides once. No scene is shorter
    than `least` seconds, but a whole film may be. `end` tells the film's end when the samples are through.
    """
    finder = _Finder(threshold, least)
    last = 0.0
    for sample in samples:
        last = sample.time
        yield from finder.add(sample)
    yield from finder.finish(max(end(), last))


class _Finder:
    """What is known of a film while it is read."""

    def __init__(self, threshold: float, least: float) -> None:
        self.threshold, self.least = threshold, least
        self.window: deque[_Frame] = deque()  # the frame to decide on, and what comes after it
        self.before: deque[FrameSignature] = deque(maxlen=CONFIRMED)
        self.changes: deque[float] = deque(maxlen=2 * AROUND + 1)
        self.signatures: deque[FrameSignature] = deque(maxlen=2 * AROUND + 1)
        self.candidates = _Candidates()
        self.start: float | None = None
        self.waiting: Scene | None = None  # until the scene after it is known to be long enough

    def add(self, sample: SampledFrame) -> Iterator[Scene]:
        """Take in a frame; yields a scene that is complete."""
        now, change = signature(sample.small), None
        if now is not None:
            if self.signatures:
                change = difference(self.signatures[-1], now)
                self.changes.append(change)
            self.signatures.append(now)
        self.start = sample.time if self.start is None else self.start
        self.window.append(_Frame(sample, now, sharpness(sample.small), change))
        if len(self.window) > AROUND:
            yield from self._decide()

    def finish(self, end: float) -> Iterator[Scene]:
        """The scenes that are left."""
        while self.window:
            yield from self._decide()
        if self.start is None:
            return
        if self.waiting is not None and end - self.start < self.least:
            yield replace(self.waiting, end=end)
            return
        if self.waiting is not None:
            yield self.waiting
        yield Scene(self.start, end, self.candidates.best(self.start, end))

    def _decide(self) -> Iterator[Scene]:
        frame = self.window.popleft()
        time = frame.sample.time
        assert self.start is not None
        if frame.change is not None and time - self.start >= self.least and self._begins(frame):
            if self.waiting is not None:
                yield self.waiting
            self.waiting = Scene(self.start, time, self.candidates.best(self.start, time))
            self.candidates, self.start = _Candidates(), time
        if frame.signature is not None:
            self.before.append(frame.signature)
        self.candidates.add(frame)

    def _begins(self, frame: _Frame) -> bool:
        if not _cuts(frame.change, self.changes, self.threshold):
            return _dissolves(self.signatures, self.changes, self.threshold)
        # A flash or a passing lorry differs from both sides; the sides do not differ from each other.
        after = [frame.signature, *(s.signature for s in islice(self.window, CONFIRMED - 1))]
        pairs = [(old, new) for old in self.before for new in after if new is not None]
        return min(difference(*pair) for pair in pairs) >= self.threshold


def cut_evenly(samples: Iterable[SampledFrame], end: Callable[[], float]) -> Iterator[Scene]:
    """A scene from each sample to the next, as if every sample began one."""
    before: SampledFrame | None = None
    for sample in samples:
        if before is not None:
            yield Scene(before.time, sample.time, before)
        before = sample
    if before is not None:
        yield Scene(before.time, max(end(), before.time), before)


def _cuts(change: float | None, changes: Iterable[float], threshold: float) -> bool:
    return change is not None and change >= threshold + RISE * float(np.median(list(changes)))


def _dissolves(signatures: Sequence[FrameSignature], changes: Sequence[float], threshold: float) -> bool:
    """Whether one calm scene has become another over the frames around, with no cut among them."""
    if len(changes) < 2 * AROUND + 1 or any(_cuts(change, changes, threshold) for change in changes):
        return False
    moving = max(changes[0], changes[1], changes[-2], changes[-1])
    inner = sorted(changes)[-GRADUAL]
    return inner >= RISE * moving and difference(signatures[0], signatures[-1]) >= threshold + CALM * moving
