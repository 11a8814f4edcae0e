"""What pages assume to lie in the reader's folder, and on the Hub: small stand-ins, each made when first asked for."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock

from captune.core.files.paths import MARK, mark_written
from serving import save_tiny

HUB = {
    "Salesforce/blip-image-captioning-base": "blip",
    "Salesforce/blip-itm-base-coco": "matcher",
    "Salesforce/blip-vqa-base": "blip-vqa",
    "Salesforce/blip2-opt-2.7b": "blip-2",
}
VLM = "Qwen/Qwen2.5-VL-3B-Instruct"
TRANSLATORS = {
    "Helsinki-NLP/opus-mt-en-de": "marian",
    "facebook/m2m100_418M": "m2m100",
    "google/madlad400-3b-mt": "madlad",
}


class Desk:
    """Lays things by their name into a reader's folder; `folder` keeps the first of each, for all test workers."""

    def __init__(self, folder: Path, short: dict[str, str]) -> None:
        self.folder, self.short = folder, short
        self.lock = FileLock(f"{folder}.lock")

    def lay(self, name: str, into: Path) -> None:
        """Copy a thing to its place, over what is there."""
        source, target = self.thing(name), into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, symlinks=True)
            for mark in target.rglob(MARK):  # as if it had been made there
                mark_written(mark.parent, json.loads(mark.read_text("utf-8")))
        else:
            shutil.copy(source, target)

    def thing(self, name: str) -> Path:
        """The first of its kind."""
        kept = self.folder / name.rstrip("/")
        with self.lock:  # of this object, so that one thing may ask for another
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                THINGS[name.rstrip("/")](self, kept)
        return kept

    def captions(self) -> dict[str, list[str]]:
        """References of `photos/` by file name."""
        found: dict[str, list[str]] = {}
        with open(self.thing("photos") / "captions.txt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["image"], []).append(row["caption"])
        return found


def fill_hub(cache: Path) -> None:
    """Tiny models with random weights under the names that pages use, as the Hub's own cache keeps them."""
    from dual_encoders import save_dual
    from model_pairs import save_gpt2
    from tiny_vlms import lively
    from translators import KINDS

    makers: dict[str, Callable[[Path], object]] = {
        **{name: partial(save_tiny, family=family) for name, family in HUB.items()},
        **{name: KINDS[kind] for name, kind in TRANSLATORS.items()},
        VLM: lambda folder: lively("qwen2_5_vl").save(folder),
        "openai/clip-vit-base-patch32": partial(save_dual, kind="clip"),
        "openai-community/gpt2": partial(save_gpt2, texts=("a red circle", "two dogs play", "a man on a bike .")),
    }
    for name, make in makers.items():
        kept = cache / f"models--{name.replace('/', '--')}"
        (kept / "refs").mkdir(parents=True)
        (kept / "refs" / "main").write_text("tiny")
        (kept / "snapshots").mkdir()
        make(kept / "snapshots" / "tiny")


def scenes(desk: Desk, folder: Path) -> None:
    from captune.datasets.scenes import write_flickr8k_folder

    write_flickr8k_folder(folder, train=12, dev=4, test=4, size=48)


def photos(desk: Desk, folder: Path) -> None:
    """Images and their captions side by side."""
    drawn = desk.thing("flickr8k")
    shutil.copytree(drawn / "Images", folder)
    shutil.copy(drawn / "captions.txt", folder)


def photo(desk: Desk, file: Path) -> None:
    image = sorted(desk.thing("photos").glob("*.jpg"))[int(len(file.stem) == 1)]
    shutil.copy(image, file)


def pictures(desk: Desk, folder: Path) -> None:
    """Pictures alone."""
    folder.mkdir()
    for image in sorted(desk.thing("photos").glob("*.jpg"))[:4]:
        shutil.copy(image, folder)


def data(desk: Desk, folder: Path) -> None:
    from captune import prepare

    prepare(desk.thing("flickr8k"), folder, split="flickr8k", duplicates=False)


def run(desk: Desk, folder: Path) -> None:
    """A run that was evaluated."""
    from captune import evaluate, train

    split = desk.thing("data")
    train(split, "new:blip-tiny", folder, environment=desk.short, seed=len(folder.name), eval_steps=1)
    evaluate(str(folder), split, against=f"{folder}@checkpoint-0", environment=desk.short)


def captions_json(desk: Desk, file: Path) -> None:
    said = [{"image_id": number, "caption": texts[0]} for number, texts in enumerate(desk.captions().values())]
    file.write_text(json.dumps(said))


def annotations(desk: Desk, file: Path) -> None:
    known = list(desk.captions().items())
    images = [{"id": number, "file_name": name} for number, (name, _) in enumerate(known)]
    said = [{"image_id": number, "caption": text} for number, (_, texts) in enumerate(known) for text in texts]
    marked = [{"id": number, **one} for number, one in enumerate(said)]
    file.write_text(json.dumps({"images": images, "annotations": marked}))


def exported(desk: Desk, folder: Path) -> None:
    from captune import export

    export(str(desk.thing("runs/x")), folder, to="onnx")


def captions_jsonl(desk: Desk, file: Path) -> None:
    which = int(file.stem.endswith("b"))
    rows = [{"image": name, "caption": texts[which]} for name, texts in desk.captions().items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(desk: Desk, file: Path) -> None:
    """`image,caption`: all references, or the first of each image."""
    most = 1 if file.stem == "captions" else None
    with open(file, "w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("image", "caption"))
        rows.writerows((name, text) for name, texts in desk.captions().items() for text in texts[:most])


def token(desk: Desk, file: Path) -> None:
    lines = [f"{name}#{n}\t{text}\n" for name, texts in desk.captions().items() for n, text in enumerate(texts)]
    file.write_text("".join(lines))


def labels(desk: Desk, file: Path) -> None:
    file.write_text("a red circle\na blue square\nsomething else\n")


def mkdocs(desk: Desk, folder: Path) -> None:
    """A site in Markdown whose images have no texts, with a page of HTML."""
    shutil.copytree(desk.thing("more-photos"), folder / "images")
    names = sorted(image.name for image in (folder / "images").iterdir())
    folder.joinpath("index.md").write_text("# Dogs\n\n" + "".join(f"![](images/{name})\n\n" for name in names[:3]))
    folder.joinpath("about.html").write_text(f"<title>About</title>\n<p>Us: <img src='/images/{names[3]}'></p>\n")


def vqa(desk: Desk, folder: Path) -> None:
    shutil.copytree(desk.thing("more-photos"), folder / "train2014")
    questions, answers = [], []
    for number, image in enumerate(sorted((folder / "train2014").iterdir())):
        image.rename(image.with_name(f"COCO_train2014_{number:012}.jpg"))
        questions.append({"question_id": number, "image_id": number, "question": "what is it?"})
        answers.append({"question_id": number, "image_id": number, "answers": [{"answer": "a circle"}] * 3})
    (folder / "v2_OpenEnded_mscoco_train2014_questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "v2_mscoco_train2014_annotations.json").write_text(json.dumps({"annotations": answers}))


def weights(desk: Desk, file: Path) -> None:
    """The tiny BLIP of the Hub as a training script keeps it: the weights alone."""
    import torch
    from safetensors.torch import load_file

    save_tiny(file.with_name("blip-of-weights"))
    torch.save({"model_state_dict": load_file(file.with_name("blip-of-weights") / "model.safetensors")}, file)


def film(desk: Desk, file: Path) -> None:
    from films import drawn, shot, write_film

    write_film(file, [frame for seed in (1, 2) for frame in shot(drawn(seed), 1.5)])


def films(desk: Desk, folder: Path) -> None:
    folder.mkdir()
    shutil.copy(desk.thing("film.mp4"), folder)


THINGS: dict[str, Callable[[Desk, Path], None]] = {
    "flickr8k": scenes, "Flickr8k": scenes, "photos": photos, "more": pictures, "more-photos": pictures,
    "photo.jpg": photo, "a.jpg": photo, "b.jpg": photo, "data": data, "web-pairs": data, "runs/x": run, "runs/y": run,
    "blip.onnx": exported, "captions.json": captions_json, "annotations.json": annotations,
    "model-a.jsonl": captions_jsonl,
    "model-b.jsonl": captions_jsonl, "refs.csv": table, "captions.csv": table, "Flickr8k.token.txt": token,
    "labels.txt": labels, "vqa": vqa, "film.mp4": film, "a.mp4": film, "b.mkv": film, "films": films,
    "weights_best.pt": weights, "docs": mkdocs,
}  # fmt: skip
