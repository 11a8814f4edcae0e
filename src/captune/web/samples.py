"""Images that come with the page, drawn for it (tools/samples, tools/draw-samples)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "assets" / "samples"
# What a person says of each.
SAMPLES = {
    "Dog": "a brown and white dog sits on the grass beside a yellow ball",
    "Boat": "a sailing boat on the sea at sunset",
    "Bus": "a red double-decker bus on a city street",
    "Cat": "a grey cat sits on a window sill in front of a garden",
    "Fruit": "a bowl of apples, oranges and bananas on a wooden table",
    "Lake": "a mountain lake with pine trees and a small red tent",
}


@cache
def samples() -> dict[str, tuple[bytes, str]]:
    """WebP files with what a person says of each, by name."""
    return {name: ((FOLDER / f"{name.lower()}.webp").read_bytes(), words) for name, words in SAMPLES.items()}
