"""The page of `captune app`: images in, captions out. Streamlit runs this file for every visitor."""

import math
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from captune.captions.quality import RULES
from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions, WordingOptions
from captune.core.records import Caption
from captune.core.wording import counted
from captune.server.page import PageSettings
from captune.server.page.captioning import (
    FORMATS,
    Model,
    Result,
    Upload,
    accepted_suffixes,
    as_sidecars,
    as_text,
    caption_all,
    file_name,
    in_natural_order,
    load,
    named_apart,
    samples,
    thumbnail,
)

ASSETS = Path(__file__).with_name("assets")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


_captions = st.components.v2.component(
    "captune_captions", html='<div class="captions"></div>', css=_asset("captions.css"), js=_asset("captions.js")
)
# Not in a shadow root: some screen readers miss changes there.
_status = st.components.v2.component(
    "captune_status", html='<div role="status" aria-live="polite"></div>', js=_asset("status.js"), isolate_styles=False
)


def captions_by_model(result: Result, *, key: str) -> None:
    """Captions of an image side by side, under the names of their models, with what is odd about each."""
    models = [
        {
            "model": model,
            "captions": [
                {"text": one.text, "confidence": _confidence(one), "flags": [_flag(*flag) for flag in flags.items()]}
                for one, flags in zip(captions, result.flags[model], strict=True)
            ],
        }
        for model, captions in result.captions.items()
    ]
    _captions(key=key, data={"image": result.name, "language": result.language or "", "models": models})


def _confidence(caption: Caption) -> str:
    return "" if math.isnan(caption.confidence) else f"{100 * caption.confidence:.0f} % confidence"


def _flag(name: str, why: str) -> str:
    """What is odd about a caption, for people who know no names of flags."""
    return RULES[name] if name in ("cut", "empty") else f"{RULES[name]} ({why})"


HISTORY = 200
VARIATIONS = 3
THUMBNAILS = 12
# What the page offers of options that allow more: lowest, highest, step. Temperature 0: nothing is drawn by chance.
OFFERED = {"max_new_tokens": (10, 50, 1), "num_beams": (1, 5, 1), "temperature": (0.0, 2.0, 0.1)}
LABELS = {"max_new_tokens": "Longest caption", "num_beams": "Beams", "temperature": "Temperature"}
TEMPERATURE = "0: the likeliest caption. Above: words are drawn by chance; below 1.0 safer, above 1.0 more varied."
BEGIN = "Add images, take a photo, or try the samples."


@dataclass(frozen=True)
class Choices:
    """What the visitor chose: models by name, options, and what stands around captions."""

    models: dict[str, Model]
    options: dict[str, Any]
    wording: WordingOptions
    attention: bool


def main() -> None:
    st.set_page_config("captune", ":material/image:", layout="wide")
    st.html(f"<style>{_asset('page.css')}</style>")
    settings = PageSettings.from_environment()
    for name, value in {"results": [], "history": [], "summary": "", "runs": 0}.items():
        st.session_state.setdefault(name, value)
    st.title("captune", anchor=False)
    st.write(_about(settings))
    chosen = st.container()
    uploads = _images()
    with chosen:
        _thumbnails(uploads)
    problems = st.container()
    choices = _settings(settings, problems)
    with st.bottom:
        progress = st.empty()
        with st.container(horizontal=True, vertical_alignment="center"):
            ready = bool(uploads and choices.models)
            start = st.button("Write captions", key="start", type="primary", disabled=not ready, icon=":material/edit:")
            status = st.container()
    if start:
        _results(_captioned(choices, uploads, progress), anew=True)
    else:
        _results(st.session_state.results)
    _history(st.session_state.history)
    with status:
        plan = f"{counted(len(uploads), 'image')}, {counted(len(choices.models), 'model')}." if ready else BEGIN
        text = st.session_state.summary or plan
        # Screen readers speak it when the version changes.
        _status(key="status", data={"text": text, "version": f"{st.session_state.runs} {text}"}, width="content")


def _about(settings: PageSettings) -> str:
    if settings.servers:
        return f"Captions for your images. Images are sent to {', '.join(map(_plain, settings.servers))}."
    return "Captions for your images, written on this machine. No image leaves it."


