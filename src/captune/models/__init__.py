"""Model families, one file each; a family is a name in this table."""

from captune.core.tables import Table

FAMILIES = Table(
    "model family",
    {
        "blip": "captune.models.blip:Blip",
        "blip-vqa": "captune.models.blip_vqa:BlipVqa",
        "blip-2": "captune.models.blip2:Blip2",
        "git": "captune.models.git:Git",
        "clip-gpt2": "captune.models.clip_gpt2:ClipGpt2",
    },
    group="captune.families",
    contract="A family is a subclass of captune.models.backbone.Backbone.",
)
# Families whose name is not what transformers calls their kind of model; by architecture where one kind has several.
KINDS = {"vision-encoder-decoder": "clip-gpt2", "BlipForQuestionAnswering": "blip-vqa"}
