"""Exports for tests: a tiny model behind the graphs' names without any file, and a folder written for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from captune.core.exported import MEMORY, NEW, PAST, Exported, ExportedPixels, layer_names
from captune.images.preprocessing import Preprocessing
from captune.inference.runtime import ExportedModel
from captune.inference.runtime.model import ExportTokenizer
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.decoder import KVCache
from exported import saved_model
from random_weights import LIVELY


def lively(family: str) -> Backbone:
    torch.manual_seed(0)
    made: Backbone = FAMILIES[family].tiny()
    made.model.eval()
    with torch.no_grad():
        LIVELY[family](made.model)
    return made


def vision_of(backbone: Backbone) -> Any:
    """What `vision.onnx` of a model would answer."""

    def run(*, pixels: np.ndarray) -> dict[str, np.ndarray]:
        decoder = backbone.text_decoder()
        assert decoder is not None
        with torch.inference_mode():
            image_kv = decoder.prefill(backbone.image_features(torch.from_numpy(pixels)))
        found = [layer[which].numpy() for which in (0, 1) for layer in image_kv]
        return dict(zip(layer_names(MEMORY, len(image_kv)), found, strict=True))

    return run


def text_of(backbone: Backbone) -> Any:
    """What `text.onnx` would answer; the shapes of the contract are checked on the way."""

    def run(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        decoder = backbone.text_decoder()
        assert decoder is not None
        assert all(each.flags.c_contiguous for each in inputs.values())
        given = {name: torch.from_numpy(each) for name, each in inputs.items()}
        (images, rows), slots = given["tokens"].shape, given["said_keys_0"].shape[2]
        assert given["positions"].shape == (rows,)
        assert given["mask"].shape == (images, 1, rows, slots + rows)
        assert {given["tokens"].dtype, given["positions"].dtype} == {torch.int64}
        assert {given[name].dtype for name in given.keys() - {"tokens", "positions"}} == {torch.float32}
        memory, before = (
            [[given[f"{name}_{kind}_{layer}"] for layer in range(decoder.num_layers)] for kind in ("keys", "values")]
            for name in (MEMORY, PAST)
        )
        new = torch.zeros(decoder.num_layers, images, decoder.num_heads, rows, decoder.head_dim)
        said = KVCache(*(torch.cat([torch.stack(each), new], 3) for each in before), slots)
        with torch.inference_mode():
            hidden = decoder.step(
                given["tokens"], given["positions"], list(zip(*memory, strict=True)), said, given["mask"]
            )
            logits = decoder.logits(hidden)
        written = torch.cat([said.keys, said.values])[:, :, :, slots:].numpy()
        return {"logits": logits.numpy(), **dict(zip(layer_names(NEW, decoder.num_layers), written, strict=True))}

    return run


def without_files(backbone: Backbone) -> ExportedModel:
    """A tiny model as an export whose graphs torch answers for."""
    settings = backbone.pixels
    facts = Exported(
        family=backbone.family,
        model="a tiny one",
        digest="",
        target="onnx",
        precision="fp32",
        pixels=ExportedPixels(settings.size, settings.resample, settings.shorter, (), ()),
        start=backbone.bos_token_id,
        end=backbone.eos_token_id,
        pad=backbone.pad_token_id,
        longest=backbone.max_length,
        prompt=backbone.prompt,
        generation=backbone.generation,
        layers=0,
        heads=0,
        head_width=0,
        places=0,
        vocabulary=0,
        clean_up=False,
        opset=0,
        captune="",
    )
    words = ExportTokenizer(backbone.tokenizer.backend_tokenizer, clean_up=False)
    square = Preprocessing(settings.size, settings.resample, settings.shorter)
    return ExportedModel(facts, words, vision_of(backbone), text_of(backbone), square)


def export_tiny(folder: Path, family: str = "blip", to: str = "onnx") -> tuple[Path, Path]:
    """A lively tiny model saved in a folder, and its export."""
    import captune

    model, out = saved_model(family, folder / family), folder / f"{family}.{to}"
    captune.export(model, out, to=to, check_images=2)
    return model, out
