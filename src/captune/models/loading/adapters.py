"""Adapters that are saved without the model they belong to: which one it is, and how they are added to it."""

from pathlib import Path

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import read_json
from captune.core.model_names import ADAPTER_CONFIG, BASE, holds_adapters_alone, hub_name, is_new, is_pair, local_folder
from captune.models.backbone import Backbone
from captune.models.loading.identity import identity_of
from captune.models.lora import AdapterBase, Lora, add_lora, load_adapter, merge


def base_of(model: str) -> AdapterBase:
    """What adapters that are saved alone say of their model; raises `UsageError` where it has no name."""
    if is_new(model) or is_pair(model):
        raise UsageError(
            f"--save-adapter-only names the model that adapters belong to, and {model} is kept nowhere.",
            "Leave it out: a checkpoint then holds the whole model.",
        )
    folder = local_folder(model)
    if folder is not None and holds_adapters_alone(folder):
        raise UsageError(
            f"{model} holds adapters itself, which new ones cannot be saved beside.",
            "Leave out --save-adapter-only: a checkpoint then holds the whole model.",
        )
    identity = identity_of(model)
    digest = identity.digest if identity else ""
    if folder is not None:
        return AdapterBase(str(folder.resolve()), None, digest)
    repository, revision = hub_name(model)
    return AdapterBase(repository, digest.removeprefix("commit ") or revision, digest)


def base_name(folder: Path) -> str:
    """The model that the adapters in a folder belong to, as `load_backbone` takes it; raises `CaptuneError`."""
    config = read_json(folder / ADAPTER_CONFIG)
    name, revision = str(config.get("base_model_name_or_path") or ""), config.get("revision")
    if not name or (Path(name).is_absolute() and not Path(name).is_dir()):
        raise CaptuneError(
            f"{folder} holds adapters of {name or 'a model without a name'}, which is not there: "
            "without it they say nothing.",
            "Bring it back to where it was; a link to it will do.",
        )
    return f"{name}@{revision}" if revision and not Path(name).is_absolute() else name


def add_saved_adapters(backbone: Backbone, folder: Path) -> None:
    """Add the adapters in a folder to the model they belong to, and take over the settings beside them.

    They become part of its weights; quantized weights stay apart from them. Raises `CaptuneError` for other weights
    than those that the adapters were trained on.
    """
    card, name = backbone.read_card(folder), base_name(folder)
    found = identity_of(name)
    if found is not None and found.digest != card[BASE].get("digest"):
        raise CaptuneError(
            f"{name} is not the model that the adapters in {folder} were trained on: its files have changed.",
            "Bring that one back.",
        )
    lora = card["lora"]
    add_lora(backbone, Lora(**{**lora, "targets": tuple(lora["targets"])}))
    load_adapter(backbone, folder)
    if not getattr(backbone.model, "is_quantized", False):
        merge(backbone.model)
        backbone.lora = None
        for parameter in backbone.model.parameters():
            parameter.requires_grad_(True)
    backbone.read_settings(folder)
