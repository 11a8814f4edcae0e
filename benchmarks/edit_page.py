"""`captune edit` with many images in Chromium: first paint, scrolling, search, find and replace, changing all; memory.

    python benchmarks/edit_page.py [--images 100000]

The rows are made up: a caption of eleven words each, every tenth with a word to replace; the files are links to 300
drawn images. Scrolling is by the wheel; a long frame is one of more than 50 ms.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

from captune.library.library import Library
from edit_server import edit_server
from machine import machine

WORDS = (
    "a", "dog", "cat", "child", "man", "woman", "runs", "jumps", "sits", "red", "blue", "snow", "beach", "grass",
)  # fmt: skip
FRAMES = """() => new Promise((resolve) => {
  const gaps = []; let last = performance.now();
  const tick = (now) => { gaps.push(now - last); last = now;
    if (gaps.length < 300 && !window.enough) requestAnimationFrame(tick); else resolve(gaps); };
  requestAnimationFrame(tick);
})"""


def lay(folder: Path, count: int) -> None:
    chance = random.Random(1)
    drawn = []
    for number in range(300):
        drawn.append(folder / f"drawn-{number}.png")
        Image.new("RGB", (300, 200), (number % 256, 120, 80)).save(drawn[-1])
    photos = folder / "photos"
    photos.mkdir()
    paths = [f"{number // 1000:03d}/{number:06d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        (photos / path).parent.mkdir(exist_ok=True)
        os.link(drawn[number % len(drawn)], photos / path)
    rows = ((number + 1, path, f"d{number}") for number, path in enumerate(paths))
    texts = (
        (number, " ".join(chance.choices(WORDS, k=11)) + " dgo" * (number % 10 == 0), chance.random())
        for number in range(1, count + 1)
    )
    with Library(photos, create=True).database.write() as connection:
        connection.executemany(
            "INSERT INTO images(id, path, digest, bytes, modified, added) VALUES (?, ?, ?, 1, 1, '')", rows
        )
        connection.executemany(
            "INSERT INTO captions(image, text, written_by, model, confidence, written) "
            "VALUES (?, ?, 'model', 'm', ?, '')",
            texts,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    count = parser.parse_args().images
    print(machine("captune", "playwright"), flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-edit-page-") as name:
        lay(Path(name), count)
        with edit_server(Path(name) / "photos") as (url, pid):
            measure(url, pid)


def measure(url: str, pid: int) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--enable-precise-memory-info"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        started = time.monotonic()

        def timed(what: str) -> None:
            nonlocal started
            print(f"{what}: {time.monotonic() - started:.2f} s", flush=True)
            started = time.monotonic()

        page.goto(url)
        page.locator(".card .words").first.wait_for()
        timed("captions in the grid, doubtful first")
        page.locator(".card img[src]").first.wait_for()
        page.mouse.move(600, 500)
        frames = page.evaluate_handle(FRAMES.replace("() =>", "() => { window.frames = ", 1) + "; }")
        assert frames
        for _ in range(150):
            page.mouse.wheel(0, 400)
        page.evaluate("window.enough = true")
        gaps = sorted(page.evaluate("window.frames"))
        print(f"150 turns of the wheel: median frame {gaps[len(gaps) // 2]:.0f} ms, longest {gaps[-1]:.0f} ms, "
              f"{sum(gap > 50 for gap in gaps)} of {len(gaps)} above 50 ms")  # fmt: skip
        started = time.monotonic()
        page.locator(".card").first.focus()
        page.keyboard.press("End")
        page.locator('.card[aria-selected="true"] img[src]').wait_for()
        timed("the last image")
        page.get_by_label("Words of captions").fill("snow beach")
        page.get_by_text(" of ").first.wait_for()
        timed("search by two words, with 0.3 s of waiting for more")
        page.get_by_label("Words of captions").fill("")
        page.locator(".card img[src]").first.wait_for()
        page.wait_for_timeout(1500)
        page.get_by_role("button", name="Find and replace").click()
        started = time.monotonic()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Find", exact=True).fill("dgo")
        dialog.get_by_label("Replace with").fill("dog")
        button = dialog.get_by_role("button", name=re.compile(r"Change \d"))
        button.wait_for()
        timed("find and replace: what would change")
        button.click()
        page.get_by_text("Undo: Ctrl+Z").wait_for()
        timed("made")
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("Undone: replace").wait_for()
        timed("undone")
        page.get_by_role("button", name="Change all").click()
        button = page.get_by_role("dialog").get_by_role("button", name=re.compile(r"Approve \d"))
        button.wait_for()
        timed("approve all: of how many")
        button.click()
        page.get_by_text("Undo: Ctrl+Z").wait_for()
        timed("made")
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("Undone: approve all").wait_for()
        timed("undone")
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        print(f"the page's heap: {heap:.0f} MB; the server: {psutil.Process(pid).memory_info().rss / 1e6:.0f} MB")
        browser.close()


if __name__ == "__main__":
    main()
