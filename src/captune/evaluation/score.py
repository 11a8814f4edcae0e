"""`captune score`: captions that were made elsewhere against references."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import as_paths
from captune.core.progress import SILENT, Progress
from captune.core.text import first_few
from captune.datasets.tables.rows import listed
from captune.evaluation.pairing import STDIN, Results, image_files_by_id, pair_images, read_results
from captune.metrics.corpus import metric_context
from captune.metrics.ngrams import DocumentFrequencies
from captune.metrics.report import MetricReport
from captune.metrics.significance import Difference, compare_with_first

Names = str | os.PathLike[str]


@dataclass(frozen=True)
class Scored:
    """Reports by file of captions, and what the first has over each other one.

    `notes` say what was left out, matched by name, or empty.
    """

    reports: dict[str, MetricReport]
    comparisons: dict[str, dict[str, Difference]]
    notes: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the first file, 0–1 (CIDEr-D as it is)."""
        return next(iter(self.reports.values())).scores


def score(
    hypotheses: Names | Sequence[Names],
    references: Names | Sequence[Names],
    *,
    pictures: Names | None = None,
    save_document_frequencies: Names | None = None,
    config: Names | None = None,
    preset: str | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Scored:
    """Measure files of captions, each a model's, against the references of the same images.

    Several files of `references` add up. `-` is standard input. `pictures` is the folder of
    the images, for metrics that look at them. Options are those of
    `captune score --help`. Raises `CaptuneError` where files cannot be read or do not fit
    together; with `on_mismatch="skip"` what does not fit is left out and told in `notes`.
    """
    resolved = resolve("score", preset=preset, file=config, environment=environment, flags=options, sets=sets)
    chosen, skip = resolved.values.measure, resolved.values.score.on_mismatch == "skip"
    caption_files, reference_files = list(map(str, as_paths(hypotheses))), list(map(str, as_paths(references)))
    if [*caption_files, *reference_files].count(STDIN) > 1:
        raise UsageError("Standard input can be only one of the files.", "Write one of them to a file.")
    from captune.metrics.measure import measure

    notes: list[str] = []
    parts = {name: _checked(read_results(name, "references"), skip, notes) for name in dict.fromkeys(reference_files)}
    read = {name: _checked(read_results(name, "captions"), skip, notes) for name in dict.fromkeys(caption_files)}
    _refuse_same_texts(read, parts)
    truth = _joined(list(parts.values()), notes)
    if save_document_frequencies is not None:
        made = DocumentFrequencies.of(truth.texts.values(), ", ".join(PurePath(name).name for name in reference_files))
        made.save(save_document_frequencies)
    fitted = {name: _fit(results, truth, skip, notes) for name, results in read.items()}
    common = set.intersection(*(set(captions) for captions, _ in fitted.values()))
    if not common:
        raise CaptuneError("No image has both a caption and references.", "Give files about the same images.")
    if any(len(captions) > len(common) for captions, _ in fitted.values()):
        notes.append(f"Only the {len(common)} images that every file has a caption for are measured.")
    context = metric_context(
        chosen, pictures=None if pictures is None else image_files_by_id(pictures, sorted(common), truth.names)
    )
    reports = {}
    for name, (captions, groups) in fitted.items():
        ids = sorted(common) if len(fitted) > 1 else list(captions)
        pair = {key: captions[key] for key in ids}, {key: groups[key] for key in ids}
        with progress.task(f"Measuring {name}"):
            reports[name] = measure(*pair, chosen.metrics, context, chosen.resamples, progress=progress)
        notes += [line for line in reports[name].notes if line not in notes]
        if empty := reports[name].settings["captions"]["empty"]:
            notes.append(f"{name}: {empty} of {len(ids)} captions have no words; they count as 0.")
    return Scored(reports, compare_with_first(reports, chosen.resamples), tuple(notes))


def _checked(found: Results, skip: bool, notes: list[str]) -> Results:
    """What was read, if every row of it can be used, or if `skip` leaves the others out."""
    if found.problems:
        message = f"{found.source}: rows that cannot be used, {len(found.problems):,}:\n{listed(found.problems)}"
        if not skip:
            raise CaptuneError(message, "Mend them, or --on-mismatch skip leaves them out and says so.")
        notes.append(f"{message}\nThey are left out.")
    if not found.texts and not found.failed:
        raise CaptuneError(
            f"{found.source} holds no captions that can be used.",
            'Expected for example [{"image_id": 1, "caption": "…"}], {"id": "…"} or image,caption in a table.',
        )
    return found


def _refuse_same_texts(captions_of: Mapping[str, Results], truth: Mapping[str, Results]) -> None:
    """One file for both sides must hold both: the same sentences against themselves are always perfect."""
    for name, captions in captions_of.items():
        references = next((part for other, part in truth.items() if _same_file(name, other)), None)
        if references is not None and captions.texts == references.texts:
            raise CaptuneError(
                f"{name} is given for both sides, and holds one kind of captions only.",
                "Give the references' file, or name its columns 'prediction' and 'reference'.",
            )


def _same_file(one: str, other: str) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def _joined(parts: list[Results], notes: list[str]) -> Results:
    """References of several files, added up by image."""
    first, *others = parts
    for other in others:
        if other.numbered != first.numbered:
            raise _only_lines(first, other)
        if other.numbered and first.numbered and len(other.texts) != len(first.texts):
            raise CaptuneError(
                f"{first.source} has {len(first.texts)} lines and {other.source} has {len(other.texts)}.",
                "Line i of every text file belongs to image i: write an empty line where there is no reference.",
            )
        for key, texts in other.texts.items():
            first.texts.setdefault(key, []).extend(texts)
        first.names = {**other.names, **first.names}
        first.rejected = {**other.rejected, **first.rejected}
    for key, texts in list(first.texts.items()):
        # A blank line or cell is no reference, unless it is the only one.
        first.texts[key] = [text for text in texts if text.strip()] or texts[:1]
    rejected = sum(sum(part.rejected.values()) for part in parts)
    if rejected:
        notes.append(f"{rejected:,} references are left out: the file marks them as rejected or ready-made.")
    return first


def _only_lines(one: Results, other: Results) -> CaptuneError:
    lines, named = (one, other) if one.numbered else (other, one)
    return CaptuneError(
        f"{named.source} ({named.format}) names its images, {lines.source} ({lines.format}) does not: one of them has "
        "no image ids.",
        f"Write the image before each line of {lines.source}: name<TAB>caption. Or give both as lines of plain text.",
    )


def _fit(found: Results, truth: Results, skip: bool, notes: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions and references by the same ids. What does not fit is an error, or left out and noted."""
    if found.numbered != truth.numbered:
        raise _only_lines(found, truth)
    if found.numbered and len(found.texts) != len(truth.texts):
        raise CaptuneError(
            f"{found.source} has {len(found.texts)} lines and {truth.source} has {len(truth.texts)}.",
            "Line i of both is image i: write an empty line where there is no caption.",
        )
    groups = truth.texts
    renamed, how = ({}, "") if found.numbered else pair_images(found, truth)
    if how:
        notes.append(f"{found.source}: images were matched by {how}.")
    texts_of = {renamed.get(key, key): texts for key, texts in found.texts.items()}
    reasons = {renamed.get(key, key): reason for key, reason in found.failed.items()}
    unfit = [key for key in texts_of if key not in groups and key in truth.rejected]
    if unfit:
        notes.append(f"{found.source}: left out: {len(unfit)} images all of whose references are rejected.")
        texts_of = {key: texts for key, texts in texts_of.items() if key in groups or key not in truth.rejected}
    wrong: list[str] = []
    several = [key for key, texts in texts_of.items() if len(texts) > 1]
    if several:
        wrong.append(f"{len(several)} images have several captions: {first_few(several)}")
    unknown = [key for key in texts_of if key not in groups]
    if unknown:
        wrong.append(f"{len(unknown)} of {len(texts_of)} captions have no references: {first_few(unknown)}")
    failed = [key for key in groups if key in reasons]
    if failed:
        wrong.append(f"{len(failed)} images could not be captioned: {first_few(failed)} ({reasons[failed[0]]})")
    missing = [key for key in groups if key not in texts_of and key not in reasons]
    if missing:
        wrong.append(f"{len(missing)} of {len(groups)} images with references have no caption: {first_few(missing)}")
    if wrong and not skip:
        raise CaptuneError(
            f"{found.source} does not fit {truth.source}:\n  " + "\n  ".join(wrong),
            f"Ids there look like {first_few(groups)}. Mend the files, or --on-mismatch skip leaves these images out "
            "and says so.",
        )
    notes += [f"{found.source}: left out: {line}." for line in wrong]
    captions = {key: texts[0] for key, texts in texts_of.items() if len(texts) == 1 and key in groups}
    return captions, {key: groups[key] for key in captions}
