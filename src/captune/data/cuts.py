"""Where a film's scenes change, and which frame stands for a scene."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from captune.data.films import Sample

# Samples on either side that say how much a film moves at the moment.
AROUND = 5
# A cut is this many times the usual difference above the threshold.
RISE = 3.0
# A dissolve is this many times the movement before and after it above the threshold.
CALM = 8.0
# Frames of less contrast are flat: blank where they have no colour either.
FLAT, GREY, DARK, BRIGHT = 24, 24, 32, 224
# Full frames of the current scene that may become its picture.
CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Scene:
    """From `start` to `end`, in seconds, with the frame that stands for it."""

    start: float
    end: float
    best: Sample


@dataclass(frozen=True, slots=True)
class Look:
    """What of a thumbnail stays the same while it fades: its layout and its colours."""

    layout: np.ndarray
    colours: np.ndarray


def look(small: np.ndarray) -> Look | None:
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
        return Look(np.zeros_like(light), np.sort(np.clip(pure, 0, 1).reshape(-1, 3), axis=0))
    stretched = np.clip((coarse - low) / (high - low), -0.5, 1.5)
    light = stretched.mean(-1)
    return Look((light - light.mean()) / light.std(), np.sort(stretched.reshape(-1, 3), axis=0))


def difference(one: Look, other: Look) -> float:
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
class _Seen:
    sample: Sample
    blank: bool
    sharp: float
    change: float | None  # from the last frame that was not blank


class _Candidates:
    """The sharpest frames of a scene's stretches: a few whole frames however long it becomes."""

    def __init__(self) -> None:
        self._kept: list[_Seen] = []
        self._stretch = 1  # samples that share a place
        self._open = 0

    def add(self, seen: _Seen) -> None:
        if self._open and self._open < self._stretch:
            self._kept[-1] = _better(self._kept[-1], seen)
        else:
            if len(self._kept) == CANDIDATES:
                pairs = zip(self._kept[::2], self._kept[1::2], strict=True)
                self._kept = [_better(*pair) for pair in pairs]
                self._stretch *= 2
            self._kept.append(seen)
            self._open = 0
        self._open += 1

    def __bool__(self) -> bool:
        return bool(self._kept)

    def best(self, start: float, end: float) -> Sample:
        """The sharpest of the middle half that is not blank, else of the whole scene."""
        quarter = (end - start) / 4
        middle = [s for s in self._kept if start + quarter <= s.sample.time <= end - quarter and not s.blank]
        shown = middle or [s for s in self._kept if not s.blank] or self._kept
        # Among equals the nearest to the middle.
        return max(shown, key=lambda s: (round(s.sharp, 1), -abs(s.sample.time - (start + end) / 2))).sample


def _better(one: _Seen, other: _Seen) -> _Seen:
    return max(one, other, key=lambda seen: (not seen.blank, seen.sharp))


def find_scenes(
    samples: Iterable[Sample], end: Callable[[], float], *, threshold: float = 0.06, least: float = 1.0
) -> Iterator[Scene]:
    """The scenes of a film in order; each is there about a second after its end was read.

    A scene begins where a frame differs from the one before by `threshold` and three times the usual
    difference around it, or in the middle of a dissolve of up to a second. Blank frames are passed over,
    so a fade out and in again divides nothing, and a fade to another scene divides once. No scene is shorter
    than `least` seconds, but a whole film may be. `end` tells the film's end when the samples are through.
    """
    window: deque[_Seen] = deque()  # what came before, the frame to decide on, what comes after
    changes: deque[float] = deque(maxlen=2 * AROUND + 1)
    looks: deque[Look] = deque(maxlen=2 * AROUND + 1)
    candidates, start, last = _Candidates(), 0.0, 0.0

    def decide(seen: _Seen, film_end: float | None) -> Scene | None:
        nonlocal candidates, start
        found = None
        time = seen.sample.time
        room = film_end is None or film_end - time >= least
        free = seen.change is not None and time - start >= least and room
        if free and (_cuts(seen.change, changes, threshold) or _dissolves(looks, changes, threshold)):
            found = Scene(start, time, candidates.best(start, time))
            candidates, start = _Candidates(), time
        candidates.add(seen)
        return found

    known: Look | None = None
    for sample in samples:
        now = look(sample.small)
        change = difference(known, now) if known is not None and now is not None else None
        if now is not None:
            known = now
            looks.append(now)
        if change is not None:
            changes.append(change)
        window.append(_Seen(sample, now is None, sharpness(sample.small), change))
        last = sample.time
        if len(window) > AROUND:
            found = decide(window.popleft(), None)
            if found:
                yield found
    film_end = max(end(), last)
    while window:
        found = decide(window.popleft(), film_end)
        if found:
            yield found
    if candidates:
        yield Scene(start, film_end, candidates.best(start, film_end))


def cut_evenly(samples: Iterable[Sample], end: Callable[[], float]) -> Iterator[Scene]:
    """A scene from each sample to the next, as if every sample began one."""
    before: Sample | None = None
    for sample in samples:
        if before is not None:
            yield Scene(before.time, sample.time, before)
        before = sample
    if before is not None:
        yield Scene(before.time, max(end(), before.time), before)


def _cuts(change: float | None, changes: Iterable[float], threshold: float) -> bool:
    return change is not None and change >= threshold + RISE * float(np.median(list(changes)))


def _dissolves(looks: Sequence[Look], changes: Sequence[float], threshold: float) -> bool:
    """Whether one calm scene has become another over the frames around, with no cut among them."""
    if len(changes) < 2 * AROUND + 1 or any(_cuts(change, changes, threshold) for change in changes):
        return False
    moving = max(changes[0], changes[1], changes[-2], changes[-1])
    return difference(looks[0], looks[-1]) >= threshold + CALM * moving
