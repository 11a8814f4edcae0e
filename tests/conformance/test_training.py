"""Laws of the training loop: each a way in which plain fine-tuning scripts are silently wrong."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.runs import COMPLETE, Run
from captune.datasets.prepared import read_split
from captune.images.batches import read_pixels
from captune.inference import features
from captune.metrics.ngrams import DocumentFrequencies
from captune.models import FAMILIES
from copies import Copy
from recorded import RecordedProgress
from trained import QUICK, assert_same, train, weights


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_data, tmp_path_factory.mktemp("finished") / "run")


def test_a_run_leaves_what_it_promises(finished: Run) -> None:
    for name in ("config.yaml", "manifest.json", "history.jsonl", "splits.json", "train_metrics.json", "loss.png"):
        assert (finished.path / name).stat().st_size > 0, name
    assert [c.step for c in finished.checkpoints()] == [0, 4, 8]
    assert finished.manifest()["finished"] is True
    lines = finished.history()
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "eval_cider" in line] == [4, 8]
    assert finished.pointed("best-loss") in {"checkpoint-4", "checkpoint-8"}
    assert finished.pointed("best-metric") in {"checkpoint-4", "checkpoint-8"}


def test_checkpoints_load_with_plain_transformers(finished: Run) -> None:
    from PIL import Image
    from transformers import AutoProcessor, BlipForConditionalGeneration

    folder = finished.checkpoint("last").path
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    picture = Image.new("RGB", (50, 40), (200, 30, 30))
    inputs = processor(images=picture, return_tensors="pt")
    ids = model.generate(**inputs, generation_config=model.generation_config)
    theirs = processor.decode(ids[0], skip_special_tokens=True)
    ours = captune.Captioner.load(str(folder))(picture)
    assert ours.text == theirs.strip()


def test_accumulation_does_not_change_the_step(tiny_data: Path, tmp_path: Path) -> None:
    """1 image x 8 accumulations and 8 x 1: the same loss and the same weights after 8 steps."""
    shared = {"max_steps": 8, "eval_steps": 8, "logging_steps": 1, "captions_per_image": 1, "learning_rate": 1e-4}
    at_once = train(tiny_data, tmp_path / "a", **shared, batch_size=8, gradient_accumulation=1)
    in_parts = train(tiny_data, tmp_path / "b", **shared, batch_size=1, gradient_accumulation=8)
    losses = [[line["loss"] for line in run.history() if "loss" in line] for run in (at_once, in_parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, second = weights(at_once), weights(in_parts)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_logged_loss_is_the_plain_likelihood_whatever_the_smoothing(tiny_data: Path, tmp_path: Path) -> None:
    shared = {"max_steps": 1, "logging_steps": 1, "eval_steps": 1, "dropout": 0.0}
    plain = train(tiny_data, tmp_path / "a", **shared).history()[0]
    smooth = train(tiny_data, tmp_path / "b", **shared, label_smoothing=0.2).history()[0]
    assert plain["loss"] == plain["objective"]
    assert smooth["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert smooth["objective"] != pytest.approx(plain["loss"], rel=1e-4)


def test_an_epoch_shows_every_reference_of_every_picture(tiny_data: Path) -> None:
    from captune.datasets.prepared import read_split
    from captune.inference.batches import EpochOrder, make_examples
    from captune.models.blip import Blip

    records = read_split(tiny_data, "train")
    backbone = Blip.tiny([r for record in records for r in record.references])
    wanted = sorted((r.id, t) for r in records for t in (backbone.encode_reference(x, 40) for x in r.references)
                    for t in [t.tokens])  # fmt: skip
    for per_image in (0, 1, 2):
        examples = make_examples(records, backbone, max_tokens=40, per_image=per_image)
        seen = [examples[number] for _, number in EpochOrder(len(examples), 42)]
        assert sorted((v.record.id, e.tokens) for v in seen for e in v.references) == wanted


# -- resuming -----------------------------------------------------------------------------

AUGMENTED = {"crop": 0.3, "flip": True, "color_jitter": 0.2, "dropout": 0.1}
STOPPED = {**AUGMENTED, "max_steps": 24, "eval_steps": 5, "logging_steps": 1}


def start(warm: str, out: Path, **changed: Any) -> Copy:
    options = {"model": "new:blip-tiny", "out": out, "device": "cpu", **QUICK, **changed}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return Copy(warm, ["train", *(word for word in words if word != "True")])


def wait_for_step(run: Run, step: int, process: Copy) -> None:
    deadline = time.monotonic() + 90
    while not any(line.get("step", 0) >= step for line in run.history()):
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline, "the training did not get that far"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(warm: str, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training that nothing stops."""
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run")
    whole = start(warm, run.path, data=tiny_data, **STOPPED)
    assert whole.wait() == 0, whole.stderr
    return run


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_stopped_run_resumes_bit_for_bit(
    warm: str, tiny_data: Path, undisturbed: Run, tmp_path: Path, workers: int, number: int
) -> None:
    # Trainings of their own processes: loader workers are forks, and other tests leave threads in this one.
    run, whole = Run(tmp_path / "stopped"), undisturbed
    process = start(warm, run.path, data=tiny_data, **STOPPED, loader_workers=workers)
    wait_for_step(run, 7, process)
    process.send_signal(number)
    assert process.wait() == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    stopped_at = run.last()
    assert stopped_at is not None
    assert 0 < stopped_at.step < 24
    resumed = Copy(warm, ["train", "--resume", "--out", str(run.path)])
    assert resumed.wait() == 0, resumed.stderr
    assert_same(weights(run), weights(whole))
    assert run.history() == whole.history()
    assert all(run.pointed(name) == whole.pointed(name) for name in ("best-loss", "best-metric"))


