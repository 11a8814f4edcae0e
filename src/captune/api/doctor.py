"""`captune doctor`: what a job needs, checked before it begins: ok, warn or fail, and the next step."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from captune.core.endpoints import is_endpoint
from captune.core.errors import CaptuneError, first_line
from captune.core.exported import export_folder
from captune.core.machine import logged_in_to_wandb, wandb_refusal
from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress, track
from captune.core.records import Caption

GIB = 1024**3
# A checkpoint of BLIP base with its optimizer is 2.7 GB; two newest and two best are kept.
ROOM_FOR_A_RUN = 12 * GIB
ROOM_FOR_A_MODEL = 2 * GIB
MEMORY_FOR_A_MODEL = 4 * GIB
# What packages that do not fit together raise; it is the finding, and the other checks still have to run.
BREAKAGES = (CaptuneError, ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError)
# Required by another package; its version is shown.
ALSO_SHOWN = ("tokenizers",)
# What runs exports.
RUNNERS = ("onnxruntime", "openvino")


# The version of an installed package by its name, or None.
Installed = Callable[[str], str | None]


@dataclass(frozen=True)
class Check:
    """One finding; `next` is what to do about it, empty where there is nothing to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    next: str = ""


def doctor(model: str | None = None, *, tracker: str | None = None, progress: Progress = SILENT) -> list[Check]:
    """Examine this machine.

    `model` is a model to load and caption with besides the tiny ones, `tracker` (wandb)
    one that has to be ready. Nothing is raised for what is found: a failed check is a row.
    """
    checks: list[Check] = []
    for check in track(list(CHECKS.values()), progress, "Checking"):
        checks.extend(check(installed_version))
    checks.extend(_tracker_wandb(required=tracker == "wandb"))
    if tracker == "mlflow" and importlib.util.find_spec("mlflow") is None:
        checks.append(Check("tracker mlflow", "fail", "mlflow is not installed", "pip install 'captune[mlflow]'"))
    elif tracker == "mlflow":
        where = os.environ.get("MLFLOW_TRACKING_URI") or "the run's own folder (MLFLOW_TRACKING_URI is not set)"
        checks.append(Check("tracker mlflow", "ok", f"writes to {where}"))
    elif tracker not in (None, "wandb", "tensorboard", "none"):
        checks.append(Check(f"tracker {tracker}", "fail", "captune does not know it", "tensorboard, wandb or mlflow"))
    if model is not None:
        checks.append(_model(model, progress))
    return checks


def failed(checks: list[Check]) -> bool:
    """Whether anything has to be fixed before captune can work."""
    return any(check.status == "fail" for check in checks)


def _python(installed: Installed) -> Iterator[Check]:
    """A Python that is new enough, and where it runs."""
    text = f"{sys.version.split()[0]} at {sys.executable}"
    least = metadata("captune")["Requires-Python"].removeprefix(">=")
    if _number(sys.version.split()[0]) < _number(least):
        yield Check("python", "fail", text, f"captune needs Python {least} or newer.")
    else:
        yield Check("python", "ok", text)


def _packages(installed: Installed) -> Iterator[Check]:
    """captune and every required package: installed, and new enough; torch's as well, where it is there."""
    yield Check("captune", "ok", installed("captune") or "not installed")
    with_torch = installed("torch") is not None
    for name, least in (_requirements() | (_requirements("torch") if with_torch else {})).items():
        there = installed(name)
        if there is None:
            yield Check(name, "fail", "not installed", f"pip install '{name}>={least}'")
        elif _number(there) < _number(least):
            yield Check(name, "fail", f"{there}, captune needs {least}", f"pip install -U '{name}>={least}'")
        else:
            yield Check(name, "ok", f"{there} (at least {least})")
    for name in ALSO_SHOWN:
        yield Check(name, "ok", installed(name) or "not installed")
    if not with_torch:
        runs = any(installed(name) for name in RUNNERS)
        text = f"not installed; {'exports caption without it' if runs else 'nothing here can caption'}"
        yield Check("torch", "ok" if runs else "warn", text, "For models and training: pip install 'captune[torch]'")


def _exports(installed: Installed) -> Iterator[Check]:
    """What runs exports."""
    there = [f"{name} {installed(name)}" for name in RUNNERS if installed(name)]
    if there:
        yield Check("exports", "ok", f"run by {', '.join(there)}")
    else:
        yield Check("exports", "ok", "optional: nothing here runs them", "pip install 'captune[onnx]'")


