"""`captune edit` in a real browser: by keyboard alone, in two tabs, with the server gone; and killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

import captune
from browsing import serious
from captune.core.options.library import EditOptions
from captune.datasets.prepared import read_prepared, read_split
from captune.jobs.shards import SHARD_FORMATS
from captune.library.history import Draft, editing
from captune.library.library import Library
from captune.library.listing import keyword_counts
from captune.library.vectors import VectorFile
from captune.server.connections import Connection
from captune.server.editor.app import create_editor
from data_sets import draw, known, lay_job, open_job, prepare

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not opened")
COUNT = 300


def lay(folder: Path, count: int) -> Library:
    """A library of small images, each with a draft by `base`, every third with one by `large` as well."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (30, 20), (number % 256, 200, 50)).save(folder / f"{number:04d}.png")
    library = Library(folder, create=True)
    library.add()
    with library.database.write() as connection:
        connection.execute(
            "INSERT INTO captions(image, text, written_by, model, confidence, written) "
            "SELECT id, 'a dgo number ' || id, 'model', 'base', 0.9 - id * 0.001, '' FROM images ORDER BY id"
        )
        connection.execute(
            "INSERT INTO captions(image, text, written_by, model, confidence, written) "
            "SELECT id, 'large dog ' || id, 'model', 'large', 0.95, '' FROM images WHERE id % 3 = 0"
        )
    return library


