"""All images of a site, with the files that they are, and why nothing is written for some."""

from dataclasses import dataclass
from pathlib import Path

from captune.core.progress import Progress, track
from captune.pages.html import MOST_NEARBY, HtmlImages
from captune.pages.markdown import MarkdownImages
from captune.pages.page import Context, Page, PageError, PageImage, read_page
from captune.pages.site import Site, is_markdown

# Why an image without a text gets none.
REASONS = {
    "functional": "It is alone in a link or a button: its text says what that does, not what the image shows.",
    "remote": "It is on another server; nothing is fetched.",
    "data": "It is in the page itself (`data:`).",
    "svg": "It is a drawing (SVG), which no captioner reads.",
    "not found": "There is no such file.",
    "outside": "Its file is outside of the site.",
    "template": "A template makes its address or its attributes.",
    "no address": "It has no address.",
    "area": "It is a part of an image map: its text says where the link leads.",
    "background": "It is a background of the style.",
    "front matter": "A theme shows it, or does not.",
}


@dataclass(frozen=True)
class FoundImage:
    """An image on a page: the `file` that it is, or the `reason`, one of `REASONS`, why nothing is written for it."""

    page: Page
    image: PageImage
    file: Path | None
    reason: str

    @property
    def line(self) -> int:
        return self.page.line(self.image.offset)


@dataclass(frozen=True)
class Findings:
    """The images of a site in the order of its pages, the number of pages, and pages that could not be read: why."""

    images: tuple[FoundImage, ...]
    pages: int
    unread: dict[str, str]


def find_images(site: Site, progress: Progress, *, functional: bool = False) -> Findings:
    """Look through the pages of a site; with `functional` images alone in links are as others."""
    images: list[FoundImage] = []
    unread: dict[str, str] = {}
    paths = list(site.pages())
    for path in track(paths, progress, "Reading pages", len(paths)):
        try:
            page = read_page(path, str(path), markdown=is_markdown(path))
        except PageError as error:
            unread[str(path)] = error.reason
            continue
        images += _on_page(site, page, functional)
    return Findings(tuple(images), len(paths), unread)


def _on_page(site: Site, page: Page, functional: bool) -> list[FoundImage]:
    if is_markdown(page.path):
        found, base = MarkdownImages(page).images, ""
    else:
        html = HtmlImages(page, page.content)
        found, base = html.images, html.base
    images = []
    for image in found:
        location = site.locate(page.path, image.addresses, base)
        reason = image.reason or ("functional" if image.functional and not functional else location.reason)
        images.append(FoundImage(page, image, location.file, reason))
    return images


INSTRUCTION = (
    "Write the alternative text of this image on a web page, for people who cannot see it: one sentence of at most "
    "{characters} characters that says what matters about the image there. Do not begin with 'Image of', and do not "
    "repeat the text beside it. Answer with the sentence alone."
)
FUNCTIONAL = (
    "This image is all that a link or a button on a web page holds. Write its alternative text of at most "
    "{characters} characters: what the link is for or where it leads, not how the image looks. Answer with the text "
    "alone."
)


def alt_prompt(image: PageImage, characters: int, instruction: str | None, language: str | None) -> str:
    """What a model that answers prompts reads with an image: `instruction`, else captune's, and the image's context."""
    context: Context = image.context
    own = FUNCTIONAL if image.functional else INSTRUCTION
    around = {
        "Title of the page": context.title,
        "Heading above the image": context.heading,
        "Caption below the image": context.figure_caption,
        "Text beside the image": context.nearby,
        "The link leads to": context.link if image.functional else "",
        "Language of the text": language or "",
    }
    lines = [f"{name}: {value[:MOST_NEARBY]}" for name, value in around.items() if value]
    return "\n".join([instruction or own.format(characters=characters), *lines])
