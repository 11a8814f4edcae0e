"""OpenVINO: for Intel's processors, made from the ONNX files."""

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from captune.core.errors import CaptuneError, missing_extra
from captune.core.exported import TEXT, VISION
from captune.core.progress import SILENT, Progress
from captune.export import onnx
from captune.export.graphs import Graphs
from captune.export.int8 import calibrate_vision, round_weights

DESCRIPTION = "OpenVINO files (.xml, .bin), for Intel's processors."
OPSET = onnx.OPSET


def check_installed() -> None:
    """Raise `CaptuneError` where a package that exports or runs OpenVINO is not installed."""
    onnx.check_installed()
    if find_spec("openvino") is None:
        raise missing_extra("openvino", "openvino", "Exporting to OpenVINO")


def write(
    graphs: Graphs,
    folder: Path,
    *,
    int8: bool = False,
    calibration: Sequence[np.ndarray] = (),
    progress: Progress = SILENT,
) -> None:
    """Write `vision.xml` and `text.xml` with their `.bin` files, linear layers as they are or in 8 bits.

    `calibration`: pixels (3, size, size) of images on which the activations of the vision part are measured.
    """
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory(dir=folder) as made:
        onnx.write_graphs(graphs, Path(made), progress)
        for name in (VISION, TEXT):
            with progress.task(f"Writing {name}.xml"):
                source = Path(made) / f"{name}.onnx"
                if int8 and calibration and name == VISION:
                    calibrate_vision(source, source, calibration)
                elif int8:
                    round_weights(source, source)
                try:
                    # Not `convert_model`: it tells its maker of each use.
                    made_of = core.read_model(str(source))
                    openvino.save_model(made_of, str(folder / f"{name}.xml"), compress_to_fp16=False)
                except RuntimeError as error:  # of a full disk as well
                    reasons = str(error).strip().splitlines()
                    raise CaptuneError(
                        f"OpenVINO cannot write {name}.xml: {reasons[-1] if reasons else 'no reason given'}",
                        "See whether the disk is full; else update openvino, or export with --to onnx.",
                    ) from error
