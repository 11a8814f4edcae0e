"""An export says what its model says: numbers, captions, tokens, for any number of images, rows and slots."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import captune
from captune.core.exported import EXPORT, MEMORY, NEW, PAST, Exported, layer_names
from captune.core.options import GenerationOptions
from captune.export import EXPORTERS
from captune.export.export import ExportReport
from captune.export.graphs import TextGraph
from captune.inference.runtime import ExportedModel
from captune.inference.runtime.model import ExportTokenizer
from captune.inference.torch_model import TorchModel
from captune.models.backbone import Backbone
from captune.models.generate import generate
from captune.models.layers.fused import with_plain_weights
from captune.models.layers.text_decoder import TextDecoder
from captune.models.loading.loader import load_backbone
from exported import EXPORTABLE, saved_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("traced_once")
PICTURES = 60
TEXTS = ["a red circle", "a man on a bike .", "the dogs' bike isn't red", "a man's dog , asleep"]
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "5 beams": {"num_beams": 5},
    "prompt, penalties": {"num_beams": 4, "prompt": "two dogs", "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    "first to end": {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0, "min_new_tokens": 3},
}


@dataclass
class Case:
    """A model, its export, and pictures."""

    backbone: Backbone
    report: ExportReport
    facts: Exported
    export: ExportedModel
    pixels: torch.Tensor


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("models")
    return {family: saved_model(family, home / family) for family in EXPORTABLE}


def case_of(model: Path, out: Path, **options: Any) -> Case:
    report = captune.export(model, out, **options)
    backbone = load_backbone(str(model))
    written = ExportedModel.load(out, threads=1)
    side, chance = backbone.pixels.size, torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (PICTURES, 3, side, side), dtype=torch.uint8, generator=chance)
    return Case(backbone, report, written.exported, written, pixels)


@pytest.fixture(scope="module")
def cases(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Case]:
    """The fp32 export of a family to a target, written once."""
    home = tmp_path_factory.mktemp("exports")

    @cache
    def made(family: str, target: str) -> Case:
        pytest.importorskip("openvino" if target == "openvino" else "onnxruntime")
        return case_of(models[family], home / f"{family}-{target}", to=target, check_images=4)

    return made


@pytest.fixture(scope="module", params=[(f, t) for t in EXPORTERS for f in EXPORTABLE], ids="-".join)
def case(request: pytest.FixtureRequest, cases: Callable[[str, str], Case]) -> Case:
    return cases(*request.param)


def tokens_of(case: Case, options: GenerationOptions, *, exported: bool, pixels: torch.Tensor) -> list[list[list[int]]]:
    seen = pixels.numpy()
    captions = case.export.generate(seen, options) if exported else TorchModel(case.backbone).generate(seen, options)
    return [[list(caption.tokens) for caption in each] for each in captions]


def test_memory_is_the_models_for_any_number_of_pictures(case: Case) -> None:
    stack = case.backbone.text_decoder()
    assert isinstance(stack, TextDecoder)
    for count in (1, 2, 7):
        with torch.inference_mode():
            image_kv = stack.prefill(case.backbone.image_features(case.pixels[:count]))
        found = case.export.memory(case.pixels[:count].numpy())
        assert list(found) == list(layer_names(MEMORY, case.facts.layers))
        for layer, pair in enumerate(image_kv):
            for kind, mine in zip(("keys", "values"), pair, strict=True):
                theirs = found[f"memory_{kind}_{layer}"]
                assert theirs.shape == (count, case.facts.heads, case.facts.places, case.facts.head_width)
                np.testing.assert_allclose(theirs, mine.numpy(), atol=1e-4 * float(mine.abs().max()))


@pytest.mark.parametrize(
    ("pictures", "rows", "slots"), [(1, 1, 0), (1, 1, 1), (3, 4, 0), (1, 5, 9), (4, 1, 17), (6, 3, 2)]
)
def test_scores_and_new_keys_are_the_models(case: Case, pictures: int, rows: int, slots: int) -> None:
    stack, facts = case.backbone.text_decoder(), case.facts
    assert isinstance(stack, TextDecoder)
    chance = torch.Generator().manual_seed(pictures + 10 * rows + 100 * slots)
    memory = case.export.memory(case.pixels[:pictures].numpy())
    mask = torch.zeros(pictures, 1, rows, slots + rows)
    mask[..., :-1].masked_fill_(torch.rand(pictures, 1, rows, slots + rows - 1, generator=chance) < 0.4, float("-inf"))
    shape = (pictures, facts.heads, slots, facts.head_width)
    given = {
        "tokens": torch.randint(0, facts.vocabulary, (pictures, rows), generator=chance),
        "positions": torch.arange(rows) + slots,
        "mask": mask,
        **{name: torch.from_numpy(each) for name, each in memory.items()},
        **{name: torch.randn(shape, generator=chance) for name in layer_names(PAST, facts.layers)},
    }
    with torch.inference_mode():
        mine = TextGraph(with_plain_weights(stack))(given)
    found = case.export.text(**{name: value.numpy() for name, value in given.items()})
    assert list(found) == ["logits", *layer_names(NEW, facts.layers)]
    assert found["logits"].shape == (pictures, rows, facts.vocabulary)
    for expected, got in zip(mine, found.values(), strict=True):
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("search", SEARCHES)
def test_captions_are_the_models(case: Case, search: str) -> None:
    options = GenerationOptions(**{"max_new_tokens": 10, **SEARCHES[search]})
    mine = tokens_of(case, options, exported=False, pixels=case.pixels)
    assert tokens_of(case, options, exported=True, pixels=case.pixels) == mine
    # Images decide what is said: equality proves something.
    assert len({str(each) for each in mine}) > (1 if "prompt" in search else 10)


def test_a_picture_alone_is_captioned_as_among_others(case: Case) -> None:
    options = GenerationOptions(max_new_tokens=8)
    together = tokens_of(case, options, exported=True, pixels=case.pixels[:6])
    assert together == [tokens_of(case, options, exported=True, pixels=case.pixels[n : n + 1])[0] for n in range(6)]


def test_the_report_says_what_was_compared(case: Case) -> None:
    check, folder = case.report.check, Path(case.report.folder)
    assert check.pictures == 4
    assert [(each.name, each.identical) for each in check.searches] == [("greedy", 1.0), ("3 beams", 1.0)]
    assert 0 <= check.memory < 1e-3
    assert 0 <= check.logits < 1e-3
    assert case.report.files == {name: (folder / name).stat().st_size for name in case.report.files}
    assert case.report.weights > 100_000
    written = json.loads((folder / "export_report.json").read_text())
    assert written["check"]["searches"][1]["beams"] == 3
    assert case.facts.check["pictures"] == 4
    assert sorted(path.name for path in folder.iterdir()) == sorted([*case.report.files, "export_report.json"])


def test_graphs_hold_no_paths_of_the_machine_that_wrote_them(case: Case) -> None:
    for file in (*Path(case.report.folder).glob("*.onnx"), *Path(case.report.folder).glob("*.xml")):
        content = file.read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content


def test_the_facts_are_the_models(case: Case) -> None:
    backbone, facts = case.backbone, case.facts
    assert (facts.start, facts.end, facts.pad) == (backbone.bos_token_id, backbone.eos_token_id, backbone.pad_token_id)
    assert (facts.longest, facts.vocabulary, facts.precision) == (backbone.max_length, len(backbone.tokenizer), "fp32")
    pixels = backbone.pixels
    assert (facts.pixels.size, facts.pixels.resample, facts.pixels.shorter) == (
        pixels.size,
        pixels.resample,
        pixels.shorter,
    )
    assert len(facts.digest) == 64


def test_tokens_are_read_and_written_as_by_transformers(case: Case) -> None:
    words = ExportTokenizer.load(Path(case.report.folder) / "tokenizer.json", clean_up=case.facts.clean_up)
    for text in (*TEXTS, "", "  ", "Unknown WÖRDS, 7 of them!", "a  man"):
        assert words.encode(text) == case.backbone.tokenize(text)
    for row in torch.randint(
        0, len(case.backbone.tokenizer), (50, 12), generator=torch.Generator().manual_seed(2)
    ).tolist():
        assert words.decode(row) == case.backbone.tokenizer.decode(row, skip_special_tokens=True).strip()


@pytest.mark.parametrize("calibration", [0, 8], ids=["", "calibrated"])
@pytest.mark.parametrize(("family", "target"), [*((f, "onnx") for f in EXPORTABLE), ("blip", "openvino")])
def test_int8_is_smaller_and_blind_to_other_pictures(
    models: dict[str, Path],
    cases: Callable[[str, str], Case],
    family: str,
    target: str,
    calibration: int,
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    fp32 = cases(family, target).report
    asked = {"int8": True, "min_identical": 0.0, "data": tiny_data, "resamples": 50, "check_images": 4}
    if calibration:
        asked |= {"calibrate_on": tiny_data, "calibrate_images": calibration}
    case = case_of(models[family], tmp_path / "x", to=target, **asked)
    report = case.report
    assert (report.precision, case.facts.precision, report.calibrated) == ("int8", "int8", calibration)
    assert 0 < report.check.memory < 1
    assert report.score is not None
    assert (report.score.pictures, report.score.split, report.check.source) == (4, "val", "the split's images")
    cider = report.score.scores["cider"]
    assert cider.low is not None
    assert cider.difference == pytest.approx(cider.export - cider.model)
    weights = sum(size for name, size in report.files.items() if name.endswith((".onnx", ".bin")))
    assert weights < 0.75 * sum(size for name, size in fp32.files.items() if name.endswith((".onnx", ".bin")))
    for options in (GenerationOptions(max_new_tokens=8, num_beams=1), GenerationOptions(max_new_tokens=8)):
        together = tokens_of(case, options, exported=True, pixels=case.pixels[:6])
        assert together == [tokens_of(case, options, exported=True, pixels=case.pixels[n : n + 1])[0] for n in range(6)]
    mine = tokens_of(case, GenerationOptions(max_new_tokens=1, num_beams=1), exported=False, pixels=case.pixels)
    theirs = tokens_of(case, GenerationOptions(max_new_tokens=1, num_beams=1), exported=True, pixels=case.pixels)
    assert np.mean([a == b for a, b in zip(mine, theirs, strict=True)]) > 0.6


def test_generation_and_prompt_travel_with_the_export(models: dict[str, Path], tmp_path: Path) -> None:
    backbone = load_backbone(str(models["blip"]))
    backbone.prompt, backbone.generation = "a man", {"num_beams": 2, "max_new_tokens": 5}
    backbone.save(tmp_path / "m")
    case = case_of(tmp_path / "m", tmp_path / "x", check_images=3)
    assert (case.facts.prompt, dict(case.facts.generation)) == ("a man", {"num_beams": 2, "max_new_tokens": 5})
    assert [each.name for each in case.report.check.searches] == ["greedy", "2 beams"]
    with torch.inference_mode():
        expected = generate(
            case.backbone, case.backbone.image_features(case.pixels), GenerationOptions(**case.facts.generation)
        )
    options = GenerationOptions(**case.facts.generation, prompt="a man")
    found = tokens_of(case, options, exported=True, pixels=case.pixels)
    assert [list(each[0].tokens) for each in expected] == [each[0] for each in found]
    assert (tmp_path / "x" / EXPORT).is_file()