def _torchvision(installed: Installed) -> Iterator[Check]:
    """torchvision, which captune does not need: absent, or fit for this torch."""
    if installed("torch") is None:
        return
    from captune.models.loading.devices import torchvision_fault

    fault = torchvision_fault()
    if fault is not None:
        yield Check("torchvision", "fail", f"installed but broken: {fault}", "Remove it: pip uninstall torchvision")
    else:
        yield Check("torchvision", "ok", installed("torchvision") or "not installed, not needed")


def _devices(installed: Installed) -> Iterator[Check]:
    """CUDA, MPS and CPU devices, their memory and whether they have bf16."""
    if installed("torch") is None:
        return
    try:
        from captune.models.loading.devices import devices

        usable = devices()
    except (ImportError, OSError, RuntimeError) as error:
        yield Check("devices", "fail", f"torch does not start: {first_line(error)}", "Reinstall torch.")
        return
    for device in usable:
        parts = [device.about]
        if device.memory:
            parts.append(f"{device.memory / GIB:.0f} GiB")
        if device.bf16 is not None:
            parts.append("bf16" if device.bf16 else "no bf16")
        yield Check(device.name, "ok", ", ".join(parts))


def _memory(installed: Installed) -> Iterator[Check]:
    """Memory that is free now."""
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < MEMORY_FOR_A_MODEL:
        yield Check("memory", "warn", text, "Close other programs, or use small batches: --batch-size 1.")
    else:
        yield Check("memory", "ok", text)


def _disk(installed: Installed) -> Iterator[Check]:
    """Free disk space of this folder, where runs are written."""
    yield _space("disk here", Path.cwd(), ROOM_FOR_A_RUN, "a training run of a base model")


def _hub(installed: Installed) -> Iterator[Check]:
    """The Hugging Face cache: where, how much room, whether it may be written, offline or not."""
    if installed("huggingface_hub") is None:
        return
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield Check("hub cache", "fail", f"{cache} may not be written", "Set HF_HOME to a folder of yours.")
    else:
        yield _space("hub cache", there, ROOM_FOR_A_MODEL, "a base model", shown=cache)
    flags = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "0") not in ("", "0")]
    if flags:
        models = sorted(path.name for path in cache.glob("models--*")) if cache.is_dir() else []
        text = f"offline ({', '.join(flags)}); {len(models)} models in the cache"
        yield Check("hub access", "warn", text, f"To download models: unset {' '.join(flags)}")
    else:
        yield Check("hub access", "ok", "online")


def _families(
    installed: Installed, names: Iterable[str] | None = None, test: Callable[[str, Path], SelfTestResult] | None = None
) -> Iterator[Check]:
    """A tiny model of every family: built, saved, loaded, captioning the same."""
    if installed("torch") is None:
        return
    try:
        from captune.models import FAMILIES

        names = list(FAMILIES if names is None else names)
    except ImportError as error:
        yield Check("models", "fail", first_line(error), "Reinstall captune.")
        return
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = (test or self_test)(name, Path(folder))
            except BREAKAGES as error:
                hint = error.hint if isinstance(error, CaptuneError) else "Fix what fails above, or reinstall captune."
                yield Check(f"model {name}", "fail", first_line(error, with_type=True), hint)
            else:
                about = f"a tiny one was built, saved, loaded and captions; searched by {done.decoder}"
                yield Check(f"model {name}", "ok", about)


@dataclass(frozen=True)
class SelfTestResult:
    """What the loaded model captions, and whose search (captune or transformers) found it."""

    caption: Caption
    decoder: str


def self_test(family: str, folder: Path) -> SelfTestResult:
    """Build the tiny model of a family, save it, load it, caption noise with both.

    Raises `CaptuneError` where the loaded model writes another caption than the saved one.
    """
    import torch
    from transformers.utils import logging

    from captune.models import FAMILIES
    from captune.models.generate import generate

    logging.disable_progress_bar()
    built = FAMILIES[family].tiny()
    built.save(folder)
    loaded = FAMILIES[family].load(folder)
    options = GenerationOptions(num_beams=1, max_new_tokens=5)
    captions = []
    for backbone in (built, loaded):
        backbone.model.eval()
        with torch.no_grad():
            black = torch.zeros(1, 3, backbone.pixels.size, backbone.pixels.size, dtype=torch.uint8)
            captions.append(generate(backbone, backbone.image_features(black), options)[0][0])
    if captions[0].text != captions[1].text:
        raise CaptuneError(
            f"The tiny {family} model captions differently after saving and loading.",
            "The versions of torch, transformers and tokenizers may not fit together; reinstall captune.",
        )
    return SelfTestResult(captions[1], loaded.searched_by)


