"""Weights of a model: what its files hold, how they come into memory, and frozen ones in their own file."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captune.core.errors import CaptuneError
from captune.core.files import read_json, write_json
from captune.models.loading.pretrained import pretrained, read_file

LEARNED, FROZEN = "model-learned.safetensors", "model-frozen.safetensors"
# Less than this many bytes are not worth a second file.
LEAST = 64 << 20
_SCRATCH = ".frozen"


@dataclass(frozen=True)
class Shared:
    """Frozen weights of at least `least` bytes are linked to those in the folder `earlier`, where it has the same."""

    earlier: Path | None = None
    least: int = LEAST


def save_apart(model: Any, frozen: frozenset[str], folder: Path, save: Callable[..., None], shared: Shared) -> None:
    """Write a model by `save(folder, state_dict=…)` with its weights named `frozen` in a file of their own.

    An index names both files, as `transformers` reads it. Where the earlier folder holds the same frozen weights,
    its file is linked, and takes no room; where the disk has no links, it is written again.
    """
    state = model.state_dict()
    apart = {name: value for name, value in state.items() if name in frozen}
    if sum(value.nbytes for value in _once(apart).values()) < shared.least:
        save(folder)
        return
    save(folder, state_dict={name: value for name, value in state.items() if name not in frozen})
    os.replace(folder / WEIGHTS, folder / LEARNED)
    if shared.earlier is None or not _linked(shared.earlier / FROZEN, folder / FROZEN, apart):
        scratch = folder / _SCRATCH
        save(scratch, state_dict=apart, max_shard_size=1 << 50)
        os.replace(scratch / WEIGHTS, folder / FROZEN)
        shutil.rmtree(scratch)
    places: dict[str, str] = {}
    for name in (LEARNED, FROZEN):
        with opened([folder / name]) as found:
            places |= dict.fromkeys(found, name)
    size = sum((folder / name).stat().st_size for name in (LEARNED, FROZEN))
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _linked(earlier: Path, file: Path, weights: Mapping[str, Tensor]) -> bool:
    """Whether a file that holds as many weights of the same types and shapes could be linked.

    Their values are the same: the weights of a run that do not learn stay as they were loaded.
    """
    if not earlier.is_file():
        return False
    with opened([earlier]) as found:
        there = Counter((TYPES.get(one.get_dtype()), tuple(one.get_shape())) for one in found.values())
    # Tied weights are saved once, or by each of their names.
    once, named = (_kinds(values) for values in (_once(weights).values(), weights.values()))
    if not once <= there <= named:
        return False
    with suppress(OSError):
        os.link(earlier, file)
    return file.is_file()


def _kinds(values: Iterable[Tensor]) -> Counter[tuple[Any, tuple[int, ...]]]:
    return Counter((value.dtype, tuple(value.shape)) for value in values)


def _once(weights: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Weights that are tied count once."""
    return {value.data_ptr(): value for value in weights.values()}


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
HALF = (torch.float16, torch.bfloat16)
# Names of weights that GPTQ, AWQ and bitsandbytes pack.
_PACKED = (".qweight", ".qzeros", ".scales", ".absmax", ".SCB", ".weight_format")
# Layers that a configuration may state whatever its weights hold: some parts of it mean nothing.
FEW_LAYERS = 100
# Layers that some checkpoints leave out and no captioner uses.
UNUSED = ("pooler",)


@dataclass(frozen=True)
class Placing:
    """The type and device that weights are loaded in; those of the modules named `precise` are fp32 in any case.

    With `spread` layers are shared out among all cards, as each has room.
    """

    dtype: torch.dtype = torch.float32
    precise: tuple[str, ...] = ()
    device: torch.device | None = None
    spread: bool = False


FP32 = Placing()


@dataclass(frozen=True)
class Stored:
    """What the files of a model hold: bytes, values, and the type of most bytes."""

    bytes: int
    values: int
    dtype: torch.dtype


def stored_weights(source: str | Path, **hub: Any) -> Stored | None:
    """What the safetensors of a folder or Hub id hold, from their headers; None where it has none."""
    files = weight_files(source, **hub)
    if not files:
        return None
    values: dict[torch.dtype, int] = {}
    with opened(files) as slices:
        for one in slices.values():
            dtype = TYPES.get(one.get_dtype())
            if dtype is not None:
                values[dtype] = values.get(dtype, 0) + prod(one.get_shape())
    sizes = {dtype: count * dtype.itemsize for dtype, count in values.items()}
    most = max(sizes, key=sizes.__getitem__, default=torch.float32)
    return Stored(sum(sizes.values()), sum(values.values()), most)


def weight_files(source: str | Path, **hub: Any) -> list[Path]:
    """The safetensors of a folder or Hub id (fetched where they are not here yet); empty where it has none."""
    from transformers.utils import cached_file

    hub = {name: value for name, value in hub.items() if name in ("local_files_only", "revision")}
    for name in (WEIGHTS, INDEX):
        found = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False, **hub)
        if found is None:
            continue
        if name == WEIGHTS:
            return [Path(found)]
        parts = sorted(set(read_json(Path(found)).get("weight_map", {}).values()))
        return [Path(cached_file(str(source), part, **hub) or part) for part in parts]
    return []


