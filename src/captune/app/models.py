"""The model families that captune knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from captune.core.tables import Table

if TYPE_CHECKING:
    from captune.models.backbone import Checkpoint


@dataclass(frozen=True)
class FamilyInfo:
    """A family: the sizes for `new:FAMILY-SIZE`, its first line of documentation, where it comes from."""

    name: str
    sizes: tuple[str, ...]
    about: str
    origin: str
    parts: tuple[str, ...] = ()
    decoder: str = ""
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def new(self) -> tuple[str, ...]:
        """Names that `--model` takes for a model from scratch."""
        return tuple(f"new:{self.name}-{size}" for size in self.sizes)


def families() -> list[FamilyInfo]:
    """Every family in the table, those of other packages included. Loads torch."""
    table = _table()
    found = []
    for name, target in table.targets.items():
        family = table[name]
        about = (family.__doc__ or "").strip().splitlines()
        tiny = family.tiny()
        found.append(
            FamilyInfo(
                name,
                tuple(family.sizes),
                about[0] if about else "",
                target.partition(":")[0],
                tuple(part for part, parameters in tiny.parts().items() if parameters),
                tiny.decoder,
                family.checkpoints,
            )
        )
    return found


def _table() -> Table:
    from captune.models import FAMILIES

    return FAMILIES
