"""Weights alone, as training scripts leave them, become models; what cannot is told with the next step."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.model_names import local_folder
from captune.export.convert import read_states
from captune.models import FAMILIES
from tiny_vlms import lively


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a model, and the weights of one that was trained from it."""
    folder = tmp_path_factory.mktemp("like") / request.param
    torch.manual_seed(0)
    made = FAMILIES[request.param].tiny()
    made.prompt = "a red"
    made.save(folder)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return folder, {name: value.clone() for name, value in made.model.state_dict().items()}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    family = FAMILIES[FAMILIES["blip"].read_card(folder)["family"]]
    return family.load(folder).model.state_dict()


def checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "epoch": 30,
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "loss": 1.5,
    }


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "weights_best.pt": lambda state: state,
    "checkpoint_epoch_30.pt": checkpoint,
    "best_model_eval.pth": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled.pt": lambda state: {"state_dict": {f"model._orig_mod.{name}": value for name, value in state.items()}},
    "lightning.ckpt": lambda state: {
        "a": {"model": {f"net.model.{n}": v for n, v in state.items()}},
        "hyper": {"lr": 1},
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_become_a_model_whatever_is_around_them(
    name: str, pair: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    like, state = pair
    torch.save(WRAPPED[name](state), tmp_path / name)
    done = captune.convert(tmp_path / name, str(like), tmp_path / "out")
    assert (done.unused, done.kept, done.matched) == ((), (), len(state))
    found = weights_of(tmp_path / "out")
    assert all(torch.equal(found[key], value) for key, value in state.items())
    assert FAMILIES["blip"].read_card(tmp_path / "out")["prompt"] == "a red"


def test_weights_of_a_saved_folder_fit_where_files_have_other_names_than_the_model(tmp_path: Path) -> None:
    made = lively("qwen2_5_vl")
    made.save(tmp_path / "like")
    file = tmp_path / "like" / "model.safetensors"
    assert not set(load_file(file)) & set(made.model.state_dict()) - {"lm_head.weight"}
    done = captune.convert(file, str(tmp_path / "like"), tmp_path / "out")
    assert (done.unused, done.kept, done.prefix) == ((), (), "")
    found = weights_of(tmp_path / "out")
    assert all(torch.equal(found[key], value) for key, value in made.model.state_dict().items())


@pytest.fixture
def blip(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    made = FAMILIES["blip"].tiny()
    made.save(tmp_path / "like")
    return tmp_path / "like", {name: value.clone() for name, value in made.model.state_dict().items()}


def test_safetensors_a_folder_and_fp16_are_read_as_well(
    blip: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    like, state = blip
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    (tmp_path / "only").mkdir()
    torch.save(half, tmp_path / "only" / "pytorch_model.bin")
    done = captune.convert(tmp_path / "only", str(like), tmp_path / "a")
    assert torch.equal(
        weights_of(Path(done.folder))["text_decoder.bert.embeddings.word_embeddings.weight"],
        half["text_decoder.bert.embeddings.word_embeddings.weight"].float(),
    )
    own = {name: value for name, value in state.items() if "decoder.cls.predictions.decoder" not in name}  # tied
    save_file(own, tmp_path / "x.safetensors")
    assert captune.convert(tmp_path / "x.safetensors", str(like), tmp_path / "b").kept == ()


def test_of_two_sets_of_weights_the_one_that_fits_is_taken(
    blip: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    like, state = blip
    other = {f"discriminator.layer.{n}.weight": torch.zeros(1) for n in range(500)}
    torch.save({"critic": other, "captioner": state, "epoch": 3}, tmp_path / "x.pt")
    done = captune.convert(tmp_path / "x.pt", str(like), tmp_path / "out")
    assert (done.place, done.also) == ("captioner", ("critic", "epoch = 3"))


def test_what_is_missing_is_refused_or_taken_from_the_other_model(
    blip: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    like, state = blip
    some = {name: value + 1 for name, value in state.items() if name.startswith("vision_model")}
    torch.save({**some, "head.weight": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(CaptuneError, match=r"lacks \d+ of the .*text_decoder.* head\.weight") as caught:
        captune.convert(tmp_path / "x.pt", str(like), tmp_path / "out")
    assert "--partial" in caught.value.hint
    assert not (tmp_path / "out").exists()
    done = captune.convert(tmp_path / "x.pt", str(like), tmp_path / "out", partial=True)
    assert done.unused == ("head.weight",)
    assert len(done.kept) > 10
    found = weights_of(tmp_path / "out")
    assert torch.equal(found["vision_model.post_layernorm.weight"], state["vision_model.post_layernorm.weight"] + 1)
    name = "text_decoder.bert.embeddings.word_embeddings.weight"
    assert torch.equal(found[name], state[name])


class Model(torch.nn.Linear):
    """A class of a training script's own."""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda state: {"model": state, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (lambda state: {"model": state, "best": np.float64(0.3)}, "numpy"),
        (lambda state: Model(2, 2), "Model"),
        (lambda state: {"optimizer": {"state": {}}, "epoch": 3}, "holds no weights by name, but optimizer, epoch"),
        (lambda state: torch.zeros(3), "holds no weights by name, but a Tensor"),
        (lambda state: {f"a.{n}.b": v for n, v in enumerate(state.values())}, "None of the .* weights"),
        (lambda state: {**state, "x.lora_A.weight": torch.zeros(2)}, "LoRA adapters"),
        (
            lambda state: {n: v[:1] if "word_emb" in n else v for n, v in state.items()},
            r"another shape .*\(1, 32\), there",
        ),
        (lambda state: {n: v * float("nan") for n, v in state.items() if v.is_floating_point()}, "not finite"),
    ],
    ids=["namespace", "numpy", "whole model", "optimizer", "tensor", "other", "lora", "shape", "nan"],
)
def test_what_cannot_become_a_model_is_told(
    content: Any, told: str, blip: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    like, state = blip
    torch.save(content(state), tmp_path / "x.pt")
    with pytest.raises(CaptuneError, match=told) as caught:
        captune.convert(tmp_path / "x.pt", str(like), tmp_path / "out")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage" * 40,
        b"version https://git-lfs.github.com/spec/v1\noid",
        b"PK\3\4x",
        b"\0" * 8,
        b"\x80\x02X\xff\xff",
        b"\x80\x02]q\x00K\x01a.",
        b"<!DOCTYPE html><html>Sign in</html>",
    ],
)
def test_what_is_no_file_of_weights_is_told(
    content: bytes, blip: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    for name in ("x.pt", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CaptuneError, match=r"x\.(pt|safetensors) is (no|a pointer|a web page|empty)"):
            captune.convert(tmp_path / name, str(blip[0]), tmp_path / "out")


def test_bytes_changed_anywhere_are_told(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2), "a.bias": torch.ones(3)}, tmp_path / "x.pt")
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    drawn = random.Random(0)
    for name in ("x.pt", "old.pt"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(150):
            changed = bytearray(whole[: drawn.randrange(1, len(whole) + 1)])
            for _ in range(3):
                changed[drawn.randrange(min(len(changed), 300))] = drawn.randrange(256)
            (tmp_path / "y.pt").write_bytes(changed)
            with suppress(CaptuneError):  # and nothing else
                read_states(tmp_path / "y.pt")


def test_a_model_without_a_tokenizer_is_none_to_be_like(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="no tokenizer yet"):
        captune.convert(tmp_path / "x.pt", "new:blip-tiny", tmp_path / "out")
    with pytest.raises(CaptuneError, match="There is no file"):
        captune.convert(tmp_path / "y.pt", "new:blip-tiny", tmp_path / "out")


def test_the_name_of_a_weights_file_leads_to_convert(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pt")
    for name in (tmp_path / "weights.pt", tmp_path):
        with pytest.raises(CaptuneError) as caught:
            local_folder(str(name))
        assert f"captune convert {tmp_path / 'weights.pt'} --like" in caught.value.hint
    with pytest.raises(CaptuneError, match="no file"):
        local_folder("missing.pth")
