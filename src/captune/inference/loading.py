"""A captioner by its name, on the device that the options name: an export, or a model that torch runs."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from captune.core.endpoints import FAMILY, is_endpoint, parse_endpoint
from captune.core.errors import CaptuneError, UsageError, missing_extra, needing_torch
from captune.core.exported import EXPORT, Exported, export_folder
from captune.core.machine import gc_paused
from captune.core.model_names import holds_adapters_alone, local_folder
from captune.core.options import DeviceOptions, EndpointOptions
from captune.core.options.verbs import Config
from captune.inference.captioning import CaptioningModel

if TYPE_CHECKING:
    import torch

    from captune.inference.processes import Processes
    from captune.models.backbone import Backbone
    from captune.models.weights import Placing


# How exports and the files in them are called.
EXPORT_SUFFIXES = (".onnx", ".openvino", ".xml")


def load_model(name: str, values: Config, *, processes: Processes | None = None) -> CaptioningModel:
    """Load a captioner and put it where it shall run; raises `CaptuneError` where that is not possible.

    `name` is an export's folder or a file in it; a model behind a server (`openai:MODEL@http://host:8000/v1`); or a
    folder, a run, a checkpoint of a run or a Hub id, which needs torch.
    """
    run_on = values.run_on
    if is_endpoint(name):
        return _behind_a_server(name, values.endpoint)
    folder = _export(name)
    if folder is not None:
        return _exported(name, folder, run_on)
    with needing_torch(), gc_paused():
        from captune.inference.torch_model import TorchModel
        from captune.models.loading.loader import load_backbone

        placing = placing_for(name, run_on, processes=processes)
        backbone = load_backbone(name, quantize=run_on.quantize, placing=placing)
        move_to_device(backbone, run_on, processes=processes)
        return TorchModel(backbone)


def _behind_a_server(name: str, options: EndpointOptions) -> CaptioningModel:
    endpoint = parse_endpoint(name, options.base_url)
    try:
        from captune.inference.endpoint import EndpointModel
    except ImportError as error:
        raise missing_extra(error.name or "httpx", "endpoint", "Captioning with a model behind a server") from None
    return EndpointModel.load(endpoint, options)


def _export(name: str) -> Path | None:
    """The folder of an export, or None; raises `CaptuneError` for what is named like one and is none."""
    folder = export_folder(name)
    path = Path(os.path.expanduser(name))
    if folder is None and path.suffix in EXPORT_SUFFIXES and not os.path.isdir(path):
        raise CaptuneError(
            f"{name} is no export: there is no {EXPORT} beside it."
            if os.path.exists(path)
            else f"There is no export {name}.",
            f"captune export writes whole folders: captune export MODEL --out {path.name}",
        )
    return folder


def _exported(name: str, folder: Path, run_on: DeviceOptions) -> CaptioningModel:
    from captune.inference.runtime import ExportedModel

    if run_on.device not in ("auto", "cpu"):
        raise UsageError(f"{name} is an export: it runs on the CPU, not on {run_on.device}.", "Use --device cpu.")
    precision = Exported.read(folder).precision
    if run_on.precision not in ("auto", precision) or run_on.quantize != "none":
        raise UsageError(
            f"{name} is an export: its numbers are {precision} for good.",
            "Leave out --precision and --quantize; captune export --int8 makes a smaller one.",
        )
    if run_on.decoder != "auto":
        raise UsageError(f"{name} is an export: transformers cannot run it.", "Leave out --decoder.")
    if run_on.image_tokens is not None:
        raise UsageError(f"{name} is an export: its images have a fixed number of tokens.", "Leave out --image-tokens.")
    if fast := run_on.preprocessing == "fast":
        from captune.images.batches import check_fast_decoder

        check_fast_decoder()
    return ExportedModel.load(folder, threads=run_on.threads, fast_pixels=fast)


def backbone_of(model: CaptioningModel, name: str, purpose: str) -> Backbone:
    """The torch model behind a captioner; raises `CaptuneError` for others, with what they cannot do (`purpose`)."""
    if is_endpoint(name):
        raise CaptuneError(
            f"{purpose} needs the model itself, and {name} is behind a server.", "Name its folder or its Hub id."
        )
    from captune.inference.runtime import ExportedModel

    if isinstance(model, ExportedModel):
        raise CaptuneError(
            f"{purpose} needs more of a model than its export holds: {name}.",
            f"Name the model that was exported: --model {model.exported.model}",
        )
    from captune.inference.torch_model import TorchModel

    assert isinstance(model, TorchModel), "there are two kinds of captioning models"
    return model.backbone


def family_of(name: str) -> str:
    """The family of a model, or `matcher`, without loading its weights; raises `CaptuneError` as loading does."""
    if is_endpoint(name):
        return FAMILY
    folder = _export(name)
    if folder is not None:
        return Exported.read(folder).family
    with needing_torch():
        from captune.models.loading.loader import family_of as family_of_weights

        return family_of_weights(name)


def check_name(name: str) -> None:
    """Raise `CaptuneError` for a name that looks like a folder or run and is none."""
    if is_endpoint(name):
        parse_endpoint(name)
    elif _export(name) is None:
        local_folder(name)


def weights_on_disk(name: str) -> int:
    """Bytes of a model's weights; 0 for what is on the Hub, until it is loaded."""
    folder = None if is_endpoint(name) else _export(name)
    if folder is not None:
        from captune.inference.runtime.model import weights_in

        return weights_in(folder)
    local = None if is_endpoint(name) else local_folder(name)
    if local is None:
        return 0
    alone = sum(path.stat().st_size for path in local.glob("*.safetensors"))
    if not holds_adapters_alone(local):
        return alone
    with needing_torch():
        from captune.models.loading.adapters import base_name

        return alone + weights_on_disk(base_name(local))


