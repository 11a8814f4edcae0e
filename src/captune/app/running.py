"""A loaded model put where it shall run, as the options ask."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from captune.core.options import DeviceOptions

if TYPE_CHECKING:
    import torch

    from captune.engine.processes import Processes
    from captune.models.backbone import Backbone


def settle(
    backbone: Backbone, asked: DeviceOptions, *, training: bool = False, processes: Processes | None = None
) -> torch.dtype:
    """Move the model to its device, its weights in the number type to run in, which is returned.

    In training the weights stay in fp32 and autocast computes in that type.
    """
    import torch

    from captune.data.fast_pictures import check_fast
    from captune.models.devices import choose_device, choose_precision

    if asked.pixels == "fast":
        check_fast()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    device = device if processes is None else processes.device(device)
    dtype = choose_precision(asked.precision, device, backbone.width, training=training)
    backbone.pixels = replace(backbone.pixels, fast=asked.pixels == "fast")
    backbone.own_decoder = asked.decoder == "auto"
    if not getattr(backbone.model, "is_quantized", False):  # those lie where they were loaded, as they are
        backbone.model.to(device=device, dtype=None if training else dtype)
    return dtype