class Server:
    """The editor at a port, which can be ended and started again."""

    def __init__(self, library: Library) -> None:
        self.library, self.port = library, 0
        self.start()

    def start(self) -> None:
        models = {"m": lambda paths: [Draft("drafted again", "m", flags=("cut",)) for _ in paths]}
        app = create_editor(self.library, EditOptions(who="ann"), models=models)
        config = uvicorn.Config(
            app, port=self.port, http=Connection, log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        end = time.monotonic() + 30
        while not self.server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    def texts(self, image: int) -> list[tuple[str, str]]:
        rows = self.library.database.connection.execute(
            "SELECT text, status FROM captions WHERE image = ? AND current ORDER BY id", (image,)
        )
        return [tuple(row) for row in rows]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(lay(tmp_path_factory.mktemp("library") / "photos", COUNT))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(20_000)
    yield open_page(context.new_page(), server.url)
    context.close()


def open_page(page: Page, url: str) -> Page:
    page.errors = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    page.goto(url + "#order=path")
    page.locator(".card img[src]").first.wait_for()
    saved(page)
    return page


def saved(page: Page) -> None:
    page.locator("#saved[data-is=saved], #saved:not([data-is])").get_by_text("All is saved").wait_for()


def current(page: Page) -> str:
    return page.locator('.card[aria-selected="true"] .words').inner_text()


@needs_browser
def test_captions_are_corrected_by_keyboard_alone(page: Page, server: Server) -> None:
    press = page.keyboard.press
    page.locator(".card").first.focus()
    press("ArrowRight")
    press("e")
    page.locator(".card textarea").wait_for()
    press("Control+a")
    page.keyboard.type("a dog that was corrected")
    press("Control+Enter")  # goes on to the next one
    page.locator('[data-image="3"] textarea').wait_for()
    press("Escape")
    page.locator('[data-image="2"] .approved').wait_for()
    assert server.texts(2) == [("a dog that was corrected", "approved")]
    press("a")
    page.locator('[data-image="3"] .approved').wait_for()
    press("r")
    page.locator('[data-image="4"] .rejected').wait_for()
    press("m")
    page.locator('[data-image="5"] .mark').wait_for()
    for _ in range(4):
        press("Control+z")
    page.locator('[data-image="2"] .draft').wait_for()
    page.get_by_text("Undone: correct a caption (1 image)").wait_for()
    assert current(page) == "a dgo number 2"
    press("Control+Shift+z")
    page.locator('[data-image="2"] .approved').wait_for()
    press("End")
    page.locator(f'[data-image="{COUNT}"][aria-selected="true"] img[src]').wait_for()
    assert page.locator(".card").count() < 80
    press("Home")
    press("?")
    page.get_by_role("dialog").get_by_text("approve the caption and go on").wait_for()
    press("Escape")
    assert page.errors == []  # type: ignore[attr-defined]


@needs_browser
def test_one_of_several_captions_is_taken_and_a_model_captions_again(page: Page, server: Server) -> None:
    page.locator('[data-image="9"] .picture').dblclick()
    page.get_by_role("heading", name="0008.png").wait_for()
    page.keyboard.press("2")
    page.locator(".caption.approved").wait_for()
    assert server.texts(9) == [("a dgo number 9", "rejected"), ("large dog 9", "approved")]
    page.keyboard.press("g")
    page.locator(".caption .flag").get_by_text("cut").wait_for()
    page.keyboard.press("k")
    page.keyboard.type("beach, snow")
    page.keyboard.press("Enter")
    page.get_by_label("Remove the keyword snow").wait_for()
    field = page.locator(".caption.approved textarea")
    field.fill("a large dog")
    page.locator(".caption.approved").get_by_role("button", name="Reject").click()  # the text is saved, then rejected
    page.locator(".caption.rejected textarea").first.wait_for()
    page.locator(".caption.rejected").nth(1).wait_for()
    assert ("a large dog", "rejected") in server.texts(9)
    page.keyboard.press("h")
    page.get_by_text("ann · take a caption").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(".card").first.wait_for()
    assert page.errors == []  # type: ignore[attr-defined]


@needs_browser
def test_every_change_of_find_and_replace_is_shown_first(page: Page, server: Server) -> None:
    page.get_by_label("Words of captions").fill("number 2*")
    page.get_by_text(f"of {COUNT} images").wait_for()
    page.get_by_role("button", name="Find and replace").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("What to do").select_option("regex")
    dialog.get_by_label("Find", exact=True).fill(r"(\w+) number (20\d)$")
    dialog.get_by_label("Replace with").fill(r"dog no. \2")
    dialog.get_by_text("10 captions of").wait_for()
    changed = dialog.locator("li").first.locator("del, ins").all_inner_texts()
    assert [text.strip() for text in changed] == ["dgo number", "dog no."]
    dialog.get_by_role("checkbox", name="Change the caption of 0199.png").uncheck()
    dialog.get_by_role("button", name="Change 9 captions").click()
    page.get_by_text("9 images changed.").wait_for()
    assert server.texts(200)[0] == ("a dgo number 200", "draft")
    assert server.texts(201)[0][0] in ("a dog no. 201", "large dog 201")
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Undone: replace").wait_for()
    assert server.texts(205)[0] == ("a dgo number 205", "draft")


@pytest.fixture
def sets(tmp_path: Path) -> Iterator[list[Server]]:
    """The editors of a prepared folder of three images with two references each, and of a job."""
    paths = draw(tmp_path / "photos", 3)
    texts = [[f"a dgo {number}", f"two dgos {number}"] for number in range(3)]
    first, second, third = zip(paths, texts, strict=True)
    data = prepare(tmp_path / "data", {"train": dict([first, second]), "val": dict([third])})
    library = known(captune.Library(data, create=True), paths)
    servers = [Server(library), Server(open_job(lay_job(tmp_path)))]
    yield servers
    for server in servers:
        server.stop()


@needs_browser
def test_data_sets_and_jobs_are_edited_and_saved_into_their_files(browser: Browser, sets: list[Server]) -> None:
    data, job = (server.library.folder for server in sets)
    before = read_prepared(data).digest
    context = browser.new_context(viewport={"width": 820, "height": 900})
    page = open_page(context.new_page(), sets[0].url)
    page.locator(".card .picture").first.dblclick()
    page.get_by_label("Caption 2", exact=True).locator("textarea").fill("two dogs 0")
    page.get_by_role("button", name="Write another caption").click()
    page.get_by_label("New caption").fill("a third one")
    page.keyboard.press("Escape")
    page.get_by_label("Split", exact=True).last.select_option("val")  # the text is saved first
    page.get_by_label("Caption 3", exact=True).locator("textarea").wait_for()
    assert page.get_by_role("button", name="Take this one").count() == 0  # all of them are references
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="1.png").wait_for()
    page.get_by_label("Caption 1", exact=True).get_by_role("button", name="Reject").click()
    page.locator(".caption.rejected").wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Split", exact=True).first.select_option("val")
    page.get_by_text("2 of 3 images").wait_for()
    page.get_by_text("not all is in the data set yet").wait_for()
    page.get_by_label("Split", exact=True).first.select_option("")
    page.get_by_text("3 images · 6 approved").wait_for()
    save = page.get_by_role("button", name="Save to the data set")
    save.click()
    page.get_by_text("Written into the data set: 2 images changed.").wait_for()
    assert [record.references for record in read_split(data, "train")] == [("two dgos 1",)]
    assert [record.references for record in read_split(data, "val")] == [
        ("a dgo 0", "two dogs 0", "a third one"), ("a dgo 2", "two dgos 2"),
    ]  # fmt: skip
    page.get_by_role("button", name="Change all").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("What to do").select_option("split")
    dialog.get_by_label("Split (none: in no split)").fill("none")
    dialog.get_by_role("button", name="Put 3 images into it").click()
    save.click()
    page.get_by_text("No image would be left in any split.").wait_for()
    for _ in range(5):
        page.get_by_role("button", name="Undo").click()
    page.get_by_text("Undone: correct a caption (1 image)").wait_for()
    save.click()
    page.get_by_text("Written into the data set").wait_for()
    assert read_prepared(data).digest == before
    assert page.errors == []  # type: ignore[attr-defined]

    (job.parent / "photos" / "3.png").unlink()
    page = open_page(page, sets[1].url)
    page.locator('[data-image="4"] .problem').get_by_text("there is no such file").wait_for()
    page.locator('[data-image="1"] .text').click()
    page.locator(".card textarea").fill("a dog 0")
    page.get_by_role("button", name="Save to the job").click()  # the text is saved first
    page.get_by_text("Written into the job: 1 image changed.").wait_for()
    assert page.get_by_label("Split", exact=True).first.is_hidden()
    row = next(SHARD_FORMATS["jsonl"].decode((job / "captions-00000.jsonl").read_bytes(), ""))
    assert ([caption.text for caption in row.captions], row.is_corrected) == (["a dog 0"], True)
    assert page.errors == []  # type: ignore[attr-defined]
    context.close()


