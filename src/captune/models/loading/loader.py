"""From the name of a model to the model."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch

from captune.core.environment import heed_hub_token
from captune.core.errors import CaptuneError, UsageError
from captune.core.machine import is_out_of_memory
from captune.core.model_names import holds_adapters_alone, hub_name, local_folder, parse_new_name, unknown_family
from captune.core.runs import checkpoint_damage
from captune.models import FAMILIES, KINDS
from captune.models.backbone import Backbone
from captune.models.loading.adapters import add_saved_adapters, base_name
from captune.models.loading.devices import check_memory, check_torchvision
from captune.models.loading.errors import damaged_error, load_error, reason, unknown_kind
from captune.models.loading.pretrained import never_ask, pretrained
from captune.models.weights import FP32, Placing, Stored, stored_weights

Loaded = TypeVar("Loaded")
PAIR, VLM = "clip-gpt2", "vlm"
MATCHER = "matcher"


@dataclass(frozen=True)
class ModelInfo:
    """A model before it is loaded: its family, the hidden size of its vision part, its files."""

    family: type[Backbone]
    vision_hidden_size: int
    stored: Stored | None


def model_info(name: str) -> ModelInfo:
    """Read a model's configuration, fetched from the Hub where it lies there; raises `CaptuneError` as loading does."""

    def read(source: Any, **hub: Any) -> ModelInfo:
        from transformers import AutoConfig

        config: Any = pretrained(AutoConfig, source, **hub)
        vision = getattr(config, "vision_config", None) or getattr(config, "encoder", None)
        widths = getattr(vision, "hidden_size", None) or getattr(vision, "embed_dim", None) or 0
        width = widths if isinstance(widths, int) else widths[-1]  # of Florence-2's four stages the last
        return ModelInfo(_family(source, hub), width, stored_weights(source, **hub))

    return load_pretrained(read, name)


def load_backbone(
    name: str, *, image_size: int | None = None, quantize: str = "none", placing: Placing = FP32
) -> Backbone:
    """Load a captioner in evaluation mode, by default with fp32 weights on the CPU; quantized ones on their card.

    `placing` is for families that are `placed`; the others load in fp32. Raises `CaptuneError`
    where the model is not there, cannot be fetched, is broken, is of no known family, or is a checkpoint of which a
    file is no longer what was written.
    """
    quantization = _quantization(quantize)

    def load(source: Any, **hub: Any) -> Backbone:
        family = _family(source, hub)
        if quantization and not family.quantizes:
            raise UsageError(f"{family.family} is not loaded in {quantize}.", "Leave out --quantize.")
        placed = {"placing": placing} if family.placed else {}
        stored = None if quantization else stored_weights(source, **hub)
        if stored is not None:
            used = placing if family.placed else FP32
            device = used.device or torch.device("cpu")
            check_memory(name, stored.values, used.dtype, device, spread=used.spread)
        return family.load(source, image_size=image_size, **placed, **hub, **quantization)

    with verified(name):
        backbone = load_pretrained(load, name)
        folder = local_folder(name)
        if folder is not None and holds_adapters_alone(folder):
            add_saved_adapters(backbone, folder)
    backbone.model.eval()
    return backbone


@contextmanager
def verified(name: str) -> Iterator[None]:
    """Around the loading of a model: of a checkpoint its files are compared meanwhile with what was written.

    Raises `CaptuneError` that names the file, also instead of what a damaged file makes the loading raise.
    """
    folder = local_folder(name)
    if folder is None:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        damage = pool.submit(checkpoint_damage, folder, model_only=True)
        try:
            yield
        except Exception as error:
            if damage.result():
                raise damaged_error(name, damage.result()) from error
            raise
        if damage.result():
            raise damaged_error(name, damage.result())


def family_of(name: str) -> str:
    """The family of a model, or `matcher`, by its configuration alone; raises `CaptuneError` as loading does."""

    def read(source: Any, **hub: Any) -> str:
        from transformers import AutoConfig

        from captune.models.matcher import is_matcher

        if is_matcher(pretrained(AutoConfig, source, **hub)):
            return MATCHER
        return _family(source, hub).family

    return load_pretrained(read, name)


