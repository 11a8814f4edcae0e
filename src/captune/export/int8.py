"""Weights in 8 bits, so that an image's caption never depends on the images beside it."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Weights that share a scale, along the inputs of a layer: at 64 the results of a row are the same in any batch.
BLOCK = 64
# Smaller weights stay as they are.
MIN_WEIGHTS = 1 << 12


def quantize_text(source: Path, target: Path) -> None:
    """Linear layers with a scale for each 64 weights (`MatMulNBits`); activations are rounded row by row as they come.

    On BLIP base as fast as `quantize_dynamic`, whose rounding depends on the whole batch.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with without_notes():
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(source)), bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))


def quantize_vision(source: Path, target: Path) -> None:
    """Linear layers with a scale for each output; activations are rounded image by image as they come.

    On BLIP base 2.5 times as fast as fp32 and twice as fast as blocks. The images of a batch are processed one after
    the other, because one scale for all of them would mix them; that costs no time.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with without_notes():
        quantize_dynamic(
            str(source), str(target), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
        )
    onnx.save(one_by_one(onnx.load(str(target))), str(target))


def calibrate_vision(source: Path, target: Path, pixels: Sequence[np.ndarray]) -> None:
    """Linear layers with a scale for each output; activations are rounded by the largest that occur in `pixels`.

    `pixels` are of images, (3, size, size) each, uint8. Written as `QuantizeLinear` and `DequantizeLinear`, which
    onnxruntime and OpenVINO turn into 8-bit products. The scales are fixed, so images do not mix.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        batches = ({"pixels": image[None]} for image in pixels)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with without_notes():
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=_linear(source),
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )


def _linear(source: Path) -> list[str]:
    """Names of the nodes that multiply by weights."""
    import onnx

    graph = onnx.load(str(source), load_external_data=False).graph
    weights = {one.name for one in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def one_by_one(model: Any) -> Any:
    """The same ONNX model over its first input's images one after the other; they come first in outputs too."""
    from onnx import TensorProto, compose, helper

    names = [model.graph.input[0].name, *(output.name for output in model.graph.output)]
    inner = compose.add_prefix(model, "one_").graph
    pixels, outputs = inner.input[0], list(inner.output)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, _sizes(pixels)[1:])
    first = helper.make_tensor("first", TensorProto.INT64, [1], [0])
    alone = [helper.make_tensor_value_info(f"alone_{o.name}", TensorProto.FLOAT, _sizes(o)[1:]) for o in outputs]
    nodes = [
        helper.make_node("Unsqueeze", [image.name, "first"], [pixels.name]),
        *inner.node,
        *(helper.make_node("Squeeze", [o.name, "first"], [a.name]) for o, a in zip(outputs, alone, strict=True)),
    ]
    body = helper.make_graph(nodes, "image", [image], alone, [*inner.initializer, first])
    scan = helper.make_node("Scan", names[:1], names[1:], body=body, num_scan_inputs=1)
    ends = [model.graph.input[0], *model.graph.output]
    graph = helper.make_graph([scan], "images", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def round_weights(source: Path, target: Path) -> None:
    """Linear layers as 8-bit weights with a scale for each output, in standard ONNX; what runs them does the rest."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    rounded: dict[str, list[Any]] = {}
    nodes = []
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        if name in weights and len(weights[name].dims) == 2 and np.prod(weights[name].dims) >= MIN_WEIGHTS:
            if name not in rounded:
                values = numpy_helper.to_array(weights[name])
                scale = np.maximum(np.abs(values).max(0), 1e-12).astype(np.float32) / 127
                levels = np.rint(values / scale).astype(np.int8)
                parts = {f"{name}_levels": levels, f"{name}_scale": scale}
                rounded[name] = [numpy_helper.from_array(part, part_name) for part_name, part in parts.items()]
                nodes.append(helper.make_node("DequantizeLinear", list(parts), [f"{name}_rounded"], axis=1))
            node.input[1] = f"{name}_rounded"
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    initializers = [one for one in weights.values() if one.name in used]
    initializers += [part for parts in rounded.values() for part in parts]
    made = helper.make_graph(nodes, graph.name, graph.input, graph.output, initializers)
    onnx.save(helper.make_model(made, opset_imports=list(model.opset_import), ir_version=model.ir_version), str(target))


def _sizes(value: Any) -> list[int]:
    return [size.dim_value for size in value.type.tensor_type.shape.dim]


@contextmanager
def without_notes() -> Iterator[None]:
    """No warnings and log lines about each layer, of torch's exporter and onnxruntime's quantizers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
