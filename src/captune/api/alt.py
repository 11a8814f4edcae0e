"""`captune alt`: images of web pages that have no alternative text, texts for them, and a patch that holds them."""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.captions.quality import flags_of
from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError, UsageError, first_line
from captune.core.files import atomic_file, open_regular
from captune.core.options import DEFAULT_MODEL, AltOptions, CaptionOptions
from captune.core.progress import SILENT, Progress, track
from captune.core.records import Caption
from captune.pages.alternative import alternative_text, written
from captune.pages.find import Findings, FoundImage, alt_prompt, find_images
from captune.pages.page import Page
from captune.pages.patch import Edit, edited, page_patch, patched, read_patch
from captune.pages.site import Site, is_page

if TYPE_CHECKING:
    from captune.inference.captioner import Captioner
    from captune.inference.prompting import ImagePrompts

PATCH = "captune-alt.patch"
UNSURE = "unsure"


@dataclass(frozen=True)
class AltRow:
    """An image on a page: its address there, its file, what it has (`state`, `alt`), and what it may get.

    `state` is `missing`, `suspicious` or `listed`; `reason` says why nothing is written for it (see
    `captune.pages.find.REASONS`), or why it has no caption. `text` is the new alternative text; it is `proposed` where
    it is in the patch, and else for review because of its `flags`. `confidence` is 0-1, None where nobody tells it.
    """

    page: str
    line: int
    kind: str
    image: str
    file: str | None
    state: str
    reason: str = ""
    alt: str | None = None
    text: str | None = None
    confidence: float | None = None
    flags: dict[str, str] = field(default_factory=dict)
    proposed: bool = False

    @property
    def remains(self) -> bool:
        """Whether it is without a text, and without one in the patch."""
        return self.state == "missing" and not self.proposed


