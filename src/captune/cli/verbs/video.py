from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from captune.cli.flags import Chosen, Model, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import live_stdout, note
from captune.core.config import resolve
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED, UsageError
from captune.core.film_options import VideoConfig


def video(
    films: Annotated[list[str], typer.Argument(metavar="FILM...", help="Films, folders of films, or globs.")],
    chosen: Chosen,
    model: Model = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="File for the captions, not stdout; subtitles of several films: a folder.",
        ),
    ] = None,
    frames: Annotated[
        str | None, typer.Option("--frames", metavar="DIR", help="Folder for the pictures that were captioned.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Caption films: a line for each scene, with its times.

    A film that cannot be read, or not whole, does not stop the others: its reason is shown, and the exit
    code is 3 (1 if nothing could be captioned).
    """
    from captune.app.video import video as watch
    from captune.data.film_captions import FORMS, SUBTITLES, FilmCaptions, has_scenes
    from captune.data.writers.existing import Existing
    from captune.data.writers.whole_file import WholeFiles
    from captune.data.writers.writer import encodable, is_folder

    progress = TerminalProgress(quiet=quiet)
    told = chosen.sources
    options = resolve(
        VideoConfig, file=told["config"], environment=os.environ, flags=chosen.flags, sets=told["sets"]
    ).values.video
    format, files = options.format, WholeFiles(Existing(options.existing))
    out = None if out == "-" else out
    folder = Path(out) if out is not None and is_folder(Path(out)) else None
    stream, written = live_stdout(), set[str]()
    if out is not None and (folder is None or format not in SUBTITLES):
        files.check(Path(out) if folder is None else _place(folder, "captions", format))

    def put(name: str, done: list[FilmCaptions]) -> None:
        text = encodable(FORMS[format](done), "utf-8" if out else stream.encoding)
        if out is None:
            stream.write(text)
            stream.flush()
        elif folder is None:
            files.write(Path(out), text)
        else:
            while name in written:
                name += "-2"
            written.add(name)
            if not files.write(path := _place(folder, name, format), text):
                progress.warn(f"{path} was kept: captune did not write it, or it was changed (--existing replace).")

    done: list[FilmCaptions] = []
    for film in watch(
        films, model=model, frames=frames, progress=progress, environment=os.environ, **told, **chosen.flags
    ):
        done.append(film)
        if film.error:
            progress.warn(f"{film.film}: {film.error}")
        if format in SUBTITLES:
            if folder is None and len(done) > 1:
                raise UsageError(f"A {format} file holds one film.", "Give a folder for several: --out DIR")
            if film.scenes:
                put(Path(film.film).stem, [film])
        elif format == "text" and out is None:
            note(film.film)
            put("", [film])
    whole = None if out is None else Path(out) if folder is None else _place(folder, "captions", format)
    if format not in SUBTITLES and not any(film.scenes for film in done) and whole is not None and has_scenes(whole):
        progress.warn(f"{whole} was kept: it holds captions, and no film could be captioned now.")
    elif format == "json" or (format == "text" and whole is not None and any(film.scenes for film in done)):
        put("captions", done)
    bad = sum(film.status == "error" for film in done)
    if bad:
        progress.warn(f"{bad} of {len(done)} films could not be captioned, or not whole.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if any(film.scenes for film in done) else EXIT_FAILURE)


def _place(folder: Path, name: str, format: str) -> Path:
    """The file of a folder that captions go to."""
    return folder / f"{name}.{'txt' if format == 'text' else format}"


app = verb(video, VideoConfig, sources=("config", "sets"))
