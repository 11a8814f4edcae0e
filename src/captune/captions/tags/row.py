"""What a writer of keywords writes: one image with its keywords."""

from dataclasses import dataclass
from typing import Any, Literal

from captune.captions.row import CaptionRow
from captune.core.records import Caption


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword, and the probability (0–1) that it is true of its image; None where it is from a caption."""

    text: str
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class TagRow:
    """An image with its keywords, the likeliest first, or with the reason why it was not tagged.

    `caption` is the caption they are from, None where a matcher found them.
    """

    image: str
    keywords: tuple[Keyword, ...]
    status: Literal["ok", "error"] = "ok"
    error: str | None = None
    caption: str | None = None

    def to_json(self) -> dict[str, Any]:
        """`image`, `keywords`, `probabilities` or `caption`, `status`, `error`."""
        row: dict[str, Any] = {"image": self.image, "keywords": [keyword.text for keyword in self.keywords]}
        if self.caption is None:
            row["probabilities"] = [keyword.probability for keyword in self.keywords]
        else:
            row["caption"] = self.caption
        return {**row, "status": self.status, "error": self.error}

    def to_captions(self) -> CaptionRow:
        """The same with a caption for each keyword, as the writers of files beside images take it."""
        captions = tuple(Caption(keyword.text, float("nan")) for keyword in self.keywords)
        return CaptionRow(self.image, captions, self.status, self.error, "")