def test_a_checkpoint_without_its_mark_or_with_a_short_file_does_not_count(tiny_data: Path, tmp_path: Path) -> None:
    from captune.training.loop.checkpoints import last_whole

    run = train(tiny_data, tmp_path / "run")
    newest, older = run.checkpoints()[-1], run.checkpoints()[-2]
    model = newest.path / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    found, damaged = last_whole(run)
    assert (found, list(damaged)) == (older, [newest.name])
    (older.path / COMPLETE).unlink()
    assert older not in run.checkpoints()


def test_not_a_number_stops_with_the_last_good_checkpoint(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from captune.models.blip import Blip

    calls = 0
    plain = Blip.token_losses

    def poisoned(self: Blip, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        found = plain(self, *args, **kwargs)
        calls += self.model.training
        return type(found)(found.nll, found.objective * (float("nan") if calls == 6 else 1.0), found.caption)

    monkeypatch.setattr(Blip, "token_losses", poisoned)
    with pytest.raises(CaptuneError, match="not finite at step 6"):
        train(tiny_data, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert [c.step for c in run.checkpoints()] == [0, 4]
    assert all(bool(torch.isfinite(value).all()) for value in weights(run).values())


def test_rotation_keeps_the_newest_and_the_best(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_data, tmp_path / "run", max_steps=12, eval_steps=1, keep_checkpoints=1, learning_rate=1e-2)
    kept = {c.name for c in run.checkpoints()}
    assert kept == {"checkpoint-0", "checkpoint-12", run.pointed("best-loss"), run.pointed("best-metric")}
    losses = {line["step"]: line["eval_loss"] for line in run.history() if "eval_loss" in line}
    assert run.pointed("best-loss") == f"checkpoint-{min(losses, key=lambda step: losses[step])}"


def test_early_stopping_ends_a_run_that_no_longer_gains(tiny_data: Path, tmp_path: Path) -> None:
    run = train(
        tiny_data, tmp_path / "run", max_steps=40, eval_steps=1, learning_rate=1e-9, best_metric="cider",
        early_stopping_patience=3,
    )  # fmt: skip
    assert run.checkpoints()[-1].step < 40
    assert run.manifest()["finished"] is True


def test_resuming_with_other_options_is_refused_and_harmless_ones_are_not(tiny_data: Path, finished: Run) -> None:
    with pytest.raises(UsageError, match="learning_rate"):
        captune.train(out=finished.path, resume=True, learning_rate=5.0, environment={})
    again = captune.train(out=finished.path, resume=True, logging_steps=1, environment={})
    assert again.metrics["steps"] == 8


def test_an_existing_folder_is_not_overwritten(tiny_data: Path, finished: Run, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="not empty") as caught:
        train(tiny_data, finished.path)
    assert "--resume" in caught.value.hint
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CaptuneError, match="not empty"):
        train(tiny_data, tmp_path)


def test_a_prompt_is_trained_saved_and_used(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_data, tmp_path / "run", train_prompt="there is")
    captioner = captune.Captioner.load(str(run.path))
    assert captioner.backbone.prompt == "there is"
    assert captioner.options.generation.max_new_tokens == 6


def test_captioning_defaults_travel_with_the_model(finished: Run) -> None:
    assert captune.Captioner.load(str(finished.path)).options.generation.num_beams == 1
    captioner = captune.Captioner.load(str(finished.path), num_beams=2, min_new_tokens=3)
    assert captioner.options.generation.num_beams == 2
    picture = finished.manifest()["data"] + "/../Images/00.png"
    assert len(captioner.captions(picture, num_captions=3)) == 3
    with pytest.raises(UsageError, match="longer than the longest"):
        captioner(picture, max_new_tokens=2)


# -- what a run chooses by, and what it leaves ----------------------------------------------


def test_a_metric_that_is_not_measured_cannot_choose_a_checkpoint(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CaptuneError, match=r"not measure cider, .* not among --validation-metrics") as error:
        train(tiny_data, tmp_path / "a", best_metric="cider", validation_metrics=["bleu"])
    assert "(bleu, loss)" in (error.value.hint or "")
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(CaptuneError, match=r"(?s)not measure meteor, .*captune\[meteor\]"):
        train(tiny_data, tmp_path / "a", best_metric="meteor")
    assert not (tmp_path / "a").exists()


def test_a_run_carries_the_document_frequencies_of_what_it_learned_from(finished: Run, tiny_data: Path) -> None:
    kept = DocumentFrequencies.find(str(finished.path))
    assert kept == DocumentFrequencies.of(
        (record.references for record in read_split(tiny_data, "train")), f"training references of {tiny_data.name}"
    )
    report = captune.evaluate(
        str(finished.path), tiny_data, out=finished.path.parent / "scores", document_frequencies=str(finished.path)
    ).reports[str(finished.path)]
    assert report.settings["document_frequencies"] == {"from": f"training references of {tiny_data.name}", "images": 12}
    assert 0 <= report.settings["captions"]["novel"] <= 1


# -- cached features ------------------------------------------------------------------------


def test_cached_features_train_the_same(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path / "cache"))
    once = {**QUICK, "freeze": "vision", "validation_images": 0, "environment": {}}
    plain = Run(captune.train(tiny_data, "new:blip-tiny", tmp_path / "plain", **once).run)
    progress = RecordedProgress()
    cached = Run(
        captune.train(tiny_data, "new:blip-tiny", tmp_path / "a", cache_features=True, progress=progress, **once).run
    )
    assert [text for text in progress.lines if text.startswith("Features of 16 images take")]
    first, second = weights(plain), weights(cached)
    for name, value in first.items():  # features are rounded to bf16
        torch.testing.assert_close(second[name], value, rtol=0.02, atol=2e-3)
    for name in ("loss", "eval_loss"):  # of training, and of validation, which takes cached features too
        losses = [[line[name] for line in run.history() if name in line] for run in (plain, cached)]
        assert losses[1] == pytest.approx(losses[0], rel=0.01)
    # Another run finds all of them, whatever the order of its images.
    progress = RecordedProgress()
    again = captune.train(tiny_data, "new:blip-tiny", tmp_path / "b", cache_features=True, progress=progress, **once)
    assert not [text for text in progress.lines if text.startswith("Features")]
    assert_same(weights(Run(again.run)), second)


def test_a_store_grows_by_whole_parts(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path))
    backbone = FAMILIES["blip"].tiny()
    backbone.model.eval()
    images = [record.image for record in read_split(tiny_data, "train")]
    made = features.cached_features(backbone, images[:7], part_size=5)
    (store,) = (tmp_path / "features").iterdir()
    assert len(list(store.glob("*.npy"))) == len(list(store.glob("*.json"))) == 2
    with torch.inference_mode():
        pixels = torch.from_numpy(read_pixels(images[3], backbone.pixels))[None]
        expected = backbone.image_features(pixels)[0].to(torch.bfloat16)
    assert torch.equal(torch.from_numpy(made[images[3]].copy()).view(torch.bfloat16), expected)
    # A part that was cut off, or has lost its list, is made again; what is whole stays.
    first = made[images[0]].copy()
    whole = sorted(store.glob("*.npy"))
    whole[0].write_bytes(whole[0].read_bytes()[:200])
    after = features.cached_features(backbone, images, part_size=5)
    assert np.array_equal(after[images[0]], first)
    assert len(after.rows) == 12
    # Other weights have another store.
    with torch.no_grad():
        backbone.parts()["vision"][0].add_(1)
    features.cached_features(backbone, images[:1])
    assert len(list((tmp_path / "features").iterdir())) == 2


@pytest.mark.parametrize("options", [{"flip": True, "freeze": "vision"}, {"crop": 0.2, "freeze": "vision"}, {}])
def test_features_that_would_change_are_not_cached(tiny_data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--cache-features"):
        train(tiny_data, tmp_path / "a", cache_features=True, **options)
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_named_before_anything_is_written(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path))
    backbone = FAMILIES["blip"].tiny()
    images = [record.image for record in read_split(tiny_data, "train")]
    with pytest.raises(CaptuneError, match="no room"):
        features.cached_features(backbone, images, spare=1 << 60)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
