"""`captune video`: films in, a caption for each scene out, with its times."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from captune.core.config import Resolved, resolve
from captune.core.errors import CaptuneError
from captune.core.files import as_paths, atomic_file
from captune.core.options import DEFAULT_MODEL, CaptionOptions
from captune.core.options.outputs import VideoOptions
from captune.core.options.verbs import config_of
from captune.core.progress import SILENT, Progress, Task
from captune.datasets.sources.listing import find_image_paths
from captune.inference.captioner import Captioner
from captune.video.frames import FILM_SUFFIXES, Film, FilmError, SampledFrame
from captune.video.scenes import Scene, cut_evenly, find_scenes
from captune.video.subtitles import FilmCaptions, SceneCaption, clock, merge_repeated


def video(
    films: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | None = None,
    frames: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | Resolved | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[FilmCaptions]:
    """Caption films, folders (with what lies in them) and glob patterns, in order, a film at a time.

    A film that cannot be read, or not whole, has status `error` and its reason, and stops nothing. `frames`
    is a folder for the images that were captioned. Without `model` the Hub's
    `Salesforce/blip-image-captioning-base` is used. Options are those of `captune video --help`.
    """
    resolved = resolve("video", file=config, environment=environment, flags=options, sets=sets)
    paths = find_image_paths(as_paths(films), suffixes=FILM_SUFFIXES, what="films")
    chosen = resolved.values.video
    captioning = as_captioning(resolved, CaptionOptions(batch_size=chosen.batch_size))
    return _films(paths, model or DEFAULT_MODEL, captioning, chosen, frames, progress)


def as_captioning(resolved: Resolved, caption: CaptionOptions) -> Resolved:
    """The options of a verb that captions, as a captioner takes them."""
    groups = {name: getattr(resolved.values, name) for name in type(resolved.values).model_fields}
    captioning = ("generation", "translation", "run_on", "endpoint")
    shared = {name: group for name, group in groups.items() if name in captioning}
    return Resolved(config_of("caption")(caption=caption, **shared), resolved.sources)


def _films(
    paths: list[str],
    model: str,
    config: Resolved,
    chosen: VideoOptions,
    frames: str | os.PathLike[str] | None,
    progress: Progress,
) -> Iterator[FilmCaptions]:
    with progress.task("Loading the model"):
        captioner = Captioner.load(model, config=config)
    names = _folders(paths)
    for path in paths:
        folder = None if frames is None else Path(frames) / names[path] if len(paths) > 1 else Path(frames)
        scenes: list[SceneCaption] = []
        duration, damage = 0.0, ""
        try:
            with Film(path, max_pixels=chosen.max_pixels) as film:
                with progress.task(Path(path).name, film.duration or None) as bar:
                    found = _captioned(captioner, film, chosen, folder, bar)
                    scenes.extend(merge_repeated(found) if chosen.merge else found)
                duration, damage = film.end, film.damage
        except FilmError as error:
            damage = error.reason
        yield FilmCaptions(path, tuple(scenes), duration, "error" if damage else "ok", damage or None, model)


def _captioned(
    captioner: Captioner, film: Film, chosen: VideoOptions, folder: Path | None, bar: Task
) -> Iterator[SceneCaption]:
    """The scenes of a film with their captions; of its images a few are held at a time."""

    def images() -> Iterator[tuple[SceneCaption, Any]]:
        for number, scene in enumerate(_scenes(film, chosen, bar), start=1):
            image = film.image(scene.best.frame)
            name = f"{number:04}-{clock(scene.best.time).replace(':', '-')}.jpg"
            saved = None if folder is None else save_jpeg(image, folder / name)
            yield SceneCaption(scene.start, scene.end, scene.best.time, (), frame=saved), image

    # One thread turns images into pixels: each that waits for one is held whole.
    for scene, captions in captioner.stream(images(), workers=1):
        if isinstance(captions, CaptuneError):
            raise captions
        yield SceneCaption(scene.start, scene.end, scene.time, tuple(captions), frame=scene.frame)


def _scenes(film: Film, chosen: VideoOptions, bar: Task) -> Iterator[Scene]:
    def end() -> float:
        return film.end

    if chosen.every:
        return cut_evenly(_watched(film.samples(1 / chosen.every), film, bar), end)
    samples = _watched(film.samples(chosen.sample_fps), film, bar)
    return find_scenes(samples, end, threshold=chosen.scene_threshold, least=chosen.min_scene_seconds)


def _watched(samples: Iterator[SampledFrame], film: Film, bar: Task) -> Iterator[SampledFrame]:
    """The samples, with a bar that moves by the film's seconds."""
    done, whole = 0.0, f" of {clock(film.duration)}" if film.duration else ""
    for sample in samples:
        yield sample
        if sample.time - done >= 1:
            bar.advance(int(sample.time - done))
            done += int(sample.time - done)
            bar.note(f"{clock(sample.time)}{whole}")


def _folders(paths: list[str]) -> dict[str, str]:
    """A name for each film's folder of images: no two films share one."""
    names: dict[str, str] = {}
    for path in paths:
        stem = Path(path).stem
        taken = set(names.values())
        names[path] = next(n for n in (stem, *(f"{stem}-{k}" for k in range(2, len(paths) + 2))) if n not in taken)
    return names


def save_jpeg(image: Any, path: Path) -> str:
    with atomic_file(path, "wb") as file:
        image.save(file, "JPEG", quality=95)
    return str(path)