@dataclass(frozen=True)
class AltReport:
    """What was found on the pages of a site, and changed.

    `images` counts all by their states (`captune.pages.page.STATES`). `patch` holds the changes, for files below the
    folder `base`. `changed` are pages
    that were written; `unwritten` and `unread` say why others were not.
    """

    pages: int = 0
    images: Mapping[str, int] = field(default_factory=dict)
    rows: tuple[AltRow, ...] = ()
    patch: bytes = b""
    base: str = ""
    changed: tuple[str, ...] = ()
    unwritten: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def remaining(self) -> int:
        """Images without an alternative text, those not counted that get one by the patch."""
        return sum(row.remains for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        rows = [{**vars(row)} for row in self.rows]
        return {
            "pages": self.pages, "images": dict(self.images), "remaining": self.remaining, "changed": self.changed,
            "unwritten": dict(self.unwritten), "unread": dict(self.unread), "rows": rows,
        }  # fmt: skip


def alt(
    site: str | os.PathLike[str],
    *,
    model: str | None = None,
    patch: str | os.PathLike[str] | None = None,
    write: bool = False,
    check: bool = False,
    apply: str | os.PathLike[str] | None = None,
    html: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | Resolved | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> AltReport:
    """Find the images of a site's pages (HTML, Markdown) that have no alternative text, and write texts for them.

    `site` is a folder or a page. The texts are in the report's rows and its patch; `patch` is a file to write it to
    (never over another), `write` changes the pages themselves, `html` is a page for review to write. With `check`
    nothing is captioned and no model loaded; `apply` is a patch whose changes are made instead, edited or not. A page
    that has changed since it was read, or that a change does not fit, stays as it is. Without `model` the Hub's
    `Salesforce/blip-image-captioning-base` is used. Options are those of `captune alt --help`.
    """
    resolved = resolve("alt", file=config, environment=environment, flags=options, sets=sets)
    chosen = resolved.values.alt
    whole = Site(site, root=chosen.root, exclude=chosen.exclude)
    if apply is not None:
        return _apply(whole, Path(apply))
    if patch is not None and os.path.lexists(patch):
        raise UsageError(
            f"{patch} is there already, and may have been edited.",
            f"Apply it (captune alt {site} --apply {patch}), remove it, or name another: --patch FILE",
        )
    findings = find_images(whole, progress, functional=chosen.functional)
    wanted = [] if check else [found for found in findings.images if _is_wanted(found, chosen)]
    rows = _captioned(wanted, whole, model or DEFAULT_MODEL, resolved, progress) if wanted else {}
    report = _report(findings, rows, _base(whole), chosen)
    if patch is not None and report.patch:
        with atomic_file(patch, "wb") as file:
            file.write(report.patch)
    if write:
        report = _write(report, findings, rows)
    if html is not None:
        from captune.api.alt_page import write_page

        write_page(html, report, whole)
    return report


def _is_wanted(found: FoundImage, chosen: AltOptions) -> bool:
    """Whether a text is to be written for an image."""
    states = ("missing", "suspicious") if chosen.replace_suspicious else ("missing",)
    return found.image.state in states and found.image.slot is not None and not found.reason


def _base(site: Site) -> Path:
    """The folder that the names in a patch begin at: the current one, or for a site elsewhere the site's."""
    top = site.folder if site.folder.is_dir() else site.folder.parent
    return Path.cwd() if top.resolve().is_relative_to(Path.cwd()) else top.resolve()


def _captioned(
    wanted: Sequence[FoundImage], site: Site, model: str, resolved: Resolved, progress: Progress
) -> dict[int, AltRow]:
    """Rows with texts for images, by the images' identities; each file is captioned once in each of its contexts."""
    from captune.inference.captioner import Captioner
    from captune.video.video import as_captioning

    chosen = resolved.values.alt
    captioning = as_captioning(resolved, CaptionOptions(batch_size=chosen.batch_size))
    with progress.task("Loading the model"):
        captioner = Captioner.load(model, config=captioning)
    language = resolved.values.translation.language
    languages = {id(found): language or found.image.context.language or site.language for found in wanted}
    prompts: dict[int, str] = {}
    if captioner.model.codec.answers:
        own = captioner.options.generation.prompt
        prompts = {
            id(found): alt_prompt(found.image, chosen.alt_characters, own, None if language else languages[id(found)])
            for found in wanted
        }
    captions = caption_files(captioner, [(str(found.file), prompts.get(id(found), "")) for found in wanted], progress)
    rows = {}
    for found in wanted:
        prompt = prompts.get(id(found))
        caption = captions.get((str(found.file), prompt or ""))
        rows[id(found)] = _row(found, caption, chosen, languages[id(found)], prompt)
    return rows


def caption_files(
    captioner: Captioner, keys: Iterable[tuple[str, str]], progress: Progress
) -> dict[tuple[str, str], Caption | CaptuneError]:
    """The caption of each (file, prompt), or why there is none.

    What stops the model, such as a budget that is spent, ends the work; the captions until then count.
    """
    distinct = list(dict.fromkeys(keys))
    captions: dict[tuple[str, str], Caption | CaptuneError] = {}
    own = captioner.options.generation.prompt

    def prompt(prompts: ImagePrompts, key: tuple[str, str], image: Any) -> str:
        """The prompt with the fields of the image, such as {stem}, filled in."""
        filled = prompts.read(image, key[0]) if own else None
        return key[1].replace(own, filled, 1) if own and filled else key[1]

    items = ((key, key[0]) for key in distinct)
    stream = captioner.stream(items, prompt_of=prompt if captioner.model.codec.answers else None)
    try:
        for key, found in track(stream, progress, "Captioning", len(distinct)):
            captions[key] = found if isinstance(found, CaptuneError) else found[0]
    except CaptuneError as error:
        if not any(isinstance(each, Caption) for each in captions.values()):
            raise
        progress.warn(f"{error.message} {len(distinct) - len(captions):,} images were not captioned.")
        captions |= {key: error for key in distinct if key not in captions}
    return captions


def _row(
    found: FoundImage,
    caption: Caption | CaptuneError | None,
    chosen: AltOptions,
    language: str | None = None,
    prompt: str | None = None,
) -> AltRow:
    image = found.image
    address = image.addresses[0] if image.addresses else ""
    shown = address if len(address) <= 200 else f"{address[:60]}…"
    file = None if found.file is None else str(found.file)
    at = (str(found.page.name), found.line, image.kind, shown, file, image.state)
    if isinstance(caption, CaptuneError):
        why = (getattr(caption, "reason", "") or caption.message).removeprefix(f"{found.file}: ")
        return AltRow(*at, reason=why, alt=image.alt)
    if caption is None:
        return AltRow(*at, reason=found.reason, alt=image.alt)
    text = alternative_text(caption.text, chosen.alt_characters)
    confidence = caption.confidence if math.isfinite(caption.confidence) else None
    flags = flags_of(caption, language, prompt)
    if not text:
        flags.setdefault("empty", "no words")
    if confidence is not None and confidence < chosen.min_confidence:
        flags[UNSURE] = f"confidence below {chosen.min_confidence:g}"
    proposed = bool(text) and (not flags or chosen.write_flagged)
    return AltRow(
        *at, reason="" if proposed else "review", alt=image.alt, text=text, confidence=confidence, flags=flags,
        proposed=proposed,
    )  # fmt: skip


def _report(findings: Findings, rows: Mapping[int, AltRow], base: Path, chosen: AltOptions) -> AltReport:
    counts = Counter(found.image.state for found in findings.images)
    shown = [
        rows.get(id(found)) or _row(found, None, chosen)
        for found in findings.images
        if found.image.state in ("missing", "suspicious", "listed")
    ]
    parts = []
    for page, edits in _edits(findings, rows):
        name = Path(os.path.relpath(page.path.resolve(), base)).as_posix()
        parts.append(page_patch(name, page.content, edits))
    images = dict(sorted(counts.items()))
    return AltReport(findings.pages, images, tuple(shown), b"".join(parts), str(base), unread=findings.unread)


def _edits(findings: Findings, rows: Mapping[int, AltRow]) -> list[tuple[Page, list[Edit]]]:
    """The changes of each page that has some."""
    found_on: dict[Path, tuple[Page, list[Edit]]] = {}
    for found in findings.images:
        row, slot = rows.get(id(found)), found.image.slot
        if row is None or not row.proposed or slot is None or row.text is None:
            continue
        edits = found_on.setdefault(found.page.path, (found.page, []))[1]
        edits.append(Edit(slot.start, slot.end, written(row.text, slot, found.page)))
    return list(found_on.values())


def _write(report: AltReport, findings: Findings, rows: Mapping[int, AltRow]) -> AltReport:
    """Change the pages themselves; one that is not as it was read stays."""
    reasons = {
        page.name: _replace(page.path, page.content, edited(page.content, edits))
        for page, edits in _edits(findings, rows)
    }
    return replace(report, **_outcome(reasons))


def _outcome(reasons: Mapping[str, str]) -> dict[str, Any]:
    """Pages that were changed (no reason) and those that were not, as a report has them."""
    changed = tuple(page for page, reason in reasons.items() if not reason)
    return {"changed": changed, "unwritten": {page: reason for page, reason in reasons.items() if reason}}


def _replace(path: Path, before: bytes, after: bytes) -> str:
    """Write a page, with the permissions it had, if it is still as it was; the reason why it was not written."""
    try:
        with open_regular(path) as file:
            if file.read() != before:
                return "it was changed meanwhile"
        with atomic_file(path, "wb") as file:
            file.write(after)
            shutil.copymode(path, file.name)
    except (OSError, CaptuneError) as error:
        return first_line(error)
    return ""


def _apply(site: Site, patch: Path) -> AltReport:
    """Make the changes of a patch on the pages of a site."""
    try:
        content = patch.read_bytes()
    except OSError as error:
        raise CaptuneError(
            f"{patch} cannot be read: {error.strerror}.", "Name a patch that captune alt wrote."
        ) from None
    base = _base(site)
    changes = read_patch(content, str(patch))
    for name in changes:
        if not is_page(name) or os.path.isabs(name) or not site.holds(base / name):
            raise CaptuneError(
                f"{patch} changes {name}, which is no page of {site.folder}.",
                "Name the site that the patch was made for, in the same folder.",
            )
    reasons = {}
    for name, hunks in changes.items():
        try:
            before = (base / name).read_bytes()
        except OSError as error:
            reasons[name] = error.strerror or "it cannot be read"
            continue
        after = patched(before, hunks)
        if after is None:
            reasons[name] = "a change does not fit it"
        elif after != before:
            reasons[name] = _replace(base / name, before, after)
    return AltReport(len(changes), **_outcome(reasons))
