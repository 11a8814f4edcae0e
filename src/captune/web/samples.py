"""Pictures that come with the app: built-in scenes, drawn when they are asked for."""

from __future__ import annotations

import io
from functools import cache

from captune.data.scenes import held_out_scenes, references, render_scene

COUNT, SIDE = 6, 384


@cache
def samples() -> dict[str, tuple[bytes, str]]:
    """PNG files with what a person says of each, by name."""
    found = {}
    for number, scene in enumerate(held_out_scenes(COUNT, seed=5), start=1):
        file = io.BytesIO()
        render_scene(scene, SIDE).save(file, "PNG")
        found[f"Scene {number}"] = (file.getvalue(), references(scene)[0])
    return found