def _extras(installed: Installed) -> Iterator[Check]:
    """Optional packages, or the pip command that brings them."""
    for extra in metadata("captune").get_all("Provides-Extra") or []:
        if extra in ("all", "dev", "torch"):
            continue
        versions = {name: installed(name) for name in _requirements(extra)}
        missing = ", ".join(name for name in versions if versions[name] is None)
        if missing:
            yield Check(f"[{extra}]", "ok", f"optional, not installed: {missing}", f"pip install 'captune[{extra}]'")
        else:
            yield Check(f"[{extra}]", "ok", ", ".join(f"{name} {number}" for name, number in versions.items()))


def _hub_login(installed: Installed) -> Iterator[Check]:
    """Whether a Hugging Face token is there (it is never shown)."""
    if installed("huggingface_hub") is None:
        return
    from huggingface_hub import get_token

    if get_token():
        yield Check("hub login", "ok", "a token is there")
    else:
        yield Check("hub login", "ok", "no token; only private models and pushing need one", "hf auth login")


CHECKS: dict[str, Callable[[Installed], Iterator[Check]]] = {
    "python": _python,
    "packages": _packages,
    "torchvision": _torchvision,
    "devices": _devices,
    "memory": _memory,
    "disk": _disk,
    "hub": _hub,
    "models": _families,
    "exports": _exports,
    "extras": _extras,
    "hub login": _hub_login,
}


def _tracker_wandb(*, required: bool) -> Iterator[Check]:
    """Weights & Biases: installed and a key there (it is never shown); a required one is asked to log in."""
    if importlib.util.find_spec("wandb") is None:
        if required:
            yield Check("wandb login", "fail", "wandb is not installed", "pip install 'captune[wandb]'")
    elif os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        yield Check("wandb login", "ok", f"not needed: WANDB_MODE={os.environ['WANDB_MODE']}")
    elif not logged_in_to_wandb():
        yield Check("wandb login", "fail" if required else "ok", "no key", "wandb login, or WANDB_MODE=offline")
    else:
        fault = wandb_refusal() if required else None
        if fault:
            yield Check("wandb login", "fail", fault, "wandb login --relogin, or WANDB_MODE=offline")
        else:
            yield Check("wandb login", "ok", "logged in" if required else "a key is there")


def _model(model: str, progress: Progress) -> Check:
    """Load a model and caption one image with it."""
    from PIL import Image

    from captune.inference.captioner import Captioner

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "grey.png"
        Image.new("RGB", (64, 64), "grey").save(image)
        try:
            with progress.task(f"Loading {model}"):
                captioner = Captioner.load(model)
            caption = captioner(image).text
        except CaptuneError as error:
            return Check(f"model {model}", "fail", error.message, error.hint)
    if is_endpoint(model):
        return Check(f"model {model}", "ok", f"answers, and says of a grey square: {caption}")
    loaded = captioner.model
    about = f"searched by {loaded.decoder}, {loaded.precision} on {loaded.device}"
    about += f"; its weights take {loaded.weights / 1e9:.2f} GB"
    if export_folder(model) is None:
        from captune.training.plan import default_needs_message

        about += f"; {default_needs_message(captioner.backbone)}"
    return Check(f"model {model}", "ok", f"loads, and says of a grey square: {caption} ({about})")


def _space(name: str, folder: Path, enough: int, purpose: str, *, shown: Path | None = None) -> Check:
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free at {shown or folder}"
    if free < GIB // 2:
        return Check(name, "fail", text, "Free some space.")
    if free < enough:
        return Check(name, "warn", text, f"{purpose[0].upper()}{purpose[1:]} needs about {enough / GIB:.0f} GiB.")
    return Check(name, "ok", text)


def _requirements(extra: str = "") -> dict[str, str]:
    """The packages that captune, or one of its extras, declares, with the least version of each."""
    needed_versions = {}
    for line in requires("captune") or []:
        needed, _, condition = line.partition(";")
        if (f'"{extra}"' in condition.replace("'", '"')) if extra else not condition.strip():
            match = re.match(r"([\w.-]+)(?:\[[^]]*])?\s*(?:>=\s*([\w.]+))?", needed.strip())
            if match and match[1] != "captune":  # an extra may bring another one
                needed_versions[match[1]] = match[2] or "0"
    return needed_versions


def installed_version(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _number(text: str) -> tuple[int, ...]:
    """The release numbers of a version: `2.13.0+cpu` is (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