def _images() -> list[Upload]:
    files_tab, samples_tab, camera_tab = st.tabs(["Your images", "Samples", "Camera"])
    with files_tab:
        whole = st.toggle("A whole folder", help="Choose a folder instead of single files.")
        files = st.file_uploader(
            "Images",
            type=accepted_suffixes(),
            accept_multiple_files="directory" if whole else True,
            key="folder" if whole else "files",
        )
        chosen = in_natural_order([Upload(file.name, file.getvalue()) for file in files or ()])
    with samples_tab:
        st.write("Drawn for captune; free to use (Apache-2.0).")
        with st.grid(min_column_width=110):
            for name, (data, alt) in samples().items():
                with st.container(gap="xsmall"):
                    st.image(data, alt=alt)
                    if st.checkbox(name, key=f"sample {name}"):
                        chosen.append(Upload(f"{name.lower()}.webp", data))
    with camera_tab:
        if st.toggle("Switch the camera on") and (shot := st.camera_input("Take a photo")):
            chosen.append(Upload("camera.jpg", shot.getvalue()))
    return named_apart(chosen)


def _thumbnails(chosen: list[Upload]) -> None:
    if not chosen:
        return
    more = f", the first {THUMBNAILS} of them" if len(chosen) > THUMBNAILS else ""
    st.markdown(f"**{counted(len(chosen), 'image')} to caption{more}**")
    with st.container(horizontal=True, gap="small"):
        for upload in chosen[:THUMBNAILS]:
            small = thumbnail(upload)
            if isinstance(small, str):
                st.error(f"{_plain(upload.name)} cannot be read.", icon=":material/broken_image:", width=240)
            else:
                st.image(small, alt=upload.name, width=100)


def _settings(settings: PageSettings, problems: Any) -> Choices:
    with st.sidebar:
        st.header("Settings", anchor=False)
        names = list(settings.models)
        chosen = names
        if len(names) > 1:
            chosen = st.pills("Models, side by side", names, selection_mode="multi", default=names[:2])
        if not chosen:
            problems.warning("Choose at least one model.")
        with problems:
            models = {name: model for name in chosen if (model := _load(settings, name))}
        first = next(iter(models.values()), None)
        options = _search(first.captioner.options.generation if first else GenerationOptions())
        options |= _prompt(any(model.captioner.model.codec.answers for model in models.values()))
        if len(settings.languages) > 1:
            language = st.selectbox("Language", settings.languages, format_func=lambda code: code or "as the model")
            if language:
                options["language"] = language
                options |= {"translator": settings.translator} if settings.translator else {}
        with st.expander("Around the caption"):
            wording = _wording()
        attention = st.toggle("Attention maps", help="Where the model looked for every word of the first caption.")
        for name, model in models.items():
            st.write(f"{name}: {model.captioner.model.family} on {model.captioner.model.device}")
    return Choices(models, options, wording, attention)


def _prompt(answers: bool) -> dict[str, Any]:
    """What stands before a caption: words that it continues, or (`answers`) a message that it answers."""
    if answers:
        prompt = st.text_input(
            "Question or instruction", help="The caption answers it. Empty: the model's own."
        ).strip()
        return {"prompt": prompt} if prompt else {}
    prompt = st.text_input("Words to begin with", help="The caption continues these words.").strip()
    if not prompt:
        return {}
    return {"prompt": prompt, "prompt_in_caption": st.checkbox("Keep these words in the caption", key="keep prompt")}


def _wording() -> WordingOptions:
    """What captune puts around captions, and how long they may be."""
    prefix = st.text_input("Before every caption", help="Such as a trigger word.", max_chars=1000)
    suffix = st.text_input("Behind every caption", max_chars=1000)
    longest = st.number_input(
        "Most characters", 0, value=0, help="Shortened at the end of a sentence, else of a word. 0: no limit."
    )
    lower = st.checkbox("Lower case")
    one_line = st.checkbox("One line")
    return WordingOptions(
        prefix=prefix, suffix=suffix, max_characters=int(longest), lower_case=lower, one_line=one_line
    )


def _search(own: GenerationOptions) -> dict[str, Any]:
    """Generation options, from sliders that start at the model's own values."""
    options = {"max_new_tokens": _slider("max_new_tokens", own.max_new_tokens)}
    temperature = _slider("temperature", own.temperature if own.sample else 0.0, TEMPERATURE)
    several = st.toggle(
        f"{VARIATIONS} variations", help="Captions drawn with rising temperature around the one above, or around 1.0."
    )
    drawn = {"temperature": temperature or own.temperature, "num_beams": 1}
    if several:
        return options | drawn | {"variations": VARIATIONS}
    if temperature:
        return options | drawn | {"sample": True}
    return options | {"sample": False, "num_beams": _slider("num_beams", own.num_beams)}


