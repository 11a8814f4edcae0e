"""Model families, one file each; a family is a name in this table."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from captune.core.tables import Table

if TYPE_CHECKING:
    from captune.models.backbone import Checkpoint


@dataclass(frozen=True)
class FamilyInfo:
    """A family: sizes for `new:FAMILY-SIZE`, its first line of documentation, its module, whose search it has."""

    name: str
    sizes: tuple[str, ...]
    about: str
    origin: str
    decoder: str = ""
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def new(self) -> tuple[str, ...]:
        """Names that `--model` takes for a model from scratch."""
        return tuple(f"new:{self.name}-{size}" for size in self.sizes)


def families() -> list[FamilyInfo]:
    """Every family in the table, those of other packages included. Loads torch; without it, names alone."""
    if find_spec("torch") is None:
        return [FamilyInfo(name, (), "", target.partition(":")[0]) for name, target in FAMILIES.targets.items()]
    from captune.models.backbone import Backbone

    found = []
    for name, target in FAMILIES.targets.items():
        family = FAMILIES[name]
        about = (family.__doc__ or "").strip().splitlines()
        own = family.text_decoder is not Backbone.text_decoder or family.cached_decoder is not Backbone.cached_decoder
        search = "captune" if own else "transformers"
        origin = target.partition(":")[0]
        found.append(
            FamilyInfo(name, tuple(family.sizes), about[0] if about else "", origin, search, family.checkpoints)
        )
    return found


FAMILIES = Table(
    "model family",
    {
        "blip": "captune.models.blip:Blip",
        "blip-vqa": "captune.models.blip_vqa:BlipVqa",
        "blip-2": "captune.models.blip2:Blip2",
        "git": "captune.models.git:Git",
        "clip-gpt2": "captune.models.clip_gpt2:ClipGpt2",
        "vlm": "captune.models.vlm:Vlm",
        "florence-2": "captune.models.florence2:Florence2",
    },
    group="captune.families",
    contract="A family is a subclass of captune.models.backbone.Backbone.",
)
# Families whose name is not what transformers calls their kind of model; by architecture where one kind has several.
KINDS = {"vision-encoder-decoder": "clip-gpt2", "florence2": "florence-2", "BlipForQuestionAnswering": "blip-vqa"}