def drop_unused_quantization(config: Any, source: str | Path, **hub: Any) -> None:
    """Take a quantization out of a configuration whose weights are plain; raises `CaptuneError` where they are not."""
    if getattr(config, "quantization_config", None) is None:
        return
    with opened(weight_files(source, **hub)) as slices:
        packed = [name for name in slices if name.endswith(_PACKED)]
    if packed:
        raise CaptuneError(
            f"The weights of {source} are quantized ({packed[0]}), and cannot be joined to an image encoder.",
            "Take the model that was quantized.",
        )
    del config.quantization_config


def load_weights(kind: Any, source: str | Path, placing: Placing, **hub: Any) -> Any:
    """A model of the class `kind` (of `transformers`) with the weights of a folder or Hub id.

    Values are read once and kept in the type of `placing` alone: where that is another than the file's, they are
    not mapped into memory, where both would stand. Raises `CaptuneError` where weights are missing or quantized in
    a way that nothing here reads.
    """
    _check_layers(source, weight_files(source, **hub), hub)
    typed = _precise(kind, placing) if placing.precise else kind
    options: dict[str, Any] = {"dtype": placing.dtype, "output_loading_info": True}
    if placing.device is not None and placing.device.type != "cpu":
        options["device_map"] = "auto" if placing.spread else {"": placing.device}
    stored = None if placing == FP32 else stored_weights(source, **hub)
    if "quantization_config" in hub or stored is None or stored.dtype == placing.dtype:
        model, loading_info = pretrained(typed, source, **{**options, **hub})
    else:
        config = pretrained(kind.config_class, source, **hub)
        with opened(weight_files(source, **hub)) as slices:
            model, loading_info = pretrained(typed, None, config=config, state_dict=slices, **options)
        _read_generation(model, source, hub)
    model.__class__ = kind
    _check_whole(loading_info["missing_keys"], source)
    if not hasattr(model, "is_quantized"):  # what a quantizer of transformers has read is right
        _check_plain(model.config, weight_files(source, **hub), source)
    return model


def _check_layers(source: str | Path, files: list[Path], hub: dict[str, Any]) -> None:
    """Raise `CaptuneError` where config.json has far more layers than the weights: memory would be filled with chance.

    It is the weights' names that count (`layer.11.`); a model that lacks a few fails later, in `_check_whole`.
    """
    declared = max(_layers(read_file(str(source), "config.json", hub)), default=0)
    if declared <= FEW_LAYERS or not files:
        return
    with opened(files) as slices:
        there = 1 + max((int(part) for name in slices for part in name.split(".") if part.isdecimal()), default=0)
    if declared > FEW_LAYERS + 2 * there:
        raise CaptuneError(
            f"{source} has weights of {there} layers, and its config.json says {declared:,}.",
            "Some file is of another model; save or download it again.",
        )


def _layers(config: Any) -> Iterator[int]:
    """Numbers of layers that a configuration and its parts state."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, int) and key.endswith(("layers", "n_layer", "depth")):
            yield value
        yield from _layers(value)


def _precise(kind: Any, placing: Placing) -> Any:
    """The same class, with modules that `transformers` leaves in fp32; by the same name, which it saves."""
    return type(kind.__name__, (kind,), {"_keep_in_fp32_modules_strict": list(placing.precise)})


@contextmanager
def opened(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Every tensor of safetensors files by name, read from the disk when it is taken."""
    from safetensors import safe_open

    with ExitStack() as stack:
        found = {}
        for file in files:
            opened = stack.enter_context(safe_open(file, framework="pt", backend="pread"))
            found.update({name: opened.get_slice(name) for name in opened.keys()})  # noqa: SIM118 - it is no mapping
        yield found


def _read_generation(model: Any, source: str | Path, hub: dict[str, Any]) -> None:
    from transformers import GenerationConfig
    from transformers.utils import cached_file

    if cached_file(str(source), "generation_config.json", _raise_exceptions_for_missing_entries=False, **hub):
        model.generation_config = pretrained(GenerationConfig, source, **hub)


def _check_whole(missing: Any, source: str | Path) -> None:
    names = sorted(name for name in missing if not any(word in name for word in UNUSED))
    if names:
        shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        raise CaptuneError(
            f"{source} lacks {len(names)} of its model's weights ({shown}); they would be random.",
            "Some file is missing, cut off or of another model; save or download it again.",
        )


def _check_plain(config: Any, files: list[Path], source: str | Path) -> None:
    """Raises `CaptuneError` for quantized weights without what quantized them: their bare values mean nothing."""
    with opened(files) as slices:
        named = ((name, one.get_dtype()) for name, one in slices.items() if name.endswith((".weight", ".bias")))
        name, dtype = next(((name, dtype) for name, dtype in named if dtype not in TYPES), ("", ""))
    if not name:
        return
    quantization = getattr(config, "quantization_config", None)
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    how = f"by '{method}', which transformers does not know" if method else "and config.json does not say how"
    raise CaptuneError(
        f"The weights in {source} are quantized ({name} is {dtype}), {how}; they would be read as other values.",
        "Name the model that was quantized; on an NVIDIA card --quantize 4bit makes its weights as small.",
    )