def _slider(name: str, own: float, help: str | None = None) -> Any:
    low, high, step = OFFERED[name]
    return st.slider(
        LABELS[name], min(low, own), max(high, own), own, step,
        key=f"slider {name}", persist_state="session", help=help or GenerationOptions.model_fields[name].description,
    )  # fmt: skip


def _load(settings: PageSettings, name: str) -> Model | None:
    try:
        with st.spinner(f"Loading {name} …"):
            return load(settings.models[name], settings.options)
    except CaptuneError as error:
        st.error(f"**{name}** cannot be loaded. {error.message}\n\n{error.hint}")
        return None


def _captioned(choices: Choices, uploads: list[Upload], progress: Any) -> Iterator[Result]:
    """Results as they come; they stay when the visitor does something else meanwhile."""
    st.session_state.results = results = []
    # A new seed for every click: else a model samples the same captions again.
    options = {**choices.options, "sample_seed": secrets.randbits(31)}
    progress.progress(0.0, f"Captioning {counted(len(uploads), 'image')} …")
    for result in caption_all(uploads, choices.models, options, choices.wording, attention=choices.attention):
        results.append(result)
        if not result.error:
            st.session_state.history = [result, *st.session_state.history][:HISTORY]
        progress.progress(len(results) / len(uploads), f"{len(results)} of {len(uploads)}")
        yield result
    progress.empty()
    good = [result for result in results if not result.error]
    captions = sum(len(each) for result in good for each in result.captions.values())
    bad = len(results) - len(good)
    st.session_state.summary = f"{counted(captions, 'caption')} for {counted(len(good), 'image')}" + (
        f"; {counted(bad, 'image')} could not be captioned." if bad else "."
    )
    st.session_state.runs += 1


def _results(results: Iterable[Result], *, anew: bool = False) -> None:
    # Emptied for new captions, so that none of the last ones stand among them.
    heading = st.empty()
    errors, downloads, cards = (st.empty().container() if anew else st.container() for _ in range(3))
    shown: list[Result] = []
    for number, result in enumerate(results):
        shown.append(result)
        if result.error:
            message, hint = result.error.message.rstrip("."), result.error.hint
            errors.error(f"**{_plain(message)}.** {_plain(hint)}", icon=":material/broken_image:")
            continue
        heading.header("Captions", anchor=False)
        with cards.container(border=True):
            _card(result, f"captions {st.session_state.runs} {number}")
    if any(not result.error for result in shown):
        with downloads:
            _downloads(shown)


def _card(result: Result, key: str) -> None:
    image, captions = st.columns([1, 2 if len(result.captions) < 3 else 3])
    image.image(result.image, alt=result.alt, width="stretch")
    with captions:
        st.subheader(_plain(result.name), anchor=False)
        captions_by_model(result, key=key)
    for model, sheet in result.attention.items():
        with st.expander(f"Attention maps of {_plain(model)} for {_plain(result.name)}"):
            if isinstance(sheet, str):
                st.info(sheet)
            else:
                caption = result.captions[model][0].text
                st.image(sheet, alt=f"The image once for every word, bright where the attention is: {caption}")


def _downloads(results: list[Result]) -> None:
    models = list(next(result.captions for result in results if not result.error))
    rows = [row for result in results for row in result.rows(models)]
    with st.container(horizontal=True):
        for name, (writer, media_type) in FORMATS.items():
            file = file_name(models, name.lower())
            st.download_button(
                f"Download {name}",
                as_text(rows, writer),
                file,
                media_type,
                on_click="ignore",
                icon=":material/download:",
            )
        st.download_button(
            "Download text files", as_sidecars(rows), file_name(models, "zip"), "application/zip", on_click="ignore",
            icon=":material/folder_zip:", help="A zip archive: a folder for each model with a .txt for each image.",
        )  # fmt: skip


def _history(history: list[Result]) -> None:
    if not history:
        return
    with st.expander(f"History ({len(history)})"):
        for result in history:
            left, right = st.columns([1, 5])
            left.image(result.image, alt=result.alt, width=100)
            lines = "\n".join(
                f"- {_plain(model)}: {_plain(each[0].text) or '(no words)'}" for model, each in result.captions.items()
            )
            right.markdown(f"**{_plain(result.name)}**\n\n{lines}")
        if st.button("Clear the history"):
            st.session_state.update(results=[], history=[], summary="", runs=st.session_state.runs + 1)
            st.rerun()


def _plain(text: str) -> str:
    """Text escaped for Markdown."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()#+-.!|<>~$:&" else sign for sign in text)


main()
