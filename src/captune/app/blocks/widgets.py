"""The notebook's demo: upload a picture, choose beams and length, read the caption."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from captune.core.errors import CaptuneError, missing_extra
from captune.core.options import GenerationOptions

DEFAULTS = GenerationOptions()


def build_demo(caption: Callable[..., str]) -> dict[str, Any]:
    """An ipywidgets box around `caption(bytes, num_beams=…, max_new_tokens=…)`.

    Returns `widget`, the box, and `parts`: `upload`, `beams`, `length`, `button`,
    `picture` and `output`, for driving it from code. Raises `CaptuneError` where
    ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ImportError:
        raise missing_extra("ipywidgets", "notebook", "The demo in the notebook") from None
    parts: dict[str, Any] = {
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="Picture"),
        "beams": ipywidgets.IntSlider(DEFAULTS.num_beams, 1, 10, description="Beams"),
        "length": ipywidgets.IntSlider(24, 1, 60, description="Longest"),
        "button": ipywidgets.Button(description="Caption", button_style="primary"),
        "picture": ipywidgets.Image(layout={"max_width": "384px", "display": "none"}),
        "output": ipywidgets.HTML(),
    }

    def show(_: object) -> None:
        chosen = parts["upload"].value
        if not chosen:
            parts["output"].value = "Choose a picture first."
            return
        content = bytes(chosen[0]["content"])
        parts["output"].value = "…"
        try:
            text = caption(content, num_beams=parts["beams"].value, max_new_tokens=parts["length"].value)
        except CaptuneError as error:
            parts["picture"].layout.display = "none"
            parts["output"].value = html.escape(str(error))
            return
        parts["picture"].value = content
        parts["picture"].layout.display = ""
        parts["output"].value = f"<b>{html.escape(text)}</b>"

    parts["button"].on_click(show)
    parts["upload"].observe(show, names="value")
    return {"widget": ipywidgets.VBox(list(parts.values())), "parts": parts}
