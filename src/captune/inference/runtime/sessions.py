"""The two graphs of an export in onnxruntime or OpenVINO, as functions of numpy arrays."""

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from captune.core.errors import CaptuneError, first_line, missing_extra
from captune.core.exported import output_names
from captune.core.tables import Table
from captune.decoding.ops import Array


class Session(Protocol):
    """A graph: inputs by name to outputs by name, as docs/exports.md has them. Any thread may call."""

    def __call__(self, **inputs: Array) -> Mapping[str, Array]: ...


@dataclass(frozen=True)
class Runtime:
    """What runs an export target's files: the end of their names, and how one of them is opened.

    `open` takes the file, the names of its outputs, and a number of threads.
    """

    suffix: str
    open: Callable[[Path, Sequence[str], int], Session]


RUNTIMES = Table(
    "runtime",
    {"onnx": "captune.inference.runtime.sessions:ONNX", "openvino": "captune.inference.runtime.sessions:OPENVINO"},
    group="captune.runtimes",
)


def open_session(folder: Path, graph: str, target: str, layers: int, threads: int = 0) -> Session:
    """`vision` or `text`, of so many layers, of an export folder for a target; `threads` 0: one for each core.

    Raises `CaptuneError` where the file is missing or broken, or the package that runs it is not installed.
    """
    if target not in RUNTIMES:
        raise CaptuneError(
            f"{folder} was exported to '{target}', which this captune does not run.", "Install a newer captune."
        )
    runtime: Runtime = RUNTIMES[target]
    path = folder / f"{graph}{runtime.suffix}"
    if not path.is_file():
        raise CaptuneError(f"The export {folder} is not whole: there is no {path.name}.", "Export the model again.")
    return runtime.open(path, output_names(graph, layers), threads)


def _onnx(path: Path, outputs: Sequence[str], threads: int) -> Session:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise missing_extra(error.name or "onnxruntime", "onnx", "Running an ONNX export") from None
    onnxruntime.disable_telemetry_events()  # of its builds for Windows
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised; they need not be printed as well
    # The threads of one graph must not wait busily while the other one works: captions take a fifth less time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    refusals = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
    with _opening(path, (*refusals, state.NoSuchFile, state.RuntimeException)):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(**inputs: Array) -> Mapping[str, Array]:
        try:
            # Arrays are handed over as they lie in memory; nothing of them is copied, in or out.
            return dict(zip(outputs, session.run(outputs, inputs), strict=True))
        except (state.Fail, state.RuntimeException) as error:
            if "allocate memory" not in str(error):
                raise
            raise MemoryError(str(error)) from error

    return run


def _openvino(path: Path, outputs: Sequence[str], threads: int) -> Session:
    try:
        import openvino
    except ImportError as error:
        raise missing_extra(error.name or "openvino", "openvino", "Running an OpenVINO export") from None
    # In bf16, which it would choose where the processor has it, captions would not be the model's.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    with _opening(path, (RuntimeError,)), same_signal_stack():
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    idle: deque[Any] = deque()

    def run(**inputs: Array) -> Mapping[str, Array]:
        # A request holds its own outputs: one is used by one call at a time, and what is handed out is copied.
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            results = request.infer(inputs, share_inputs=True, share_outputs=False)
            return {name: results[name] for name in outputs}
        finally:
            idle.append(request)

    return run


@contextmanager
def _opening(path: Path, refusals: tuple[type[Exception], ...]) -> Iterator[None]:
    """A package's error at a file that it cannot open becomes a `CaptuneError`."""
    try:
        yield
    except refusals as error:
        raise CaptuneError(
            f"{path} cannot be opened: {first_line(error)}",
            "It is cut off, or of another version; export the model again: captune export MODEL --out DIR",
        ) from error


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """That of this thread; its address is None where signals are handled on the thread's own stack."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Put this thread's signal stack back behind the block.

    OpenVINO sets one for each model that it compiles. With the model it frees it, and sets that of before, which is
    gone as well where models end in another order than they began: the next signal (Ctrl-C, the end of a child)
    would crash the process.
    """
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)


ONNX, OPENVINO = Runtime(".onnx", _onnx), Runtime(".xml", _openvino)
