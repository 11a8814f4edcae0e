"""The whole round on Flickr8k: a model of short captions, 200 corrections typed into the page, and `captune learn`.

    python benchmarks/learn_round.py OUT [--corrections 200] [--epochs 8] [--library 600]

A small BLIP from scratch learns references of at most 8 words. It drafts the captions of a library of other photos.
A script types a long reference (more than 8 words) over each of 200 drafts, in the real page, in Chromium. The model
learns from them; its round tests it on the corrections that were held out. Then all drafts that no person touched are
written anew, and are held against long references of the same photos, which nobody typed. Folders that are there are
used again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from playwright.sync_api import Page, sync_playwright

from captune.library.learn import rounds
from captune.library.library import Library
from captune.metrics.measure import measure
from coco_captions import DATA, References, flickr8k
from edit_server import edit_server
from machine import machine, markdown

SHORT = 8  # words
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TRAINING = (
    "--captions-per-image", 1, "--batch-size", 64, "--dropout", 0.2, "--learning-rate", "5e-4", "--adam-beta2", 0.98,
    "--warmup-steps", 100, "--label-smoothing", 0.1, "--crop", 0.5, "--flip", "--eval-batch-size", 64, "--num-beams", 3,
    "--max-new-tokens", 20,
)  # fmt: skip
LEARNING = (
    "--epochs", 12, "--batch-size", 16, "--learning-rate", "2e-4", "--flip", "--num-beams", 3, "--max-new-tokens", 24,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corrections", type=int, default=200)
    parser.add_argument("--library", type=int, default=600, help="photos of the library")
    parser.add_argument("--epochs", type=int, default=8, help="of the first model")
    chosen = parser.parse_args()
    print(machine("captune", "torch", "playwright"), flush=True)
    out, references = chosen.out, flickr8k()
    out.mkdir(parents=True, exist_ok=True)
    model = first_model(out, references, chosen.epochs)
    long = long_references(references, chosen.library)
    photos = lay_library(out, model, long)
    before = drafts(photos)
    if not person_wrote(photos):
        correct(photos, dict(list(long.items())[: chosen.corrections]))
    corrected = person_wrote(photos)
    untouched = {name: long[name] for name in long if name not in corrected}
    command("learn", photos, "--model", model, *LEARNING)
    found = rounds(photos)[-1]
    before = {name: text for name, text in before.items() if name in untouched}
    scores = [compared(before, untouched)]
    command("library", "caption", photos, "--model", found["run"], "--by", "model")
    after = {name: text for name, text in drafts(photos).items() if name in untouched}
    scores.append(compared(after, untouched))
    report(found, corrected, before, after, scores)


def command(*words: object) -> None:
    """`captune …`, and the seconds that it took."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "captune", *map(str, words), "--quiet"], check=True)
    print(f"captune {' '.join(map(str, words[:2]))}: {time.monotonic() - started:.0f} s", flush=True)


def photos_of(names: set[str], folder: Path) -> None:
    """Flickr8k's photos of 128 × 128 pixels by these names."""
    folder.mkdir()
    with tarfile.open(DATA / "flickr8k/images-128.tar") as archive:
        for member in archive:
            name = Path(member.name).name
            if name in names and (data := archive.extractfile(member)):
                (folder / name).write_bytes(data.read())


def first_model(out: Path, references: References, epochs: int) -> Path:
    """A small BLIP that learned short references of the photos of the official train split."""
    run, photos = out / "short", out / "train-photos"
    if run.is_dir():
        return run
    train = (DATA / "flickr8k/Flickr_8k.trainImages.txt").read_text().split()
    short = {name: [text for text in references[name] if len(text.split()) <= SHORT] for name in train}
    short = {name: texts for name, texts in short.items() if texts}
    photos_of(set(short), photos)
    lines = [f"{name}#{number}\t{text}" for name, texts in short.items() for number, text in enumerate(texts)]
    (out / "short.txt").write_text("\n".join(lines) + "\n")
    command("prepare", out / "short.txt", "--images", photos, "--split", "90/5/5", "--out", out / "data")
    command(
        "train", "--data", out / "data", "--model", "new:blip-small", "--epochs", epochs, *TRAINING, "--out", run,
    )  # fmt: skip
    return run


