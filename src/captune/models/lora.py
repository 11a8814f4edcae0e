"""Low-rank adapters on a backbone's linear layers (Hu et al. 2021), by `peft`.

A model with adapters is saved whole, the adapters added to its weights, so that anything
that loads the family loads it; the adapters alone lie beside it in `adapter/`, as peft
keeps them, and are what a training resumes from. With a named base they are all that is saved.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from captune.core.errors import CaptuneError, UsageError
from captune.core.options import PARTS

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

ADAPTER = "adapter"


@dataclass(frozen=True)
class AdapterBase:
    """The model that adapters are saved without: a folder or Hub id, its commit there, a digest of its files."""

    name: str
    revision: str | None
    digest: str


@dataclass(frozen=True)
class Lora:
    """Rank, scale (alpha / r), dropout, and the parts whose linear layers get adapters (none named: the family's)."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Lora:
        """`r=16,alpha=32,dropout=0.05,targets=text+bridge`, each part of it optional; `on` for the defaults."""
        found: dict[str, Any] = {}
        for pair in filter(None, re.split(r"[,\s]+", "" if text == "on" else text)):
            name, _, value = pair.partition("=")
            try:
                if name in ("r", "alpha"):
                    found[name] = int(value)
                elif name == "dropout":
                    found[name] = float(value)
                elif name == "targets" and value and set(value.split("+")) <= set(PARTS):
                    found[name] = tuple(value.split("+"))
                else:
                    raise ValueError
            except ValueError:
                raise UsageError(
                    f"--lora: '{pair}' is not understood.",
                    "For example: --lora r=16,alpha=32,dropout=0.05,targets=bridge+text",
                ) from None
        made = cls(**{"alpha": 2 * found.get("r", cls.r), **found})
        if made.r < 1 or made.alpha < 1 or not 0 <= made.dropout < 1:
            raise UsageError(f"--lora: {text}: r and alpha are above 0, dropout is from 0 to below 1.", "")
        return made


def add_lora(backbone: Backbone, lora: Lora) -> None:
    """Put adapters on the linear layers of the parts named; from now on they alone learn.

    They start at zero: the captions do not change yet. Raises `CaptuneError` where
    peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise CaptuneError("--lora needs peft.", "pip install 'captune[lora]'") from None
    lora = replace(lora, targets=lora.targets or backbone.adapted_by_default)
    names = {id(p): part for part, found in backbone.parts().items() for p in found}
    # The head often is the words' embedding as well, which must not change with it.
    head = backbone.model.get_output_embeddings()
    shared = {id(m.weight) for m in backbone.model.modules() if isinstance(m, nn.Embedding) or m is head}
    targets = [
        name
        for name, module in backbone.model.named_modules()
        if _is_linear(module) and id(module.weight) not in shared and names.get(id(module.weight)) in lora.targets
    ]
    if not targets:
        raise UsageError(f"There is no linear layer in {' and '.join(lora.targets)}.", "Name other parts: targets=text")
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, bias="none")
    inject_adapter_in_model(config, backbone.model)
    for name, parameter in backbone.model.named_parameters():
        learns = ".lora_" in name
        parameter.requires_grad_(learns)
        if learns:
            parameter.data = parameter.data.float()  # small sums must not round away
    backbone.lora = lora
    backbone.clear_fused()


def merged(model: Any) -> Any:
    """A copy of a model whose adapters are added to its weights, as plain `transformers` has it.

    Weights without adapters are the model's own: there is no second copy of them.
    """
    shared = {id(p): p for name, p in model.named_parameters() if ".base_layer." not in name}
    whole = copy.deepcopy(model, dict[int, Any](shared))
    merge(whole)
    return whole


def merge(model: Any) -> None:
    """Add a model's adapters to its weights, for good."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "merge") and hasattr(module, "get_base_layer"):
            module.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def save_adapter(backbone: Backbone, folder: Path, base: AdapterBase | None = None) -> None:
    """Write the adapters alone, as peft reads them with `PeftModel.from_pretrained(model, folder)`.

    With the name of their `base`, `transformers` finds that by itself.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(backbone.model)
    state = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(next(iter(backbone.model.peft_config.values())))
    if isinstance(config.target_modules, set):  # whose order is another in each process
        config.target_modules = sorted(config.target_modules)
    if base is not None:
        config.base_model_name_or_path, config.revision = base.name, base.revision
    config.save_pretrained(str(folder))


def load_adapter(backbone: Backbone, folder: Path) -> None:
    """Put saved adapters in the place of those that `add_lora` made.

    Raises `CaptuneError` where one is missing or has another name: without effect, nothing else would tell.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    state = load_file(folder / "adapter_model.safetensors")
    state = {name.removeprefix("base_model.model."): value for name, value in state.items()}
    wrong = sorted(state.keys() ^ get_peft_model_state_dict(backbone.model).keys())
    if wrong:
        state_of = "is not the model's" if wrong[0] in state else "is missing"
        raise CaptuneError(
            f"The adapters in {folder} are of another model: {wrong[0]} {state_of} ({len(wrong)} such in all).",
            "Use those of this run.",
        )
    set_peft_model_state_dict(backbone.model, state)
    backbone.clear_fused()


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ in ("Conv1D", "Linear8bitLt", "Linear4bit")
