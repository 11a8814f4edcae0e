"""What the page adds to Streamlit's elements: captions with buttons that copy them, and a line that is read out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from captune.core.records import Caption

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


def style_page() -> None:
    """The page's own rules of style."""
    st.html(f"<style>{_asset('page.css')}</style>")


def captions_by_model(
    image: str, captions: Mapping[str, Sequence[Caption]], language: str | None = None, *, key: str
) -> None:
    """Captions of an image side by side, under the names of their models."""
    models = [
        {
            "model": model,
            "captions": [{"text": one.text, "confidence": f"{100 * one.confidence:.0f} % confidence"} for one in each],
        }
        for model, each in captions.items()
    ]
    _captions(key=key, data={"image": image, "language": language or "", "models": models})


def status_line(text: str, run: int) -> None:
    """A line that screen readers speak when its text or the number of the `run` changes. Once on a page."""
    _status(key="status", data={"text": text, "version": f"{run} {text}"}, width="content")
