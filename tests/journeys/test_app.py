"""`captune app`: the page by itself, in a real browser, and for several visitors at once."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import pytest
import torch

from captune.app.captioner import Captioner
from captune.core.errors import UsageError
from captune.core.records import Caption
from captune.data.writers import CaptionRow
from captune.models import FAMILIES
from captune.web.browser import PAGE
from captune.web.downloads import as_sidecars, as_text
from captune.web.names import named
from captune.web.samples import samples
from captune.web.settings import VARIABLE, PageSettings
from lively import LIVELY
from translators import marian

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
WAIT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = {}
    for seed, name in enumerate(("base", "tuned")):
        torch.manual_seed(seed)
        backbone = FAMILIES["blip"].tiny()
        with torch.no_grad():
            LIVELY["blip"](backbone.model)
        backbone.generation = {"min_new_tokens": 4}  # a sampled caption without words has nothing to copy
        folder = tmp_path_factory.mktemp("models") / name
        backbone.save(folder)
        found[name] = str(folder)
    return found


@pytest.fixture
def page(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv(VARIABLE, PageSettings(models, {"device": "cpu"}).to_environment()[VARIABLE])
    return AppTest.from_file(str(PAGE), default_timeout=120)


def widget(widgets: Any, label: str) -> Any:
    return next(one for one in widgets if one.label == label)


def test_a_sample_is_captioned_by_both_models(page: Any, models: dict[str, str]) -> None:
    page.run()
    assert widget(page.button, "Write captions").disabled
    page.checkbox(key="scene-1.png").check().run()
    widget(page.button, "Write captions").click().run()
    assert not page.exception
    data, _ = samples()["scene-1.png"]
    said = [code.value for code in page.code]
    options = {"device": "cpu", "max_new_tokens": 30}
    assert said == [Captioner.load(models[name], **options)(data).text for name in ("base", "tuned")]
    widget(page.toggle, "3 variations").set_value(True).run()
    widget(page.button, "Write captions").click().run()
    assert len(page.code) == 6
    assert page.expander[0].label == "History (2)"
    widget(page.toggle, "Where it looked").set_value(True).run()
    widget(page.button, "Write captions").click().run()
    assert not page.exception
    assert [one.label for one in page.expander[:2]] == ["Where base looked", "Where tuned looked"]


def test_captions_come_in_the_language_that_is_chosen(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from streamlit.testing.v1 import AppTest

    german = marian(tmp_path / "opus")
    settings = PageSettings({"base": models["base"]}, {"device": "cpu"}, ["", "de"], german)
    monkeypatch.setenv(VARIABLE, settings.to_environment()[VARIABLE])
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    page.checkbox(key="scene-1.png").check()
    page.selectbox[0].set_value("de").run()
    widget(page.button, "Write captions").click().run()
    assert not page.exception
    data, _ = samples()["scene-1.png"]
    wanted = Captioner.load(models["base"], device="cpu")(data, language="de", translator=german, max_new_tokens=30)
    assert [code.value for code in page.code] == [wanted.text]


def test_without_a_model_nothing_can_be_written(page: Any) -> None:
    page.run()
    page.checkbox(key="scene-1.png").check()
    page.button_group[0].set_value([]).run()
    assert widget(page.button, "Write captions").disabled
    assert "at least one model" in page.warning[0].value


def test_a_model_that_is_not_there_is_said_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from streamlit.testing.v1 import AppTest

    (tmp_path / "broken").mkdir()
    settings = PageSettings({"broken": str(tmp_path / "broken")}, {"device": "cpu"})
    monkeypatch.setenv(VARIABLE, settings.to_environment()[VARIABLE])
    page = AppTest.from_file(str(PAGE), default_timeout=120).run()
    assert not page.exception
    assert "cannot be loaded" in page.error[0].value


def test_downloads_hold_what_was_said() -> None:
    rows = [
        CaptionRow("a/photo.jpg", (Caption("a <dog>", 0.5), Caption("a cat", 0.25)), "ok", None, "m"),
        CaptionRow("b/photo.jpg", (Caption("a man", 0.5),), "ok", None, "m"),
    ]
    assert [row["caption"] for row in csv.DictReader(io.StringIO(as_text(rows, "csv")))] == [
        "a <dog>",
        "a cat",
        "a man",
    ]
    assert [row["caption"] for row in json.loads(as_text(rows, "json"))] == ["a <dog>", "a man"]
    assert [c.text for c in ElementTree.fromstring(as_text(rows, "xml")).iter("caption")] == [
        "a <dog>",
        "a cat",
        "a man",
    ]
    with zipfile.ZipFile(io.BytesIO(as_sidecars(rows))) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "photo.txt": "a <dog>\na cat\n", "photo (2).txt": "a man\n",
        }  # fmt: skip


def test_models_have_names() -> None:
    assert named(["runs/x", "mine=runs/y", "org/name"], short=True) == {
        "x": "runs/x",
        "mine": "runs/y",
        "name": "org/name",
    }
    with pytest.raises(UsageError, match="Two models are called x"):
        named(["runs/x", "others/x"], short=True)
    with pytest.raises(UsageError, match="missing"):
        named(["=runs/x"], short=True)


@pytest.fixture(scope="module")
def address(models: dict[str, str]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [word for name, model in models.items() for word in ("--model", f"{name}={model}")]
    server = subprocess.Popen(
        [sys.executable, "-m", "captune", "app", *words, "--port", str(port), "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{url}/_stcore/health", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                assert server.poll() is None, server.stderr.read() if server.stderr else ""
                time.sleep(0.3)
        yield url
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) is not None
    finally:
        server.kill()


def photos(folder: Path) -> list[str]:
    found = []
    for name, (data, _) in list(samples().items())[:2]:
        path = folder / name.replace("scene", "photo")
        path.write_bytes(data)
        found.append(str(path))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not looked at in a browser")
def test_in_a_browser(address: str, tmp_path: Path, scheme: Literal["light", "dark"]) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        allowed = ["clipboard-read", "clipboard-write"]
        context = browser.new_context(permissions=allowed, accept_downloads=True, color_scheme=scheme)
        page = context.new_page()
        page.goto(address)
        write = page.get_by_role("button", name="Write captions")
        write.wait_for(timeout=WAIT)
        page.locator("input[type=file]").first.set_input_files([*photos(tmp_path), str(tmp_path / "broken.jpg")])
        page.get_by_text("photo-2.png").first.wait_for(timeout=WAIT)
        page.get_by_text("3 variations").click()
        page.get_by_role("slider", name="Temperature", disabled=False).wait_for(timeout=WAIT)
        write.click()
        page.get_by_role("heading", name="All of them").wait_for(timeout=WAIT)
        captions = page.get_by_test_id("stCode")
        captions.nth(11).wait_for(timeout=WAIT)
        assert captions.count() == 2 * 2 * 3
        assert page.get_by_text("broken.jpg:").count() == 1, "the bad file is named, the others are captioned"
        captions.first.hover()
        captions.first.get_by_role("button").click()
        said = captions.first.inner_text().strip()
        assert page.evaluate("navigator.clipboard.readText()") == said
        images = page.get_by_test_id("stImage").get_by_role("img")
        assert all(images.nth(n).get_attribute("alt") for n in range(images.count()))
        with page.expect_download() as waiting:
            page.get_by_role("button", name="JSON").click()
        rows = json.loads(Path(waiting.value.path()).read_text())
        assert len(rows) == 4
        assert rows[0]["caption"] == said
        found = Axe().run(page).response["violations"]
        serious = [
            (v["id"], [node["html"] for node in v["nodes"]]) for v in found if v["impact"] in ("critical", "serious")
        ]
        assert serious == []
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out on a phone"
        browser.close()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not looked at in a browser")
def test_ten_visitors_at_once(address: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        pages = [browser.new_context().new_page() for _ in range(10)]
        for page in pages:
            page.goto(address)
        for number, page in enumerate(pages):
            page.get_by_role("tab", name="Samples").click(timeout=WAIT)
            page.get_by_text("Use", exact=True).nth(number % 6).click(timeout=WAIT)
        for page in pages:
            page.get_by_role("button", name="Write captions", disabled=False).click(timeout=WAIT)
        for page in pages:
            page.get_by_role("heading", name="All of them").wait_for(timeout=WAIT)
            page.get_by_test_id("stCode").nth(1).wait_for(timeout=WAIT)
        assert [page.get_by_test_id("stCode").count() for page in pages] == [2] * 10
        browser.close()