def placing_for(
    name: str,
    run_on: DeviceOptions,
    *,
    learns: Collection[str] | None = None,
    training: bool = False,
    processes: Processes | None = None,
) -> Placing:
    """The type and device that a model is loaded in so that `move_to_device` has nothing left to change.

    `learns` are the parts that learn, in training: they are in fp32, and the others in the type to compute in, where
    the family's parts may differ. In `training` without them adapters learn, and all weights are of that type. What is
    not known beforehand is fp32 on the CPU. Raises `CaptuneError` as loading does.
    """
    from captune.models.loading.loader import model_info
    from captune.models.weights import FP32, HALF, Placing

    info = model_info(name)
    spread = run_on.device == "all"
    if spread and (not info.family.spreads or run_on.quantize != "none"):
        raise UsageError(
            f"--device all spreads the layers of a vision-language model; {name} is of the family {info.family.family}"
            f"{' and quantized' if run_on.quantize != 'none' else ''}.",
            "Use --device cuda.",
        )
    if run_on.quantize != "none" or not info.vision_hidden_size or not info.family.placed:
        return FP32
    device, dtype = _device_and_dtype(
        run_on, info.vision_hidden_size, processes, training=training or learns is not None
    )
    if learns is None:
        return Placing(dtype, device=device, spread=spread)
    if dtype not in HALF or not info.family.apart or not set(info.family.apart) - set(learns):
        return Placing(device=device)
    # The bridge between vision and text is small, and sums of its values must not round away.
    precise = [module for part in {*learns, "bridge"} for module in info.family.apart[part]]
    return Placing(dtype, tuple(sorted(precise)), device)


def move_to_device(
    backbone: Backbone, run_on: DeviceOptions, *, training: bool = False, processes: Processes | None = None
) -> torch.dtype:
    """Move the model to its device, its weights in the number type to run in, which is returned.

    In training the weights stay as they were loaded (what learns in fp32) and autocast computes in that type.
    """
    import torch

    from captune.images.batches import check_fast_decoder

    if run_on.preprocessing == "fast":
        check_fast_decoder()
    if run_on.threads:
        torch.set_num_threads(run_on.threads)
    device, dtype = _device_and_dtype(run_on, backbone.vision_hidden_size, processes, training=training)
    backbone.check_number_type(dtype)
    backbone.pixels = replace(backbone.pixels, fast=run_on.preprocessing == "fast")
    backbone.own_search = run_on.decoder == "auto"
    if run_on.image_tokens is not None:
        backbone.limit_image_tokens(run_on.image_tokens)
    spread = len(getattr(backbone.model, "hf_device_map", ())) > 1
    if not spread and not getattr(backbone.model, "is_quantized", False):  # those lie where they were loaded
        backbone.model.to(device=device, dtype=None if training else dtype)
    return dtype


def _device_and_dtype(
    run_on: DeviceOptions, vision_hidden_size: int, processes: Processes | None, *, training: bool
) -> tuple[torch.device, torch.dtype]:
    from captune.models.loading.devices import choose_device, choose_precision

    if training and run_on.device == "all":
        raise UsageError(
            "--device all is for captioning.", "Train on several cards with torchrun, and --shard for a large model."
        )
    device = choose_device(run_on.device)
    device = device if processes is None else processes.device(device)
    return device, choose_precision(run_on.precision, device, vision_hidden_size, training=training)
