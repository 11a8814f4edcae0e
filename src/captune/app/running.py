"""A loaded model put where it shall run, as the options say."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from captune.core.options import DeviceOptions

if TYPE_CHECKING:
    import torch

    from captune.engine.processes import Processes
    from captune.models.backbone import Backbone
    from captune.models.weights import Placing


def placing_for(
    name: str, run_on: DeviceOptions, *, learns: Collection[str] | None = None, processes: Processes | None = None
) -> Placing:
    """The type and device that a model is loaded in so that `move_to_device` has nothing left to change.

    `learns` are the parts that learn, in training: they are in fp32, and the others in the type to compute in, where
    the family's parts may differ. What cannot be told beforehand is fp32 on the CPU. Raises `CaptuneError` as
    loading does.
    """
    from captune.engine.loader import model_info
    from captune.models.devices import choose_device, choose_precision
    from captune.models.weights import FP32, HALF, Placing

    found = model_info(name)
    if run_on.quantize != "none" or not found.vision_hidden_size or not found.family.placed:
        return FP32
    device = choose_device(run_on.device)
    device = device if processes is None else processes.device(device)
    dtype = choose_precision(run_on.precision, device, found.vision_hidden_size, training=learns is not None)
    if learns is None:
        return Placing(dtype, device=device)
    if dtype not in HALF or not found.family.apart or not set(found.family.apart) - set(learns):
        return Placing(device=device)
    # What stands between image and words is small, and sums of its values must not round away.
    precise = [module for part in {*learns, "bridge"} for module in found.family.apart[part]]
    return Placing(dtype, tuple(sorted(precise)), device)


def move_to_device(
    backbone: Backbone, run_on: DeviceOptions, *, training: bool = False, processes: Processes | None = None
) -> torch.dtype:
    """Move the model to its device, its weights in the number type to run in, which is returned.

    In training the weights stay as they were loaded (what learns in fp32) and autocast computes in that type.
    """
    import torch

    from captune.data.fast_pictures import check_fast_decoder
    from captune.models.devices import choose_device, choose_precision

    if run_on.preprocessing == "fast":
        check_fast_decoder()
    if run_on.threads:
        torch.set_num_threads(run_on.threads)
    device = choose_device(run_on.device)
    device = device if processes is None else processes.device(device)
    dtype = choose_precision(run_on.precision, device, backbone.vision_hidden_size, training=training)
    backbone.pixels = replace(backbone.pixels, fast=run_on.preprocessing == "fast")
    backbone.own_search = run_on.decoder == "auto"
    if not getattr(backbone.model, "is_quantized", False):  # those lie where they were loaded, as they are
        backbone.model.to(device=device, dtype=None if training else dtype)
    return dtype