class Matcher:
    """An embedder of a library whose vectors of texts are that of image 100."""

    def __init__(self, library: Library) -> None:
        self.file = VectorFile(library.database, "m", "", 2)
        angles = np.arange(1, COUNT + 1) * np.pi / COUNT
        self.rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
        self.file.add(range(1, COUNT + 1), self.rows)

    def vectors_of(self, texts: list[str]) -> np.ndarray:
        return np.repeat(self.rows[99:100], len(texts), 0)


@needs_browser
def test_images_are_found_by_meaning_and_changed_all_at_once(page: Page, server: Server) -> None:
    library = server.library
    mode = page.get_by_label("Search", exact=True)
    assert mode.is_hidden()  # there are no vectors
    library._embedders["m"] = Matcher(library)  # type: ignore[assignment]
    page.reload()
    mode.select_option("meaning")
    page.get_by_label("What to search (/)").fill("a dog")
    page.locator('[data-place="0"][data-image="100"] img[src]').wait_for()
    page.locator('[data-image="102"] .picture').dblclick()
    page.get_by_role("button", name="Images like this one (L)").click()
    page.locator('[data-place="0"][data-image="102"] img[src]').wait_for()
    count, drafts = library.database.connection.execute(
        "SELECT count(DISTINCT image), count(iif(status = 'draft', 1, NULL)) FROM captions "
        "WHERE current AND model = 'large'"
    ).fetchone()
    page.get_by_label("Written by").select_option("large")
    page.get_by_text(f"{count} of {COUNT} images").wait_for()
    page.keyboard.press("Escape")
    page.locator(".card").first.focus()
    page.keyboard.press("b")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=f"Approve {drafts} captions").wait_for()
    dialog.get_by_label("What to do").select_option("add")
    dialog.get_by_label("Keywords").fill("near, far")
    dialog.get_by_role("button", name=f"Add to {count} images").click()
    page.locator('[data-image="102"] .keywords').get_by_text("far, near").wait_for()
    assert dict(keyword_counts(library.database.connection))["near"] == count
    with editing(Library(library.folder).database, "bob", "elsewhere") as editor:  # as another process does
        editor.set_mark(105, "seen by bob")
        marks = ((str(number),) for number in range(21_000))  # more than is remembered: all is loaded again
        editor.connection.executemany("UPDATE images SET mark = ? WHERE id = 1", marks)
    page.locator('[data-image="105"] .mark').get_by_text("seen by bob").wait_for()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text(f"Undone: add “near, far” ({count} images)").wait_for()
    assert "near" not in dict(keyword_counts(library.database.connection))
    page.get_by_role("button", name="end this search").click()
    page.get_by_label("Order").wait_for()
    assert page.errors == []  # type: ignore[attr-defined]


