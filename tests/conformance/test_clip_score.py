"""CLIPScore by the paper's definition, worked out beside it with a tiny CLIP saved as the Hub's are."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captune.core.errors import MetricUnavailable
from captune.metrics.corpus import MetricContext
from captune.metrics.measure import measure
from noise import noise

HYPOTHESES = {"a": "a red square", "b": "something blue " + "and so on " * 40, "c": ""}
REFERENCES = {"a": ["one red square", "a square"], "b": ["a blue thing"], "c": ["green", "grass", "a field"]}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP in the Hub's layout, processor included."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz,.'"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={shard: n for n, shard in enumerate(pieces)}, merges=[], model_max_length=24)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**size, "vocab_size": len(pieces), "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=16)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=pixels, tokenizer=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    for n, key in enumerate(HYPOTHESES):
        image = noise((50 + 9 * n, 40), 30 + 40 * n, n).convert("RGB")
        image.paste((200, 40 * n, 20), (5, 5, 25 + n, 30))
        image.save(folder / f"{key}.png")
    return {key: str(folder / f"{key}.png") for key in HYPOTHESES}


def embedded(clip: Path, *, texts: list[str] | None = None, picture: str = "") -> np.ndarray:
    """Unit embeddings, one text or image at a time."""
    from transformers import CLIPModel, CLIPProcessor

    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    found = []
    with torch.no_grad():
        for text in texts or []:
            ids = processor.tokenizer(f"A photo depicts {text}", truncation=True, max_length=24, return_tensors="pt")
            found.append(model.text_projection(model.text_model(**ids).pooler_output)[0])
        if picture:
            with Image.open(picture) as opened:
                pixels = processor.image_processor(opened.convert("RGB"), return_tensors="pt")["pixel_values"]
            found.append(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0])
    rows = torch.stack(found).numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def is_cut(text: str) -> bool:
    """Whether the prompt with this text has more letters than the 24 tokens leave between start and end."""
    return len(f"Aphotodepicts{text}".replace(" ", "")) > 22


@pytest.fixture(scope="module")
def turned(clip: Path) -> Path:
    """The same CLIP with every cosine of the other sign: what one counts as 0 the other counts."""
    from transformers import CLIPModel, CLIPProcessor

    folder = clip.parent / "turned"
    model = CLIPModel.from_pretrained(clip)
    with torch.no_grad():
        model.visual_projection.weight.neg_()
    model.save_pretrained(folder)
    CLIPProcessor.from_pretrained(clip).save_pretrained(folder)
    return folder


def test_it_is_the_papers(clip: Path, turned: Path, pictures: dict[str, str]) -> None:
    positive = set()
    for folder in (clip, turned):
        report = measure(
            HYPOTHESES, REFERENCES, ["clip_score"], MetricContext(pictures=pictures, clip_model=str(folder))
        )
        for key, caption in HYPOTHESES.items():
            said = embedded(folder, texts=[caption])[0]
            seen = embedded(folder, picture=pictures[key])[0]
            near = max(0.0, max(float(said @ known) for known in embedded(folder, texts=REFERENCES[key])))
            fit = 2.5 * max(0.0, float(said @ seen))
            both = 2 * fit * near / (fit + near) if fit + near else 0.0
            assert report.per_image[key]["clip_score"] == pytest.approx(fit, abs=1e-5)
            assert report.per_image[key]["ref_clip_score"] == pytest.approx(both, abs=1e-5)
            positive |= {key} if fit > 0.01 and both > 0.01 else set()
        each = [scores["clip_score"] for scores in report.per_image.values()]
        assert report.scores["clip_score"] == pytest.approx(np.mean(each))
        assert report.settings["clip_model"] == str(folder)
        assert report.settings["clip_cut"] == sum(map(is_cut, [*HYPOTHESES.values(), *chain(*REFERENCES.values())]))
        assert set(report.intervals) == {"clip_score", "ref_clip_score"}
    assert positive == set(HYPOTHESES)


def test_what_is_missing_is_said_and_costs_nothing_else(clip: Path, pictures: dict[str, str]) -> None:
    with pytest.raises(MetricUnavailable, match="none were given"):
        measure(HYPOTHESES, REFERENCES, ["clip_score"])
    context = MetricContext(pictures=pictures, clip_model=str(clip.parent / "nothing"))
    report = measure(HYPOTHESES, REFERENCES, ["rouge_l", "clip_score"], context)
    assert list(report.scores) == ["rouge_l"]
    assert "cannot load the CLIP" in report.settings["left_out"]["clip_score"]
