"""Built-in scenes: coloured shapes with relations and counts, five references each, for a first training."""

from captune.data.scenes.drawing import render_scene
from captune.data.scenes.folder import SceneFolder, read_scenes, write_flickr8k_folder
from captune.data.scenes.wording import all_true, objects_named, references
from captune.data.scenes.world import Scene, held_out, held_out_scenes, training_scenes

__all__ = [
    "Scene",
    "SceneFolder",
    "all_true",
    "held_out",
    "held_out_scenes",
    "objects_named",
    "read_scenes",
    "references",
    "render_scene",
    "training_scenes",
    "write_flickr8k_folder",
]