@needs_browser
def test_two_tabs_see_both_texts_and_text_outlives_the_server(page: Page, server: Server) -> None:
    other = open_page(page.context.new_page(), server.url)
    for tab, text in ((page, "the first"), (other, "the second")):
        tab.locator('[data-image="1"] .text').click()
        tab.locator(".card textarea").fill(text)
        if tab is page:
            tab.keyboard.press("Escape")
            tab.locator('[data-image="1"] .approved').wait_for()
    dialog = other.get_by_role("dialog")
    dialog.get_by_text("the first").wait_for()
    assert serious(other) == []
    other.keyboard.press("Escape")  # nothing is dropped by accident
    dialog.get_by_role("button", name="Write this").click()
    saved(other)
    other.close()
    assert server.texts(1) == [("the second", "approved")]
    page.locator('[data-image="1"]').get_by_text("the second").wait_for()  # without loading the page again
    server.stop()
    page.locator('[data-image="2"] .text').click()
    page.locator(".card textarea").fill("written without a server")
    page.locator("#saved").get_by_text("Not saved").wait_for()
    page.on("dialog", lambda question: question.accept())
    page.goto("about:blank")  # else it is sent before the page is loaded again
    server.start()
    page.goto(server.url)
    page.get_by_text("1 unsaved text was in this browser and came back.").wait_for()
    saved(page)
    assert server.texts(2) == [("written without a server", "approved")]


@needs_browser
def test_no_state_has_a_serious_axe_finding(browser: Browser, server: Server) -> None:
    width = 375
    context = browser.new_context(color_scheme="dark", viewport={"width": width, "height": 800})
    page = open_page(context.new_page(), server.url)
    found = {"grid": serious(page)}
    page.locator('[data-image="3"] .picture').dblclick()
    page.locator(".side textarea").first.wait_for()
    page.keyboard.press("h")
    page.locator(".history li").first.wait_for()
    found["single"] = serious(page)
    page.keyboard.press("f")
    page.get_by_role("dialog").get_by_label("Find", exact=True).fill("dog")
    page.get_by_text("would change").wait_for()
    found["replace"] = serious(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Change all").click()
    page.get_by_role("dialog").get_by_text("would change").wait_for()
    found["bulk"] = serious(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert found == {"grid": [], "single": [], "replace": [], "bulk": []}
    context.close()


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    lay(folder, 4)
    command = [sys.executable, "-m", "captune", "edit", str(folder), "--port", "0", "--no-scan"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stderr is not None
    url = process.stderr.readline().split()[4]
    saved: dict[int, str] = {}

    def write(image: int) -> None:
        of = image
        with httpx.Client(base_url=f"{url}/v1/library", timeout=20, trust_env=False) as client:
            for number in range(10_000):
                change = {"kind": "caption", "image": image, "of": of, "text": f"text {number}"}
                try:
                    answer = client.post("steps", json={"changes": [change]})
                except httpx.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                of = answer.json()["captions"][0]
                saved[image] = f"text {number}"

    writers = [threading.Thread(target=write, args=(image,)) for image in (1, 2, 4)]
    for writer in writers:
        writer.start()
    end = time.monotonic() + 30
    while len(saved) < len(writers) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for writer in writers:
        writer.join(20)
    library = Library(folder)
    assert len(saved) == 3
    assert library.problems() == []
    for image, text in saved.items():
        rows = library.database.connection.execute("SELECT text FROM captions WHERE image = ? AND current", (image,))
        (found,) = [row["text"] for row in rows]
        assert int(found.split()[1]) - int(text.split()[1]) in (0, 1)  # the one on its way may have been written
