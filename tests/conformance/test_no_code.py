"""Model folders that carry code, for every loader: it never runs, and nobody is asked whether it may."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from captune.core.errors import CaptuneError, MetricUnavailable
from captune.evaluation.clip_score import _load as load_clip
from captune.inference.translation import _load as load_translator
from captune.models import FAMILIES
from captune.models.loading.loader import family_of, load_backbone, load_pretrained, model_info, pair_backbone
from captune.models.loading.pretrained import pretrained
from captune.models.matcher import load_matcher

NAMES = ("Config", "Tokenizer", "ImageProcessor", "Processor", "Model", "ModelForCausalLM", "ModelForSeq2SeqLM")
CODE = """
from pathlib import Path
Path({marker!r}).touch()
import transformers
class Evil(transformers.PreTrainedConfig): model_type = "evil"
"""


class Terminal(io.StringIO):
    """Somebody who says yes to everything, and notes that they were asked."""

    asked = False

    def readline(self, *_: Any) -> str:
        self.asked = True
        return "y\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in ("clip-gpt2", "blip")}
    for name, folder in made.items():
        FAMILIES[name].tiny().save(folder)
    return made


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    found = Terminal()
    monkeypatch.setattr("sys.stdin", found)
    yield found
    assert not found.asked


def laid(whole: Path, folder: Path, **edits: dict[str, Any]) -> Path:
    """A copy of a model whose files (`config__json`) have other values, with code beside them."""
    shutil.copytree(whole, folder)
    (folder / "evil.py").write_text(CODE.format(marker=str(folder / "ran")))
    for name, values in edits.items():
        path = folder / name.replace("__", ".")
        kept = json.loads(path.read_text()) if path.exists() else {}
        for key, value in values.items():
            part, dot, inner = key.partition("__")
            (kept[part] if dot else kept)[inner or part] = value
        path.write_text(json.dumps(kept).replace("FOLDER", str(folder)))
    return folder


MAP = {f"Auto{name}": [None, "evil.Evil"] if name == "Tokenizer" else "evil.Evil" for name in NAMES}
OWN = {"auto_map": MAP}
UNKNOWN = {**OWN, "model_type": "evil", "architectures": ["Evil"]}
# A known kind of configuration for which transformers has no model of the kind that is wanted: it looks for code then.
PART = {"model_type": "clip_vision_model", "auto_map": MAP, "_name_or_path": "FOLDER"}
FOLDERS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "tokenizer": ("clip-gpt2", {"tokenizer_config__json": {**OWN, "tokenizer_class": "Evil"}}),
    "tokenizer that is a loader": (
        "clip-gpt2",
        {
            "tokenizer_config__json": {"tokenizer_class": "AutoImageProcessor"},
            "preprocessor_config__json": {**OWN, "image_processor_type": "Evil"},
        },
    ),
    "image processor": ("clip-gpt2", {"preprocessor_config__json": {**OWN, "image_processor_type": "Evil"}}),
    "image processor that is a loader": (
        "clip-gpt2",
        {
            "preprocessor_config__json": {**OWN, "image_processor_type": "AutoProcessor", "processor_class": "Evil"},
            "processor_config__json": {**OWN, "processor_class": "Evil"},
        },
    ),
    "part of a model": ("clip-gpt2", {"config__json": {f"decoder__{key}": PART[key] for key in PART}}),
    "kernel": ("blip", {"config__json": {"_attn_implementation": "org/kernel"}}),
    "kernel of a part": ("blip", {"config__json": {"text_config__attn_implementation": {"": "org/kernel"}}}),
    "adapter": (
        "blip",
        {"adapter_config__json": {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "evil"}},
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_captioners(saved: dict[str, Path], tmp_path: Path, terminal: Terminal, case: str) -> None:
    family, edits = FOLDERS[case]
    folder = laid(saved[family], tmp_path / "model", **edits)
    with pytest.raises(CaptuneError, match="which captune does not run") as caught:
        load_backbone(str(folder))
    assert "captune models" in caught.value.hint
    assert not (folder / "ran").exists()


LOADERS: dict[str, Callable[[str], Any]] = {
    "captioner": load_backbone,
    "family": family_of,
    "what is known of it": model_info,
    "translator": lambda name: load_pretrained(load_translator, name),
    "matcher": load_matcher,
    "clip_score": lambda name: load_clip(name, "cpu"),
    "vision part": lambda name: pair_backbone(f"{name}+{name}", seed=0, image_size=None),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_kind_of_its_own(saved: dict[str, Path], tmp_path: Path, terminal: Terminal, loader: str) -> None:
    folder = laid(saved["blip"], tmp_path / "model", config__json=UNKNOWN)
    (folder / "captune.json").unlink()
    with pytest.raises((CaptuneError, MetricUnavailable)):
        LOADERS[loader](str(folder))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_automatic_class(saved: dict[str, Path], tmp_path: Path, terminal: Terminal, name: str) -> None:
    import transformers

    folder = laid(
        saved["clip-gpt2"],
        tmp_path / "model",
        config__json=UNKNOWN,
        tokenizer_config__json={**OWN, "tokenizer_class": "Evil"},
        preprocessor_config__json={**OWN, "image_processor_type": "Evil", "processor_class": "Evil"},
    )
    with pytest.raises(ValueError, match="trust_remote_code"):
        pretrained(getattr(transformers, f"Auto{name}"), folder)
    assert not (folder / "ran").exists()


def test_code_beside_a_known_kind_is_left_alone(saved: dict[str, Path], tmp_path: Path, terminal: Terminal) -> None:
    folder = laid(saved["blip"], tmp_path / "model", config__json=OWN)
    load_backbone(str(folder))
    assert not (folder / "ran").exists()


def test_layers_that_no_weights_are_for(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = laid(saved["blip"], tmp_path / "model", config__json={"text_config__num_hidden_layers": 100_000})
    with pytest.raises(CaptuneError, match="weights of 2 layers"):
        load_backbone(str(folder))
