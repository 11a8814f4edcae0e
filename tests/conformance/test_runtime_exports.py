"""Export folders where a model is named: the same captions, clear words for what they cannot do, and no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.core.errors import OF_TORCH, CaptuneError
from noise import noise
from serving import encoded, picture, running
from torchless import export_tiny

pytestmark = pytest.mark.usefixtures("traced_once")
PICTURES = [picture(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny BLIP and its export."""
    return export_tiny(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def model(both: tuple[Path, Path]) -> captune.Captioner:
    return captune.Captioner.load(both[0], device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def export(both: tuple[Path, Path]) -> captune.Captioner:
    return captune.Captioner.load(both[1], threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, data in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(data)
    return folder


@pytest.mark.parametrize("options", [{}, {"num_beams": 5, "num_captions": 3}, {"num_beams": 1, "prompt": "two dogs"}])
def test_the_captions_are_the_models(
    model: captune.Captioner, export: captune.Captioner, options: dict[str, object]
) -> None:
    mine, theirs = export.batch(PICTURES, **options), model.batch(PICTURES, **options)
    assert [[c.text for c in each] for each in mine] == [[c.text for c in each] for each in theirs]
    assert [c.confidence for each in mine for c in each] == pytest.approx(
        [c.confidence for each in theirs for c in each], rel=1e-3
    )
    assert len({each[0].text for each in mine}) > 1


def test_a_caption_is_spoken(model: captune.Captioner, export: captune.Captioner) -> None:
    assert "".join(export.speak(PICTURES[0])) == "".join(model.speak(PICTURES[0]))


def test_a_file_of_the_folder_names_it(both: tuple[Path, Path], export: captune.Captioner) -> None:
    named = captune.Captioner.load(both[1] / "text.onnx", threads=2)
    assert named(PICTURES[1]) == export(PICTURES[1])
    assert (export.model.family, export.model.device, export.model.precision) == ("blip", "cpu", "fp32")
    sizes = [(both[1] / name).stat().st_size for name in ("vision.onnx", "text.onnx")]
    assert export.model.weights == sum(sizes)


def test_threads_are_those_asked_for(both: tuple[Path, Path]) -> None:
    before = torch.get_num_threads()
    try:
        captune.Captioner.load(both[0], threads=3, device="cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_share_a_session(export: captune.Captioner) -> None:
    alone = [export(data) for data in PICTURES]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(export, PICTURES)) == alone


def test_pictures_are_read_quickly(both: tuple[Path, Path], model: captune.Captioner, tmp_path: Path) -> None:
    pytest.importorskip("simplejpeg")
    noise((300, 200), 30).convert("RGB").resize((90, 60)).save(tmp_path / "a.jpg", quality=95)
    fast = captune.Captioner.load(both[1], preprocessing="fast").read(tmp_path / "a.jpg")
    assert np.abs(fast.astype(int) - model.read(tmp_path / "a.jpg")).max() <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "runs on the CPU"),
        ({"precision": "bf16"}, "numbers are fp32"),
        ({"quantize": "8bit"}, "numbers are fp32"),
        ({"decoder": "transformers"}, "transformers cannot run it"),
    ],
)
def test_options_that_do_not_fit_are_refused(both: tuple[Path, Path], options: dict[str, str], said: str) -> None:
    with pytest.raises(CaptuneError, match=said):
        captune.Captioner.load(both[1], **options)


def test_what_needs_the_model_says_so(both: tuple[Path, Path], export: captune.Captioner, tmp_path: Path) -> None:
    for work in (export.explain, export.inspect):
        with pytest.raises(CaptuneError, match="more of a model than its export holds") as caught:
            work(PICTURES[0])
        assert str(both[0]) in caught.value.hint
    with pytest.raises(CaptuneError, match="is an export"):
        captune.push(str(both[1]), "somebody/something", dry_run=True, out=tmp_path / "out", environment={})
    with pytest.raises(CaptuneError, match="is an export"):
        captune.train(tiny_folder(tmp_path), str(both[1]), tmp_path / "run", environment={}, max_steps=1)


def tiny_folder(into: Path) -> Path:
    """A prepared folder of one colour."""
    (into / "Images").mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (50 * number, 0, 0)).save(into / "Images" / f"{number}.png")
    lines = ["image,caption", *(f"{number}.png,a red square" for number in range(4))]
    (into / "captions.txt").write_text("\n".join(lines) + "\n")
    captune.prepare(into, into / "data", split="50/25/25", duplicates=False)
    return into / "data"


def _without_text(folder: Path) -> None:
    (folder / "text.onnx").unlink()


