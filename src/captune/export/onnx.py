"""ONNX: runs with onnxruntime on any CPU, without torch."""

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from captune.core.errors import CaptuneError, first_line, missing_extra
from captune.core.exported import TEXT, VISION
from captune.core.progress import SILENT, Progress
from captune.export.graphs import Graph, Graphs
from captune.export.int8 import calibrate_vision, quantize_text, quantize_vision, without_notes

DESCRIPTION = "ONNX files for onnxruntime: captions on any CPU without torch."
OPSET = 20
# Protocol buffers end at 2 GB: larger weights lie in a file beside the graph.
LARGEST = 1_900_000_000
STACK_TRACE = "pkg.torch.onnx.stack_trace"


def check_installed() -> None:
    """Raise `CaptuneError` where a package that exports or runs ONNX is not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise missing_extra(package, "export", "Exporting a model")


def write(
    graphs: Graphs,
    folder: Path,
    *,
    int8: bool = False,
    calibration: Sequence[np.ndarray] = (),
    progress: Progress = SILENT,
) -> None:
    """Write `vision.onnx` and `text.onnx`, their linear layers in 8 bits if asked.

    `calibration`: pixels (3, size, size) of images on which the activations of the vision part are measured.
    """
    if not int8:
        write_graphs(graphs, folder, progress)
        return
    with tempfile.TemporaryDirectory(dir=folder) as made:
        write_graphs(graphs, Path(made), progress)
        vision, text = (f"{name}.onnx" for name in (VISION, TEXT))
        with progress.task(f"Rounding {vision}"):
            if calibration:
                calibrate_vision(Path(made) / vision, folder / vision, calibration)
            else:
                quantize_vision(Path(made) / vision, folder / vision)
        with progress.task(f"Rounding {text}"):
            quantize_text(Path(made) / text, folder / text)


def write_graphs(graphs: Graphs, folder: Path, progress: Progress = SILENT) -> None:
    """Write `vision.onnx` and `text.onnx` in fp32."""
    for name, graph in ((VISION, graphs.vision), (TEXT, graphs.text)):
        with progress.task(f"Writing {name}.onnx"):
            write_graph(graph, folder / f"{name}.onnx")


def write_graph(graph: Graph, path: Path, *, largest: int = LARGEST) -> None:
    """Trace a graph and write it as an ONNX file; weights of more than `largest` bytes go to `NAME.onnx.data`."""
    try:
        with without_notes(), torch.no_grad():
            program = torch.onnx.export(
                graph.module,
                kwargs={"inputs": dict(graph.example)},
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(graph.example),
                output_names=list(graph.outputs),
                dynamic_shapes={"inputs": {name: dict(graph.varying[name]) for name in graph.example}},
            )
    except torch.onnx.OnnxExporterError as error:
        raise CaptuneError(
            f"A part of this model cannot be written as ONNX: {first_line(error.__cause__ or error)}",
            "Update torch and onnxscript, or choose a model with another vision part.",
        ) from error
    assert program is not None, "the dynamo exporter returns a program"
    for node in program.model.graph.all_nodes():  # they hold the paths of this machine, and are most of a small file
        node.metadata_props.pop(STACK_TRACE, None)
    size = sum(each.const_value.nbytes for each in program.model.graph.initializers.values() if each.const_value)
    program.save(str(path), external_data=size > largest)
