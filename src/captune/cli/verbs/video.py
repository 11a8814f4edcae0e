from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captune.cli.flags import Chosen, Model, Quiet, verb
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import live_stdout, note
from captune.core.errors import EXIT_FAILURE, EXIT_SOME_IMAGES_FAILED, UsageError
from captune.core.files.existing import ExistingCaptions
from captune.core.options.outputs import VideoOptions

if TYPE_CHECKING:
    from captune.video.subtitles import FilmCaptions


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
        str | None, typer.Option("--frames", metavar="DIR", help="Folder for the images that were captioned.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Caption films: one line per scene, with start and end.

    A film that cannot be read, or not whole, does not stop the others: its reason is shown, and the exit
    code is 3 (1 if nothing could be captioned).
    """
    from captune.video.video import video as caption_films

    progress = TerminalProgress(quiet=quiet)
    resolved = chosen.resolve("video")
    output = _Output(out, resolved.values.video, progress)
    done: list[FilmCaptions] = []
    for film in caption_films(films, model=model, frames=frames, progress=progress, config=resolved):
        done.append(film)
        if film.error:
            progress.warn(f"{film.film}: {film.error}")
        output.add(film, count=len(done))
    output.end(done)
    bad = sum(film.status == "error" for film in done)
    if bad:
        progress.warn(f"{bad} of {len(done)} films could not be captioned, or not whole.")
        raise typer.Exit(EXIT_SOME_IMAGES_FAILED if any(film.scenes for film in done) else EXIT_FAILURE)


class _Output:
    """Where captions of films go: stdout, one file, or a file for each film in a folder."""

    def __init__(self, out: str | None, options: VideoOptions, progress: TerminalProgress) -> None:
        from captune.captions.writers.writer import ProtectedFiles, is_folder
        from captune.video.subtitles import SUBTITLES

        self.format, self.progress = options.format, progress
        self.path = None if out is None or out == "-" else Path(out)
        self.in_folder = self.path is not None and is_folder(self.path)
        self.subtitles = self.format in SUBTITLES
        self.files, self.stream = ProtectedFiles(ExistingCaptions(options.existing)), live_stdout()
        self._names: set[str] = set()
        if self.path is not None and not (self.in_folder and self.subtitles):
            self.files.check(self._file("captions"))

    def add(self, film: FilmCaptions, *, count: int) -> None:
        """Write the film, the `count`th, if it need not wait for the others."""
        if self.subtitles:
            if not self.in_folder and count > 1:
                raise UsageError(f"A {self.format} file holds one film.", "Give a folder for several: --out DIR")
            if film.scenes:
                self._write(Path(film.film).stem, [film])
        elif self.format == "text" and self.path is None:
            note(film.film)
            self._write("", [film])

    def end(self, films: list[FilmCaptions]) -> None:
        """Write what is one file of all films; captions that are there stay where no film could be captioned."""
        from captune.video.subtitles import has_scenes

        captioned = any(film.scenes for film in films)
        if self.subtitles:
            return
        if not captioned and self.path is not None and has_scenes(whole := self._file("captions")):
            self.progress.warn(f"{whole} was kept: it holds captions, and no film could be captioned now.")
        elif self.format == "json" or (self.path is not None and captioned):
            self._write("captions", films)

    def _write(self, name: str, films: list[FilmCaptions]) -> None:
        from captune.captions.writers.writer import encodable
        from captune.video.subtitles import FORMS

        text = encodable(FORMS[self.format](films), "utf-8" if self.path else self.stream.encoding)
        if self.path is None:
            self.stream.write(text)
            self.stream.flush()
            return
        while self.in_folder and name in self._names:
            name += "-2"
        self._names.add(name)
        file = self._file(name)
        if not self.files.write(file, text) and self.in_folder:
            self.progress.warn(f"{file} was kept: captune did not write it, or it was changed (--existing replace).")

    def _file(self, name: str) -> Path:
        assert self.path is not None, "captions go to stdout"
        suffix = "txt" if self.format == "text" else self.format
        return self.path / f"{name}.{suffix}" if self.in_folder else self.path


app = verb(video)
