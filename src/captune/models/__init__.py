"""Model families, one file each; a family is a name in this table."""

from captune.core.tables import Table

FAMILIES = Table(
    "model family",
    {
        "blip": "captune.models.blip:Blip",
    },
    group="captune.families",
)
