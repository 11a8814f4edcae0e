"""The notebook's demo: upload a picture, choose beams and length, read the caption, see where the model looked."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

from captune.core.errors import CaptuneError, missing_extra
from captune.core.options import GenerationOptions

if TYPE_CHECKING:
    from captune.app.captioner import Captioner
    from captune.core.records import Caption

DEFAULTS = GenerationOptions()
SMALL = "384px"


def build_demo(captioner: Captioner) -> dict[str, Any]:
    """An ipywidgets box around a captioner.

    Returns `widget`, the box, and `parts`: `upload`, `beams`, `length`, `looked` (show where the
    model looked for each word), `button`, `picture` and `output`, for driving it from code. Raises
    `CaptuneError` where ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ImportError:
        raise missing_extra("ipywidgets", "notebook", "The demo in the notebook") from None
    parts: dict[str, Any] = {
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="Picture"),
        "beams": ipywidgets.IntSlider(DEFAULTS.num_beams, 1, 10, description="Beams"),
        "length": ipywidgets.IntSlider(24, 1, 60, description="Longest"),
        "looked": ipywidgets.Checkbox(False, description="Show where the model looked"),
        "button": ipywidgets.Button(description="Caption", button_style="primary"),
        "picture": ipywidgets.Image(layout={"max_width": SMALL, "display": "none"}),
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
            asked = {"num_beams": parts["beams"].value, "max_new_tokens": parts["length"].value}
            said = captioner(content, **asked)
            shown = _sheet(captioner, content, said, asked) if parts["looked"].value else content
        except CaptuneError as error:
            parts["picture"].layout.display = "none"
            parts["output"].value = html.escape(str(error))
            return
        parts["picture"].value = shown
        parts["picture"].layout.max_width = "100%" if parts["looked"].value else SMALL
        parts["picture"].layout.display = ""
        parts["output"].value = f"<b>{html.escape(said.text)}</b> {said.confidence:.0%} confidence"

    parts["button"].on_click(show)
    parts["upload"].observe(show, names="value")
    parts["looked"].observe(show, names="value")
    return {"widget": ipywidgets.VBox(list(parts.values())), "parts": parts}


def _sheet(captioner: Captioner, content: bytes, said: Caption, asked: dict[str, Any]) -> bytes:
    """The attention maps of a caption as PNG."""
    file = io.BytesIO()
    captioner.explain(content, said, **asked).overlay().save(file, "PNG")
    return file.getvalue()