def _cut_off(folder: Path) -> None:
    data = (folder / "vision.onnx").read_bytes()
    (folder / "vision.onnx").write_bytes(data[: len(data) // 2])


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _of_the_future(folder: Path) -> None:
    path = folder / "captune-export.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target": "abacus"}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_without_text, "there is no text.onnx"),
        (_cut_off, "vision.onnx cannot be opened"),
        (_no_tokenizer, "tokenizer"),
        (_of_the_future, "'abacus'"),
    ],
)
def test_a_broken_export_is_told(
    both: tuple[Path, Path], tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    shutil.copytree(both[1], tmp_path / "x")
    harm(tmp_path / "x")
    with pytest.raises(CaptuneError, match=said) as caught:
        captune.Captioner.load(tmp_path / "x")
    assert caught.value.hint


def test_a_name_that_is_no_export_is_told_before_the_hub_is_asked(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="There is no export"):
        captune.Captioner.load(tmp_path / "none.onnx")
    (tmp_path / "alone.onnx").write_bytes(b"")
    with pytest.raises(CaptuneError, match="no captune-export"):
        captune.Captioner.load(tmp_path / "alone.onnx")


def test_it_is_measured_like_its_model(both: tuple[Path, Path], tiny_data: Path, tmp_path: Path) -> None:
    found = captune.evaluate(
        str(both[1]), tiny_data, against=str(both[0]), out=tmp_path, environment={},
        metrics=("bleu", "cider"), device="cpu", precision="fp32", resamples=0,
    )  # fmt: skip
    mine, theirs = found.reports.values()
    assert mine.scores == pytest.approx(theirs.scores, rel=1e-4)
    assert mine.scores["perplexity"] > 1
    assert mine.per_image[found.records[0].id] == pytest.approx(theirs.per_image[found.records[0].id], rel=1e-4)
    with pytest.raises(CaptuneError, match="--explain needs more"):
        captune.evaluate(str(both[1]), tiny_data, out=tmp_path, environment={}, explain=1)


def test_it_is_served(both: tuple[Path, Path], model: captune.Captioner, export: captune.Captioner) -> None:
    with running({"x": str(both[1]), "original": str(both[0])}) as serving, serving.client() as client:
        for name, captioner in (("x", export), ("original", model)):
            asked = {"image": encoded(PICTURES[2]), "model": name, "num_beams": 2}
            (caption,) = client.post("/v1/caption", json=asked).json()["captions"]
            assert caption["text"] == captioner(PICTURES[2], num_beams=2).text
        sampled = client.post("/v1/caption", json={"image": encoded(PICTURES[2]), "model": "x", "variations": 3})
        assert len(sampled.json()["captions"]) == 3
        refused = client.post("/v1/caption", json={"image": encoded(PICTURES[2]), "model": "x", "explain": True})
        assert refused.status_code == 422
        assert "export" in refused.json()["detail"]
        assert {each["family"] for each in client.get("/v1/models").json()["data"]} == {"blip"}


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`captune` in a Python where nothing of `captune[torch]` can be imported."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(OF_TORCH)!r}));"
        "from captune.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


def test_captions_without_torch(both: tuple[Path, Path], photos: Path, export: captune.Captioner) -> None:
    done = without_torch("caption", str(photos), "--model", str(both[1]), "--format", "json", "--quiet")
    assert done.returncode == 0, done.stderr
    said = [row["caption"] for row in json.loads(done.stdout)]
    assert said == [export(data).text for data in PICTURES]


def test_measures_without_torch(both: tuple[Path, Path], tiny_data: Path, tmp_path: Path) -> None:
    done = without_torch(
        "evaluate", str(both[1]), "--data", str(tiny_data), "--out", str(tmp_path / "e"), "--metrics", "bleu,cider"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "e" / "report.html").is_file()


def test_serves_without_torch(both: tuple[Path, Path]) -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(OF_TORCH)!r}));"
        "from fastapi.testclient import TestClient;"
        "from captune.core.config import resolve;"
        "from captune.server.server import create_app;"
        "app = create_app({'x': sys.argv[1]}, resolve('serve'), {});"
        "client = TestClient(app).__enter__();"
        "print(client.post('/v1/caption', json={'image': sys.argv[2]}).text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(both[1]), encoded(PICTURES[0])],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_is_a_memory_error(both: tuple[Path, Path]) -> None:
    """So that whoever halves batches can tell it from a broken graph."""
    program = (
        "import sys, resource, numpy as np; from captune.inference.runtime import ExportedModel;"
        "model = ExportedModel.load(sys.argv[1], threads=1);"
        "seen = np.zeros((60_000, 3, 32, 32), np.uint8);"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 150_000_000,) * 2);"
        "model.memory(seen)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(both[1])], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith("MemoryError")


@pytest.mark.parametrize(
    "arguments",
    [
        ["caption", "a.png", "--model", "org/name"],
        ["train", "--data", "data", "--model", "new:blip-tiny", "--out", "run"],
        ["match", "a.png", "--text", "a dog"],
        ["demo", "--out", "demo"],
        ["serve", "--model", "org/name", "--port", "0"],
        ["export", "org/name", "--out", "x"],
    ],
)
def test_a_missing_torch_is_told_in_one_way(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    done = without_torch(*arguments)
    assert done.returncode == 1
    assert "pip install 'captune[torch]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()


def test_families_are_named_without_torch() -> None:
    done = without_torch("models", "--json")
    assert done.returncode == 0, done.stderr
    assert {"blip", "git", "clip-gpt2"} <= {row["name"] for row in json.loads(done.stdout)}