def _quantization(quantize: str) -> dict[str, Any]:
    """Keywords of loading; raises `CaptuneError` where quantized weights cannot run."""
    if quantize == "none":
        return {}
    if not torch.cuda.is_available():
        raise CaptuneError(
            f"--quantize {quantize} needs an NVIDIA card, and there is none here.",
            "Leave it out, or use --precision bf16.",
        )
    if find_spec("bitsandbytes") is None:
        raise CaptuneError(f"--quantize {quantize} needs bitsandbytes.", "pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_8bit=quantize == "8bit",
        load_in_4bit=quantize == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        # What is small and sees the image stays as it is.
        llm_int8_skip_modules=["qformer", "language_projection", "vision_model", "lm_head"],
    )
    return {"quantization_config": config, "dtype": torch.bfloat16}


def load_pretrained(load: Callable[..., Loaded], name: str) -> Loaded:
    """What `load` makes of a folder, a run or a Hub id, with `CaptuneError` for what goes wrong on the way.

    Of a folder that holds adapters alone: what it makes of the model they belong to.
    """
    check_torchvision()
    heed_hub_token(os.environ)
    folder = local_folder(name)
    if folder is not None and holds_adapters_alone(folder):
        return load_pretrained(load, base_name(folder))
    repository, revision = hub_name(name)
    source: Any = folder if folder is not None else repository
    _quiet()
    hub = _hub(revision) if folder is None else {}
    try:
        return load(source, **hub)
    except (CaptuneError, MemoryError):
        raise
    except Exception as error:  # foreign files, read by foreign code: it raises whatever it likes
        if is_out_of_memory(error):
            raise
        raise load_error(name, folder, error, _published()) from error


def new_backbone(name: str, texts: Iterable[str], *, seed: int, image_size: int | None, vocab_size: int) -> Backbone:
    """A model from scratch (`new:FAMILY-SIZE`); the same seed and texts give the same weights."""
    check_torchvision()
    _quiet()
    family, size = parse_new_name(name, {each: FAMILIES[each].sizes for each in FAMILIES})
    backbone_class: type[Backbone] = FAMILIES[family]
    torch.manual_seed(seed)
    return backbone_class.new(size, texts, image_size=image_size, vocab_size=vocab_size)


def pair_backbone(name: str, *, seed: int, image_size: int | None) -> Backbone:
    """A vision and a text checkpoint (`VISION+TEXT`: folders or Hub ids) joined by new weights, the same for a seed."""
    check_torchvision()
    _quiet()
    vision, _, text = name.partition("+")
    torch.manual_seed(seed)
    try:
        parts = [(repository, _hub(revision)) for repository, revision in map(_part_name, (vision, text))]
        return FAMILIES[PAIR].pair(*parts, image_size=image_size)
    except (CaptuneError, MemoryError):
        raise
    except Exception as error:  # as in load_pretrained
        if is_out_of_memory(error):
            raise
        raise CaptuneError(
            f"{vision} and {text} cannot be joined: {reason(error)}",
            "Give a vision model (CLIP, SigLIP, ViT, DINOv2) and a GPT-2: folders that hold them, or Hub ids.",
        ) from error


def _part_name(name: str) -> tuple[str, str | None]:
    """A folder as it is, a Hub id and its revision."""
    return (name, None) if Path(name).expanduser().exists() else hub_name(name)


def _hub(revision: str | None) -> dict[str, Any]:
    """Keywords of loading for the Hub."""
    found: dict[str, Any] = {} if revision is None else {"revision": revision}
    # Without a network the cache alone is read; the Hub's client would try again for half a minute.
    return found if _hub_is_reachable() else {**found, "local_files_only": True}


def _hub_is_reachable() -> bool:
    """Whether the Hub's host has an address here and nobody asked to stay offline."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _published() -> list[str]:
    """Names of well-known models on the Hub."""
    return [checkpoint.name for family in FAMILIES.values() for checkpoint in family.checkpoints]


def _family(source: str | Path, hub: dict[str, Any]) -> type[Backbone]:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind = Backbone.read_card(source).get("family") if isinstance(source, Path) else None
    if kind is not None and kind not in FAMILIES:
        raise unknown_family(kind, FAMILIES, str(source))
    if kind is None:
        config = pretrained(AutoConfig, source, **hub)
        names = (*(config.architectures or ()), config.model_type)
        kind = next((KINDS[name] for name in names if name in KINDS), config.model_type)
        if kind not in FAMILIES and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            kind = VLM
    if kind not in FAMILIES:
        raise unknown_kind(str(source), kind, FAMILIES)
    return FAMILIES[kind]


def _quiet() -> None:
    """transformers' own questions, bars and notes do not belong between captune's."""
    from transformers.utils import logging

    never_ask()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
