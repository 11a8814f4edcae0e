"""The page of `captune app`: pictures in, captions out. Streamlit runs this file for every visitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.data import heif
from captune.web.downloads import FORMATS, SIDECARS, as_sidecars, as_text
from captune.web.samples import samples
from captune.web.settings import PageSettings
from captune.web.writing import Model, Picture, Result, describe_all, load

KEPT = 200
VARIATIONS = 3
# What the page offers of options that allow more: lowest, highest, step.
OFFERED = {"max_new_tokens": (10, 50, 1), "num_beams": (1, 5, 1), "temperature": (0.5, 2.0, 0.1)}
LABELS = {"max_new_tokens": "Longest caption", "num_beams": "Beams", "temperature": "Temperature"}
# What the file chooser offers; whatever a file is called, its contents are what counts.
USUAL = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"]
# What most phones write is offered only where it is read: heic is an extra.
READ = USUAL + ["heic", "heif", "hif"] * heif.is_installed()
ABOUT = "Sentences for your pictures. They are written on this machine and sent nowhere else."


@dataclass(frozen=True)
class Asked:
    """What the visitor chose beside the pictures: names of models, and options of the search."""

    models: tuple[str, ...]
    options: dict[str, Any]
    explain: bool


def main() -> None:
    st.set_page_config("captune", ":material/image:", layout="wide")
    settings = PageSettings.from_environment()
    st.session_state.setdefault("results", [])
    st.session_state.setdefault("history", [])
    st.title("captune")
    st.write(ABOUT)
    asked = _settings(settings)
    pictures = _pictures()
    ready = bool(pictures and asked.models)
    if st.button("Write captions", disabled=not ready, icon=":material/edit:"):
        _write(settings, asked, pictures)
    if not pictures:
        st.info("Add pictures, take one with the camera, or try the samples.", icon=":material/add_photo_alternate:")
    _results(st.session_state.results)
    _history(st.session_state.history)


def _settings(settings: PageSettings) -> Asked:
    with st.sidebar:
        st.header("Settings")
        names = list(settings.models)
        chosen = names
        if len(names) > 1:
            chosen = st.pills("Models, side by side", names, selection_mode="multi", default=names[:2])
        if not chosen:
            st.warning("Choose at least one model.")
        models = {name: model for name in chosen if (model := _load(settings, name))}
        first = next(iter(models.values()), None)
        own = first.captioner.options.generation if first else GenerationOptions()
        options = {name: _slider(name, getattr(own, name)) for name in ("max_new_tokens", "num_beams")}
        several = st.toggle(
            f"{VARIATIONS} variations", help="Captions sampled with rising temperature, the safest first."
        )
        temperature = _slider("temperature", own.temperature, disabled=not several)
        if several:
            options |= {"variations": VARIATIONS, "temperature": temperature, "num_beams": 1}
        prompt = st.text_input("Words to begin with", help=GenerationOptions.model_fields["prompt"].description)
        if prompt.strip():
            options["prompt"] = prompt.strip()
        if len(settings.languages) > 1:
            language = st.selectbox("Language", settings.languages, format_func=lambda code: code or "as the model")
            if language:
                options["language"] = language
                options |= {"translator": settings.translator} if settings.translator else {}
        explain = st.toggle("Where it looked", help="A map of the picture for every word of the first caption.")
        for name, model in models.items():
            st.write(f"{name}: {model.captioner.model.family} on {model.captioner.model.device}")
    return Asked(tuple(models), options, explain)


def _load(settings: PageSettings, name: str) -> Model | None:
    try:
        with st.spinner(f"Loading {name} …"):
            return load(settings, name)
    except CaptuneError as error:
        st.error(f"**{name}** cannot be loaded. {error.message}\n\n{error.hint}")
        return None


def _slider(name: str, own: float, *, disabled: bool = False) -> Any:
    low, high, step = OFFERED[name]
    help = GenerationOptions.model_fields[name].description
    return st.slider(LABELS[name], low, high, min(max(own, low), high), step, help=help, disabled=disabled)


def _pictures() -> list[Picture]:
    files, samples_, camera = st.tabs(["Your pictures", "Samples", "Camera"])
    found: list[Picture] = []
    with files:
        whole = st.toggle("A whole folder", help="Choose a folder instead of single files.")
        given = st.file_uploader(
            "Pictures",
            type=READ,
            accept_multiple_files="directory" if whole else True,
            key="folder" if whole else "files",
        )
        found += [Picture(file.name, file.getvalue()) for file in given or ()]
    with samples_:
        st.write("Drawn by captune itself; free to use.")
        for column, (name, (data, alt)) in zip(st.columns(6), samples().items(), strict=True):
            with column:
                st.image(data, alt=alt)
                if st.checkbox("Use", key=name, label_visibility="visible", help=f"Caption {name}"):
                    found.append(Picture(name, data))
    with camera:
        if st.toggle("Switch the camera on") and (shot := st.camera_input("Take a picture")):
            found.append(Picture("camera.jpg", shot.getvalue()))
    return found


def _write(settings: PageSettings, asked: Asked, pictures: list[Picture]) -> None:
    models = {name: load(settings, name) for name in asked.models}
    results: list[Result] = []
    bar = st.progress(0.0, "Looking …")
    described = describe_all(pictures, models, asked.options, explain=asked.explain)
    for number, (_, found) in enumerate(described, start=1):
        bar.progress(number / len(pictures), f"{number} of {len(pictures)}")
        if isinstance(found, CaptuneError):
            st.error(f"**{found.message.rstrip('.')}.** {found.hint}", icon=":material/broken_image:")
        else:
            results.append(found)
    bar.empty()
    st.session_state.results = results
    st.session_state.history = [*results, *st.session_state.history][:KEPT]


def _results(results: list[Result]) -> None:
    if not results:
        return
    st.header("Captions")
    for result in results:
        with st.container(border=True):
            left, right = st.columns([2, 3])
            with left:
                st.image(result.shown, alt=result.alt, width="stretch")
                st.write(result.name)
            with right:
                for column, (model, captions) in zip(st.columns(len(result.said)), result.said.items(), strict=True):
                    with column:
                        st.markdown(f"**{model}**")
                        for caption in captions:
                            st.code(caption.text, language=None, wrap_lines=True)
                            st.write(f"{100 * caption.confidence:.0f} % sure")
            for model, sheet in result.looked.items():
                with st.expander(f"Where {model} looked"):
                    if isinstance(sheet, str):
                        st.info(sheet)
                    else:
                        st.image(sheet, alt=f"Maps of the picture for the words of: {result.said[model][0].text}")
    _downloads(results)


def _downloads(results: list[Result]) -> None:
    rows = [row for result in results for row in result.rows()]
    st.subheader("All of them")
    st.dataframe(
        [
            {"picture": row.image, "model": row.model, "caption": caption.text, "confidence": caption.confidence}
            for row in rows
            for caption in row.captions
        ],
        column_config={"confidence": st.column_config.NumberColumn(format="percent")},
        hide_index=True,
    )
    buttons = st.columns(len(FORMATS) + 1)
    for column, (name, (format, file, kind)) in zip(buttons, FORMATS.items(), strict=False):
        column.download_button(name, as_text(rows, format), file, kind, on_click="ignore", width="stretch")
    file, kind = SIDECARS
    first = [next(result.rows()) for result in results]
    buttons[-1].download_button(
        "Text files", as_sidecars(first), file, kind, on_click="ignore", width="stretch",
        help="A zip archive with a .txt for each picture, by the first model.",
    )  # fmt: skip


def _history(history: list[Result]) -> None:
    if not history:
        return
    with st.expander(f"History ({len(history)})"):
        for result in history:
            left, right = st.columns([1, 5])
            left.image(result.shown, alt=result.alt, width=120)
            right.write(f"{result.name}: " + " · ".join(captions[0].text for captions in result.said.values()))
        if st.button("Forget them"):
            st.session_state.results, st.session_state.history = [], []
            st.rerun()


main()
