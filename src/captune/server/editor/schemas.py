"""Bodies of the editor's requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from captune.core.options.library import FilterOptions
from captune.library.replacing import MAX_LENGTH, How, Replacement

Status = Literal["draft", "approved", "rejected"]
Text = Annotated[str, Field(max_length=MAX_LENGTH)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
MAX_CHANGES = 1000


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WriteCaption(_Body):
    """A person's caption of an image, in the place of the caption `of`, else beside those that it has."""

    kind: Literal["caption"]
    image: int
    text: Text
    of: int | None = Field(None, description="The caption that it corrects; 409 where that does not stand any more.")
    language: str | None = Field(None, max_length=20)


class RemoveCaption(_Body):
    """A caption taken away; its history stays."""

    kind: Literal["remove"]
    image: int
    caption: int


class SetStatus(_Body):
    """A caption approved or rejected; 409 where its status is not `was` any more."""

    kind: Literal["status"]
    caption: int
    status: Status
    was: Status | None = None


class SetMark(_Body):
    """The mark of an image; null: none."""

    kind: Literal["mark"]
    image: int
    mark: Word | None


class SetKeywords(_Body):
    """Keywords added to an image and taken from it."""

    kind: Literal["keywords"]
    image: int
    add: list[Word] = []
    remove: list[Word] = []


AnyChange = Annotated[WriteCaption | RemoveCaption | SetStatus | SetMark | SetKeywords, Field(discriminator="kind")]


class StepRequest(_Body):
    """Changes that are one step: all of them, or none."""

    name: str = Field("edit", min_length=1, max_length=200, description="What is undone, in words.")
    changes: list[AnyChange] = Field(min_length=1, max_length=MAX_CHANGES)
    rewrites: int | None = Field(
        None, description="The step before, where this goes on with writing the caption that it wrote."
    )


class Selection(_Body):
    """Which images, or their captions, are meant: words of captions, and conditions as `captune search` has them."""

    words: str = Field("", max_length=2000)
    filter: FilterOptions = FilterOptions()


class ReplaceRequest(Selection):
    """Find and replace, or the same beginning or end, in captions of the selection."""

    how: How = "plain"
    find: str = Field("", max_length=2000)
    replace: str = Field("", max_length=2000)
    match_case: bool = True
    whole_words: bool = False
    digest: str | None = Field(
        None, description="That of the changes that were shown: makes them. Without: shows them."
    )
    without: list[int] = Field([], description="Captions that are left as they are.", max_length=MAX_CHANGES)
    offset: int = Field(0, ge=0, description="The first change to show.")
    limit: int = Field(100, ge=1, le=1000)

    @property
    def replacement(self) -> Replacement:
        return Replacement(self.how, self.find, self.replace, self.match_case, self.whole_words)


class DraftRequest(_Body):
    """Captions by a model for images."""

    model: str = Field(max_length=500)
    images: list[int] = Field(min_length=1, max_length=16)
