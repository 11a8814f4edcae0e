"""Kinds of vision-language models: the table of docs/models.md, and what is said of those that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import write_json
from captune.models.loading.loader import load_backbone
from captune.models.vlm import Vlm
from captune.models.vlm.stored import to_row
from tiny_vlm_kinds import KINDS, REFUSED, tried

FOUND = json.loads((Path(__file__).parents[2] / "docs" / "vlm-kinds.json").read_text(encoding="utf-8"))
# `python docs/vlm_kinds.py --check` tries them all.
SAMPLE = ("gemma4", "llava_next", "ovis2", "qwen3_5", "llava (Pixtral)", "lfm2_vl", "mllama", "kosmos-2", "idefics2")


def test_the_table_holds_every_kind() -> None:
    assert list(FOUND) == sorted([*KINDS, *REFUSED])


@pytest.mark.parametrize("kind", SAMPLE)
def test_a_kind_does_what_the_table_says(kind: str) -> None:
    assert tried(kind) == FOUND[kind]


def test_features_that_hold_more_than_an_image_are_not_cached() -> None:
    vlm = KINDS["ovis2"]()
    with pytest.raises(UsageError, match="cannot be cached"):
        to_row(vlm.image_features([np.zeros((3, 56, 56), np.uint8)]))


def test_a_text_only_model_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    with pytest.raises(CaptuneError, match="writes text and sees no images"):
        load_backbone(str(tmp_path))


def test_an_old_checkpoint_without_a_template_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    Vlm.tiny().save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(CaptuneError, match="no chat template") as raised:
        load_backbone(str(tmp_path))
    assert "chat_template.jinja" in raised.value.hint