def long_references(references: References, count: int) -> References:
    """Photos of the official dev and test splits, each with its references of more than 8 words."""
    names = [
        name
        for split in ("dev", "test")
        for name in (DATA / f"flickr8k/Flickr_8k.{split}Images.txt").read_text().split()
    ]
    long = {name: [text for text in references[name] if len(text.split()) > SHORT] for name in names}
    chosen = [name for name in names if long[name]]
    random.Random(0).shuffle(chosen)
    return {name: long[name] for name in chosen[:count]}


def lay_library(out: Path, model: Path, long: References) -> Path:
    photos = out / "photos"
    if not photos.is_dir():
        photos_of(set(long), photos)
        command("library", "add", photos)
        command("library", "caption", photos, "--model", model)
    return photos


def drafts(photos: Path) -> dict[str, str]:
    """The drafts of a model that stand in a library, by the image's path."""
    rows = Library(photos).database.connection.execute(
        "SELECT i.path, c.text FROM captions c JOIN images i ON i.id = c.image "
        "WHERE c.current AND c.written_by = 'model' ORDER BY i.path"
    )
    return {row["path"]: row["text"] for row in rows}


def person_wrote(photos: Path) -> dict[str, str]:
    rows = Library(photos).database.connection.execute(
        "SELECT i.path, c.text FROM captions c JOIN images i ON i.id = c.image "
        "WHERE c.current AND c.written_by = 'person' ORDER BY i.path"
    )
    return {row["path"]: row["text"] for row in rows}


def correct(photos: Path, texts: References) -> None:
    """Type the first long reference over the draft of each image, in the page, by keyboard alone."""
    with edit_server(photos) as (url, _), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/#order=path")
        started = time.monotonic()
        rows = Library(photos).database.connection.execute("SELECT id, path FROM images")
        type_all(page, {name: found[0] for name, found in texts.items()}, {row["id"]: row["path"] for row in rows})
        print(f"{len(texts)} corrections typed: {time.monotonic() - started:.0f} s", flush=True)
        browser.close()


def type_all(page: Page, texts: dict[str, str], names: dict[int, str]) -> None:
    """Go through the grid in the order of paths, and write where there is something to write; names are by image."""
    page.locator(".card").first.focus()
    left = dict(texts)
    while left:
        card = page.locator('.card[aria-selected="true"]')
        card.locator("img[src]").wait_for()
        name = names[int(card.get_attribute("data-image") or 0)]
        typing = card.locator("textarea").count() > 0  # Ctrl+Enter goes on to the next caption
        if name in left:
            if not typing:
                page.keyboard.press("e")
            card.locator("textarea").fill(left.pop(name))
            page.keyboard.press("Control+Enter")
        else:
            if typing:
                page.keyboard.press("Escape")
            page.keyboard.press("ArrowRight")
    page.locator("#saved[data-is=saved]").wait_for()


def compared(texts: dict[str, str], long: References) -> dict[str, float]:
    """CIDEr-D, METEOR and TER of these captions against the long references of their images."""
    return measure(texts, {name: long[name] for name in texts}, metrics=("cider", "meteor", "ter")).scores


def report(
    found: dict[str, Any], corrected: dict[str, str], before: dict[str, str], after: dict[str, str],
    scores: list[dict[str, float]],
) -> None:  # fmt: skip
    def words(texts: dict[str, str]) -> float:
        return mean(len(text.split()) for text in texts.values())

    print(f"{len(corrected)} corrections of {words(corrected):.1f} words: learned from {found['train']}, "
          f"held out {found['images']}: {found['verdict']}")  # fmt: skip
    former, new, differences = found["former"], found["new"], found["differences"]
    rows = [
        (
            name,
            f"{former[name]:.4f}",
            f"{new[name]:.4f}",
            f"{one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]",
        )
        for name, one in differences.items()
    ]
    print(markdown(("score, 0–1", "former", "new", "difference [95 %]"), rows))
    print(f"Drafts of {len(after)} photos that no person touched, before and after: {words(before):.1f} and "
          f"{words(after):.1f} words, {sum(before[name] != after[name] for name in after)} changed")  # fmt: skip
    print(markdown(
        ("score of these, 0–1", "before", "after"),
        [(name, f"{scores[0][name]:.4f}", f"{scores[1][name]:.4f}") for name in scores[0]],
    ))  # fmt: skip
    for name in list(after)[:5]:
        print(f"{name}: {before[name]!r} → {after[name]!r}")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
