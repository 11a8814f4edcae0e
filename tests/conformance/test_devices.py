"""Which number type `auto` takes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from captune.core.errors import CaptuneError, UsageError
from captune.models.loading import devices
from captune.models.loading.devices import choose_device, choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("words", [{"avx512_bf16"}, {"amx_bf16", "fma"}])
def test_bf16_on_cpus_where_it_was_measured_faster(words: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(words))
    assert choose_precision("auto", CPU, 768) == torch.bfloat16
    assert choose_precision("auto", CPU, 256) == torch.float32
    assert choose_precision("auto", CPU, 256, training=True) == torch.bfloat16
    assert choose_precision("auto", CPU, 96, training=True) == torch.float32
    assert choose_precision("fp32", CPU, 768) == torch.float32


def test_fp32_on_cpus_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx2"}))
    assert choose_precision("auto", CPU, 768, training=True) == torch.float32
    assert choose_precision("bf16", CPU, 768) == torch.bfloat16
    with pytest.raises(UsageError, match="fp16"):
        choose_precision("fp16", CPU, 768)


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), torch.bfloat16), ((7, 5), torch.float16)])
def test_cards(capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda"), 32) == expected


def test_a_device_that_is_not_there() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(CaptuneError, match="no CUDA"):
            choose_device("cuda")


def test_quantized_weights_need_a_card_and_a_family_that_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from captune.models import FAMILIES
    from captune.models.loading.loader import load_backbone

    FAMILIES["blip"].tiny().save(tmp_path / "m")
    if not torch.cuda.is_available():
        with pytest.raises(CaptuneError, match="needs an NVIDIA card"):
            load_backbone(str(tmp_path / "m"), quantize="4bit")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(CaptuneError, match="needs bitsandbytes"):
        load_backbone(str(tmp_path / "m"), quantize="8bit")
    monkeypatch.setattr("captune.models.loading.loader.find_spec", lambda name: object())
    with pytest.raises(UsageError, match="blip is not loaded in 8bit"):
        load_backbone(str(tmp_path / "m"), quantize="8bit")


def test_apple_machines_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    assert choose_device("mps") == torch.device("mps")
    assert choose_precision("auto", torch.device("mps"), 768) == torch.float32
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(CaptuneError, match="no MPS"):
        choose_device("mps")


def test_a_model_without_room_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    from captune.models import FAMILIES
    from captune.models.loading.loader import load_backbone
    from captune.models.weights import Placing

    FAMILIES["vlm"].tiny().save(tmp_path / "m")
    size = (tmp_path / "m" / "model.safetensors").stat().st_size
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=size // 3))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=size // 3))
    with pytest.raises(CaptuneError, match=r"take .* of memory in float32, and .* are free on cpu") as caught:
        load_backbone(str(tmp_path / "m"))
    assert "--precision bf16 (half of it)" in caught.value.hint
    load_backbone(str(tmp_path / "m"), placing=Placing(torch.bfloat16))
