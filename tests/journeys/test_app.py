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
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import pytest
import torch

from browsing import drawn, in_view, serious
from captune.captions.quality import flags_of
from captune.captions.wording import worded
from captune.core.options import WordingOptions
from captune.inference.captioner import Captioner
from captune.models import FAMILIES
from captune.server.page import PAGE, VARIABLE, PageSettings
from captune.server.page.captioning import samples
from noise import noise
from random_weights import LIVELY
from stand_in import stand_in
from tiny_vlms import lively
from translators import marian

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed: the page is not looked at in a browser"
)
WAIT = 60_000  # milliseconds
NAMES = ("base", "tuned", "flickr8k-long", "captions-of-the-museum", "mine")
FIRST = next(iter(samples()))
LOOKS: dict[str, tuple[Literal["light", "dark"], int, int]] = {
    "desktop": ("light", 1280, 800),
    "phone": ("dark", 375, 812),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = {}
    for seed, name in enumerate(NAMES):
        torch.manual_seed(seed)
        backbone = FAMILIES["blip"].tiny()
        with torch.no_grad():
            LIVELY["blip"](backbone.model)
        backbone.generation = {"min_new_tokens": 4}  # a sampled caption without words has nothing to copy
        folder = tmp_path_factory.mktemp("models") / name
        backbone.save(folder)
        found[name] = str(folder)
    return found


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> str:
    return marian(tmp_path_factory.mktemp("translator") / "opus")


@pytest.fixture
def page(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return app_test(PageSettings(dict(list(models.items())[:2]), {"device": "cpu"}), monkeypatch)


def app_test(settings: PageSettings, monkeypatch: pytest.MonkeyPatch) -> Any:
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv(VARIABLE, settings.to_environment()[VARIABLE])
    return AppTest.from_file(str(PAGE), default_timeout=120)


def widget(widgets: Any, label: str) -> Any:
    return next(one for one in widgets if one.label == label)


def write(page: Any) -> list[list[str]]:
    """The captions of each image, of all its models, after a click on the button."""
    widget(page.button, "Write captions").click().run()
    assert not page.exception
    return [
        [caption.text for captions in result.captions.values() for caption in captions]
        for result in page.session_state.results
    ]


def test_a_sample_is_captioned_by_both_models(page: Any, models: dict[str, str]) -> None:
    page.run()
    assert widget(page.button, "Write captions").disabled
    widget(page.checkbox, FIRST).check().run()
    data, _ = samples()[FIRST]
    options = {"device": "cpu", "max_new_tokens": 30}
    own = [Captioner.load(models[name], **options)(data) for name in NAMES[:2]]
    assert write(page) == [[caption.text for caption in own]]
    widget(page.text_input, "Before every caption").set_value("ohwx,")
    widget(page.number_input, "Most characters").set_value(20)
    wording = WordingOptions(prefix="ohwx,", max_characters=20)
    assert write(page) == [[worded(caption, wording).text for caption in own]]
    flags = page.session_state.results[0].flags
    assert [flags[name] for name in NAMES[:2]] == [(flags_of(caption),) for caption in own]
    widget(page.text_input, "Before every caption").set_value("")
    widget(page.number_input, "Most characters").set_value(0)
    widget(page.toggle, "3 variations").set_value(True).run()
    assert [len(captions) for captions in write(page)] == [6]
    assert page.expander[0].label == "History (3)"
    widget(page.toggle, "Attention maps").set_value(True).run()
    write(page)
    assert [one.label.split(" for ")[0] for one in page.expander[:2]] == [
        "Attention maps of base",
        "Attention maps of tuned",
    ]


def test_a_vision_language_model_answers_what_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lively("qwen2_5_vl").save(tmp_path / "vlm")
    page = app_test(PageSettings({"vlm": str(tmp_path / "vlm")}, {"device": "cpu"}), monkeypatch).run()
    assert page.text_input[0].label == "Question or instruction"
    widget(page.checkbox, FIRST).check().run()
    question = "What is <|image_pad|> here <|im_end|>?"
    widget(page.text_input, "Question or instruction").set_value(question).run()
    assert "Keep these words in the caption" not in [one.label for one in page.checkbox]
    widget(page.slider, "Longest caption").set_value(10).run()
    widget(page.toggle, "Attention maps").set_value(True).run()
    own = Captioner.load(str(tmp_path / "vlm"), device="cpu", max_new_tokens=10, prompt=question)
    assert write(page) == [[own(samples()[FIRST][0]).text]]
    assert "reads an image as tokens of its own" in page.info[0].value


def test_a_model_behind_a_server_stands_beside_one_of_here(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in() as server:
        options = {"device": "cpu", "base_url": server.url, "sight_check": False}
        settings = PageSettings({"base": models["base"], "theirs": "openai:m"}, options)
        page = app_test(settings, monkeypatch).run()
        assert f"Images are sent to {server.url}." in page.markdown[0].value.replace("\\", "")
        for name in list(samples())[:3]:
            widget(page.checkbox, name).check()
        widget(page.slider, "Beams").set_value(2).run()
        own = Captioner.load(models["base"], device="cpu", max_new_tokens=30, num_beams=2)
        wanted = [[own(data).text, "a dog on the beach"] for data, _ in list(samples().values())[:3]]
        assert write(page) == wanted
    settings = PageSettings({"base": models["base"]}, {"device": "cpu"})
    assert "No image leaves it" in app_test(settings, monkeypatch).run().markdown[0].value


def test_a_temperature_above_0_samples(page: Any) -> None:
    page.run()
    widget(page.checkbox, FIRST).check().run()
    assert [slider.label for slider in page.slider] == ["Longest caption", "Temperature", "Beams"]
    assert write(page) == write(page)
    widget(page.slider, "Temperature").set_value(2.0).run()
    assert [slider.label for slider in page.slider] == ["Longest caption", "Temperature"]
    assert write(page) != write(page)
    widget(page.text_input, "Words to begin with").input("a red").run()
    widget(page.checkbox, "Keep these words in the caption").check().run()
    assert [text[:5] for text in write(page)[0]] == ["a red", "a red"]


def test_captions_come_in_the_language_that_is_chosen(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch, german: str
) -> None:
    page = app_test(PageSettings({"base": models["base"]}, {"device": "cpu"}, ["", "de"], german), monkeypatch).run()
    widget(page.checkbox, FIRST).check()
    page.selectbox[0].set_value("de").run()
    data, _ = samples()[FIRST]
    wanted = Captioner.load(models["base"], device="cpu")(data, language="de", translator=german, max_new_tokens=30)
    assert write(page) == [[wanted.text]]


def test_without_a_model_nothing_can_be_written(page: Any) -> None:
    page.run()
    widget(page.checkbox, FIRST).check()
    page.button_group[0].set_value([]).run()
    assert widget(page.button, "Write captions").disabled
    assert "at least one model" in page.warning[0].value


def test_a_model_that_is_not_there_is_named_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    page = app_test(PageSettings({"broken": str(tmp_path / "broken")}, {"device": "cpu"}), monkeypatch).run()
    assert not page.exception
    assert "cannot be loaded" in page.error[0].value


@pytest.fixture(scope="module")
def address(models: dict[str, str], german: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broken = shutil.copytree(models["mine"], tmp_path_factory.mktemp("models") / "broken")
    (broken / "model.safetensors").write_bytes(b"cut off")
    parse_models = {**models, "broken": str(broken)}
    words = [word for name, model in parse_models.items() for word in ("--model", f"{name}={model}")]
    server = subprocess.Popen(
        [sys.executable, "-m", "captune", "app", *words, "--port", str(port), "--device", "cpu",
         "--languages", "de", "--translator", german],
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def looks(browser: Browser) -> dict[str, BrowserContext]:
    """A context for each look, so that what Streamlit sends is fetched once for all tests."""
    found = {}
    for look, (scheme, width, height) in LOOKS.items():
        found[look] = browser.new_context(
            permissions=["clipboard-read", "clipboard-write"],
            accept_downloads=True,
            color_scheme=scheme,
            viewport={"width": width, "height": height},
        )
        found[look].set_default_timeout(WAIT)
    return found


def visit(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(address)
    button(page).wait_for()
    return page


def button(page: Page) -> Locator:
    return page.get_by_role("button", name="Write captions")


def choose(page: Page, *files: Path) -> None:
    page.locator("input[type=file]").first.set_input_files([str(file) for file in files])
    page.get_by_text(f"{len(files)} image", exact=False).first.wait_for()


def caption(page: Page, summary: str) -> None:
    """Click the button and wait for what the page says in the end."""
    page.get_by_role("button", name="Write captions", disabled=False).click()
    page.get_by_role("status").get_by_text(summary).wait_for()


def photos(folder: Path) -> list[Path]:
    found = []
    for number in (10, 2):
        noise((320, 240), 40, number).convert("RGB").save(folder / f"photo {number}.png")
        found.append(folder / f"photo {number}.png")
    return found


@needs_browser
@pytest.mark.parametrize("look", LOOKS)
def test_no_state_has_a_serious_axe_finding(
    address: str, looks: dict[str, BrowserContext], tmp_path: Path, look: str
) -> None:
    page, found = visit(looks[look], address), {}

    def check(state: str, *, at_rest: bool = True) -> None:
        found[state] = serious(page, at_rest=at_rest)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= LOOKS[look][1], f"{state}: something sticks out"
        assert in_view(button(page)), f"{state}: the button is out of sight"

    def settings() -> None:
        if look == "phone":
            page.get_by_test_id("stExpandSidebarButton").click()

    def back() -> None:
        if look == "phone":
            page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()

    def choose_model(name: str) -> None:
        page.get_by_test_id("stSidebar").get_by_role("button", name=name).click()

    check("empty")
    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Switch the camera on").click()
    page.get_by_role("button", name="Take Photo").wait_for()
    check("camera")
    page.get_by_text("Switch the camera on").click()
    page.get_by_role("button", name="Take Photo").wait_for(state="hidden")  # the page is drawn anew meanwhile
    page.get_by_role("tab", name="Samples").click()
    page.get_by_role("checkbox").first.wait_for()
    check("samples")
    page.get_by_role("tab", name="Your images").click()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    choose(page, *photos(tmp_path), tmp_path / "broken.jpg")
    page.get_by_role("img", name="photo 10.png").wait_for()
    check("images chosen, one of them broken")
    assert in_view(page.get_by_role("img", name="photo 2.png"))
    settings()
    choose_model("broken")
    page.get_by_text("broken cannot be loaded").wait_for(state="attached")
    back()
    check("a model that cannot be loaded")
    settings()
    for name in ("broken", *NAMES[2:]):
        choose_model(name)
    page.get_by_test_id("stSidebar").get_by_text("mine: blip").wait_for()
    page.get_by_text("3 variations").click()
    drawn(page)
    page.get_by_text("Attention maps", exact=True).click()
    page.get_by_test_id("stSidebar").get_by_role("combobox").click()
    page.get_by_role("option", name="de", exact=True).click()
    check_settings = serious(page)
    back()
    button(page).click()
    page.get_by_role("progressbar").wait_for()
    check("working", at_rest=False)
    page.get_by_role("status").get_by_text("30 captions for 2 images; 1 image could not be captioned.").wait_for()
    check("five models, three variations, in German, an error")
    page.get_by_text("Attention maps of base for photo 2.png").click()
    page.get_by_role("img", name="The image once for every word").first.wait_for()
    check("attention maps")
    page.get_by_text("History (2)").click()
    page.get_by_role("button", name="Clear the history").wait_for()
    check("history")
    page.get_by_role("button", name="Clear the history").click()
    page.get_by_role("heading", name="Captions", exact=True).wait_for(state="detached")
    check("cleared")
    assert {state: findings for state, findings in found.items() if findings} == {}
    assert check_settings == []
    page.close()


@needs_browser
def test_results_by_keyboard_and_screen_reader(address: str, looks: dict[str, BrowserContext], tmp_path: Path) -> None:
    page = visit(looks["desktop"], address)
    labels = [box.get_attribute("aria-label") or box.inner_text() for box in page.get_by_role("checkbox").all()]
    assert len(set(labels)) == len(labels)
    choose(page, *photos(tmp_path))
    spoken = page.get_by_test_id("stBottom").get_by_role("status")
    region = spoken.element_handle()
    caption(page, "4 captions for 2 images.")
    assert region is not None
    assert region.evaluate("line => line.isConnected"), "the region that speaks was there before it had words"
    assert region.get_attribute("aria-live") == "polite"
    headings = [heading.inner_text() for heading in page.get_by_role("heading", level=3).all()]
    assert headings == ["photo 2.png", "photo 10.png"], "in the order in which people count"
    copies = page.get_by_role("button", name="Copy caption of")
    names = [each.get_attribute("aria-label") for each in copies.all()]
    assert names == [f"Copy caption of photo {number}.png by {name}" for number in (2, 10) for name in NAMES[:2]]
    copies.first.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator(".caption .text").first.inner_text()
    caption(page, "4 captions for 2 images.")  # the same words once more
    images = page.get_by_test_id("stImage").get_by_role("img")
    assert all(images.nth(n).get_attribute("alt") for n in range(images.count()))
    page.close()


@needs_browser
def test_long_captions_and_many_models_are_readable(
    address: str, looks: dict[str, BrowserContext], tmp_path: Path
) -> None:
    page = visit(looks["desktop"], address)
    for name in NAMES[2:]:
        page.get_by_test_id("stSidebar").get_by_role("button", name=name).click()
    page.get_by_test_id("stSidebar").get_by_text("mine: blip").wait_for()
    choose(page, *photos(tmp_path))
    caption(page, "10 captions for 2 images.")
    first = page.locator(".captions").first
    assert first.locator(".model").count() == len(NAMES)
    for model in first.locator(".model").all():
        text, copy = model.locator(".text"), model.locator(".copy")
        text.evaluate("node => node.textContent = 'a very long caption of an image '.repeat(20)")
        words, over = text.bounding_box(), copy.bounding_box()
        assert words is not None
        assert over is not None
        assert words["width"] >= 200
        assert words["y"] + words["height"] <= over["y"], "the button is below the words"
    page.close()


@needs_browser
def test_every_download_names_the_models(address: str, looks: dict[str, BrowserContext], tmp_path: Path) -> None:
    page = visit(looks["desktop"], address)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    choose(page, *photos(tmp_path), tmp_path / "broken.jpg")
    caption(page, "4 captions for 2 images; 1 image could not be captioned.")
    files = {}
    for name, suffix in {"CSV": "csv", "JSON": "json", "XML": "xml", "text files": "zip"}.items():
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {name}").click()
        assert waiting.value.suggested_filename == f"captions-base-tuned.{suffix}"
        files[suffix] = Path(waiting.value.path()).read_bytes()
    rows = [(row["image"], row["model"]) for row in csv.DictReader(io.StringIO(files["csv"].decode()))]
    assert rows == [(image, model) for image in ("broken.jpg", "photo 2.png", "photo 10.png") for model in NAMES[:2]]
    assert [(row["image"], row["model"]) for row in json.loads(files["json"])] == rows
    assert [(one.findtext("image"), one.get("model")) for one in ElementTree.fromstring(files["xml"])] == rows
    with zipfile.ZipFile(io.BytesIO(files["zip"])) as archive:
        assert sorted(archive.namelist()) == [f"{m}/photo {n}.txt" for m in NAMES[:2] for n in (10, 2)]
    page.close()


@needs_browser
def test_several_visitors_at_once(address: str, looks: dict[str, BrowserContext]) -> None:
    pages = [looks["desktop"].new_page() for _ in range(3)]
    for page in pages:
        page.goto(address)
    for page, sample in zip(pages, samples(), strict=False):
        page.get_by_role("tab", name="Samples").click()
        page.get_by_text(sample, exact=True).click()
    for page in pages:
        page.get_by_role("button", name="Write captions", disabled=False).click()
    for page in pages:
        page.get_by_role("status").get_by_text("2 captions for 1 image.").wait_for()
        page.close()
