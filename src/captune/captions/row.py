"""What a writer writes: one image with what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

from captune.captions.provenance import A_PERSONS, Provenance, provenance_of
from captune.captions.structure import fields_of
from captune.core.errors import CaptuneError
from captune.core.records import Caption

_EXPECTED = "Expected what captune caption writes as jsonl, json, csv or parquet: image, caption, confidence."


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """An image with its captions, best first, or with the reason why it has none.

    `image` is the path or name under which the image was given; `error` is None where `status` is "ok". `flags`
    name what is odd about the best caption (see `review_items`), None where nothing was checked. `provenance` says
    who wrote the captions, None where nobody noted it. `prompt` is what the model read, where it was not the same for
    all images.
    """

    image: str
    captions: tuple[Caption, ...]
    status: Literal["ok", "error"]
    error: str | None
    model: str
    flags: tuple[str, ...] | None = None
    provenance: Provenance | None = None
    prompt: str | None = None

    def joined(self, other: CaptionRow) -> CaptionRow:
        """This row with the captions of another one of the same image behind its own."""
        provenance = None
        if self.provenance is not None or other.provenance is not None:  # what does not say it is a person's
            provenance = (self.provenance or A_PERSONS).joined(other.provenance or A_PERSONS)
        return replace(self, captions=self.captions + other.captions, provenance=provenance)

    @property
    def is_corrected(self) -> bool:
        """Whether a person wrote the best caption, or corrected it, as far as the row tells."""
        return bool(self.provenance and self.captions and not self.provenance.wrote(self.captions[0].text))

    def _repr_html_(self) -> str:
        """In a notebook: the image's name with its captions, or the reason why it has none."""
        captions_html = "<br>".join(caption._repr_html_() for caption in self.captions)
        return f"<code>{escape(self.image)}</code><br>{captions_html or escape(self.error or '')}"

    def to_json(self) -> dict[str, Any]:
        """`image`, `caption`, `confidence`, `status`, `error`; the others where they are known."""
        first = self.captions[0] if self.captions else None
        row: dict[str, Any] = {
            "image": self.image,
            "caption": first.text if first else None,
            "confidence": known(first.confidence) if first else None,
            "status": self.status,
            "error": self.error,
        }
        if first and first.original is not None:
            row["original"] = first.original
        if first and first.cut:
            row["cut"] = True
        if first and first.decorative:
            row["decorative"] = True
        fields = next((caption.fields for caption in self.captions if caption.fields is not None), None)
        if fields is not None:
            row["fields"] = dict(fields)
        if len(self.captions) > 1:
            row["captions"] = [caption_json(caption) for caption in self.captions]
        if self.flags is not None:
            row["flags"] = list(self.flags)
        if self.provenance is not None:
            row["provenance"] = self.provenance.to_json()
        if self.prompt is not None:
            row["prompt"] = self.prompt
        return row


def caption_json(caption: Caption) -> dict[str, Any]:
    """`text`, `confidence`, `original` of a translated caption, `cut` of one that has no end."""
    content: dict[str, Any] = {"text": caption.text, "confidence": known(caption.confidence)}
    if caption.original is not None:
        content["original"] = caption.original
    return content | {name: True for name in ("cut", "decorative") if getattr(caption, name)}


def known(confidence: float) -> float | None:
    """A confidence, or None where nobody tells it: of a person's caption, and of some servers'."""
    return None if math.isnan(confidence) else confidence


def shown_confidence(confidence: float) -> str:
    """A confidence in a table for people, four characters wide."""
    return "   -" if math.isnan(confidence) else f"{confidence:.2f}"


def row_of(value: Any, where: str) -> CaptionRow:
    """The row that captune wrote as an object of JSON, a line of CSV or a row of a table.

    Raises `CaptuneError` where it is none.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("image"), str) or "caption" not in value:
        raise CaptuneError(f"{where}: no image and caption.", _EXPECTED)
    flags = flags_in(value.get("flags"))
    try:
        provenance = provenance_of(value)
    except (TypeError, ValueError) as error:
        raise CaptuneError(f"{where}: {error}.", "Mend it, or remove it from the row.") from None
    if value.get("status") == "error" and not str(value["caption"] or "").strip():  # else a person filled it in
        return CaptionRow(value["image"], (), "error", str(value.get("error") or "failed"), "", flags, provenance)
    names = ("confidence", "original", "cut", "decorative")
    first = {name: value.get(name) for name in names} | {"text": value["caption"]}
    fields = fields_of(value)
    try:
        listed = list(value.get("captions") or [first])
        if listed[0]["text"] != first["text"]:  # somebody corrected the one and not the other
            listed[0] = first
        captions = tuple(_caption_of(one) for one in listed)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise CaptuneError(f"{where}: a confidence that is no number.", _EXPECTED) from None
    if fields is not None:
        captions = (replace(captions[0], fields=fields), *captions[1:])
    prompt = value["prompt"] if isinstance(value.get("prompt"), str) else None
    return CaptionRow(value["image"], captions, "ok", None, "", flags, provenance, prompt)


def _caption_of(value: Mapping[str, Any]) -> Caption:
    cut, decorative = bool(value.get("cut")), bool(value.get("decorative"))
    text, confidence = str(value["text"] or ""), confidence_in(value["confidence"])
    return Caption(text, confidence, original=value.get("original"), cut=cut, decorative=decorative and not text)


def confidence_in(value: Any) -> float:
    """A confidence as a file has it, NaN where there is none; raises ValueError or TypeError for what is no number."""
    return float(value) if value not in (None, "") else float("nan")


def flags_in(value: Any) -> tuple[str, ...] | None:
    """Flags as a file has them: a list, or words with spaces between; None where they were not looked for."""
    return None if value is None else tuple(value.split() if isinstance(value, str) else value)
