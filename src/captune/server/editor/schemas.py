"""Bodies of the editor's requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from captune.core.options.library import FilterOptions
from captune.datasets.splits import split_name
from captune.library.bulk import BulkChange, KeywordChange, MarkChange, SplitChange, StatusChange
from captune.library.query import Condition, condition_of
from captune.library.replacing import MAX_LENGTH, How, Replacement

Status = Literal["draft", "approved", "rejected"]
Text = Annotated[str, Field(max_length=MAX_LENGTH)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Split = Annotated[str, Field(max_length=64, pattern=r"^([a-z0-9][a-z0-9_.-]*)?$")]
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


class SetSplit(_Body):
    """The split of an image of a data set; empty: none."""

    kind: Literal["split"]
    image: int
    split: Split


class SetKeywords(_Body):
    """Keywords added to an image and taken from it."""

    kind: Literal["keywords"]
    image: int
    add: list[Word] = []
    remove: list[Word] = []


AnyChange = Annotated[
    WriteCaption | RemoveCaption | SetStatus | SetMark | SetSplit | SetKeywords, Field(discriminator="kind")
]


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
    images: list[int] | None = Field(
        None, description="Only these images, such as those that were found by meaning.", max_length=MAX_CHANGES
    )

    @property
    def condition(self) -> Condition:
        condition = condition_of(self.filter)
        return condition if self.images is None else condition.among(self.images)


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


class StatusOfAll(_Body):
    """Captions approved or rejected (only drafts, unless the filter has a status), or made drafts."""

    kind: Literal["status"]
    status: Status

    @property
    def name(self) -> str:
        return {"approved": "approve all", "rejected": "reject all", "draft": "make all drafts"}[self.status]


class KeywordsOfAll(_Body):
    """Keywords added to all images and taken from them."""

    kind: Literal["keywords"]
    add: list[Word] = []
    remove: list[Word] = []

    @model_validator(mode="after")
    def _check_some(self) -> KeywordsOfAll:
        if not any(word.strip() for word in (*self.add, *self.remove)):
            raise ValueError("no keyword is given")
        return self

    @property
    def name(self) -> str:
        return f"{'add' if self.add else 'take away'} “{', '.join((*self.add, *self.remove))[:100]}”"


class MarkOfAll(_Body):
    """The mark of all images; null: none."""

    kind: Literal["mark"]
    mark: Word | None

    @property
    def name(self) -> str:
        return f"mark all “{self.mark}”" if self.mark else "take marks away"


class SplitOfAll(_Body):
    """The split of all images of a data set; empty: none."""

    kind: Literal["split"]
    split: Split

    @property
    def name(self) -> str:
        return f"put all into “{self.split}”" if self.split else "take all out of their splits"


class BulkRequest(Selection):
    """The same change of all images of the selection, or of their captions."""

    change: Annotated[StatusOfAll | KeywordsOfAll | MarkOfAll | SplitOfAll, Field(discriminator="kind")]
    digest: str | None = Field(None, description="That of what was counted: changes it. Without: counts.")

    @property
    def bulk_change(self) -> BulkChange:
        change = self.change
        if isinstance(change, StatusOfAll):
            return StatusChange(change.status, self.filter.status is None and change.status != "draft")
        if isinstance(change, MarkOfAll):
            return MarkChange(change.mark)
        if isinstance(change, SplitOfAll):
            return SplitChange(split_name(change.split) if change.split else "")
        return KeywordChange(*([" ".join(word.split()) for word in words] for words in (change.add, change.remove)))


class DraftRequest(_Body):
    """Captions by a model for images."""

    model: str = Field(max_length=500)
    images: list[int] = Field(min_length=1, max_length=16)
