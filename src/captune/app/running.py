"""A loaded model put where it shall run, as the options ask."""

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
    name: str, asked: DeviceOptions, *, learns: Collection[str] | None = None, processes: Processes | None = None
) -> Placing:
    """The type and device that a model is loaded in so that `settle` has nothing left to change.

    `learns` are the parts that learn, in training: they are in fp32, and the others in the type to compute in, where
    the family's parts may differ. What cannot be told beforehand is fp32 on the CPU. Raises `CaptuneError` as
    loading does.
    """
    from captune.engine.loader import about
    from captune.models.devices import choose_device, choose_precision
    from captune.models.weights import FP32, HALF, Placing

    found = about(name)
    if asked.quantize != "none" or not found.width or not found.family.placed:
        return FP32
    device = choose_device(asked.device)
    device = device if processes is None else processes.device(device)
    dtype = choose_precision(asked.precision, device, found.width, training=learns is not None)
    if learns is None:
        return Placing(dtype, device=device)
    if dtype not in HALF or not found.family.apart or not set(found.family.apart) - set(learns):
        return Placing(device=device)
    # What stands between image and words is small, and sums of its values must not round away.
    precise = [module for part in {*learns, "bridge"} for module in found.family.apart[part]]
    return Placing(dtype, tuple(sorted(precise)), device)


def settle(
    backbone: Backbone, asked: DeviceOptions, *, training: bool = False, processes: Processes | None = None
) -> torch.dtype:
    """Move the model to its device, its weights in the number type to run in, which is returned.

    In training the weights stay as they were loaded (what learns in fp32) and autocast computes in that type.
    """
    import torch

    from captune.data.fast_pictures import check_fast_decoder
    from captune.models.devices import choose_device, choose_precision

    if asked.preprocessing == "fast":
        check_fast_decoder()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    device = device if processes is None else processes.device(device)
    dtype = choose_precision(asked.precision, device, backbone.vision_hidden_size, training=training)
    backbone.pixels = replace(backbone.pixels, fast=asked.preprocessing == "fast")
    backbone.own_search = asked.decoder == "auto"
    if not getattr(backbone.model, "is_quantized", False):  # those lie where they were loaded, as they are
        backbone.model.to(device=device, dtype=None if training else dtype)
    return dtype
