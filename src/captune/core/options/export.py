"""The options of exports, declared once like those of `captune.core.options`."""

from __future__ import annotations

from captune.core.options.option import Options, option


class ExportOptions(Options, section="export", panel="Export"):
    """What an export becomes, and how it is held against its model before it is called done."""

    to: str = option("onnx", "onnx or openvino.")
    int8: bool = option(False, "Linear layers in 8 bits: smaller, quicker, not the same numbers.")
    calibrate_on: str | None = option(
        None, "Images, or a prepared folder (its train split), that tell --int8 beforehand how large numbers get."
    )
    calibrate_images: int = option(128, "Images of --calibrate-on that are looked at.", ge=1)
    check_on: str | None = option(
        None, "Folder or pattern of images to check the export on; default: the split of --data, else drawn scenes."
    )
    check_images: int = option(16, "Images the export is checked on.", ge=1)
    limit_images: int = option(0, "Measure int8 on this many images of the split of --data; 0: all.", ge=0)
    min_identical: float = option(
        0.5, "An int8 export with a smaller share of unchanged captions is refused.", ge=0, le=1
    )
    resamples: int = option(1000, "Samples behind intervals and tests; 0: none.", ge=0, le=100_000)
