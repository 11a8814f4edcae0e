"""COCO 2017 captions from cocodataset.org: 118,287 training and 5,000 validation images, 19 GB."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import disk_error, write_text
from captune.core.progress import SILENT, Progress
from captune.datasets.downloads.http import fetch, remove_download

# Plain http: the server's certificate is for another name. Each zip's own checksums guard the content.
_UNFINISHED = ".unfinished-download"
HOST = "http://images.cocodataset.org"


@dataclass(frozen=True)
class Archive:
    """A zip on the server and the folder it unpacks to; `only` names the members that are wanted."""

    path: str
    folder: str
    only: str = ""


ARCHIVES = (
    Archive("annotations/annotations_trainval2017.zip", "annotations", "captions_"),
    Archive("zips/val2017.zip", "val2017"),
    Archive("zips/train2017.zip", "train2017"),
)


def download_coco(
    folder: Path, progress: Progress = SILENT, *, host: str = HOST, archives: tuple[Archive, ...] = ARCHIVES
) -> Path:
    """Bring the images and captions into `folder`; a folder that is no unfinished download is taken as it is."""
    unfinished = folder / _UNFINISHED
    # A kill may have come before even that was written.
    there = folder.is_dir() and [path for path in folder.iterdir() if not path.name.startswith(f".{_UNFINISHED}.")]
    if there and not unfinished.exists():
        return folder
    write_text(unfinished, "captune goes on with this download when it is asked for coco again.\n")
    for archive in archives:
        file = folder / Path(archive.path).name
        if not (folder / archive.folder).is_dir():
            _unpack(fetch(f"{host}/{archive.path}", file, progress=progress), folder, archive, progress)
        remove_download(file)  # also that of a run that was killed when it had been unpacked
    unfinished.unlink()
    return folder


def _unpack(file: Path, folder: Path, archive: Archive, progress: Progress) -> None:
    """Unpack into a folder that gets its name when it is whole."""
    partial = folder / f".{archive.folder}.part"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as zipped:
            members = [
                member
                for member in zipped.infolist()
                if not member.is_dir() and Path(member.filename).name.startswith(archive.only)
            ]
            needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
            if needed > free:
                raise CaptuneError(
                    f"{folder} has {free / 1e9:.1f} GB free, unpacking {file.name} needs {needed / 1e9:.1f} GB.",
                    "Free some space or choose another folder; the download is kept.",
                )
            partial.mkdir(parents=True)
            with progress.task(f"Unpack {file.name}", len(members)) as task:
                for member in members:
                    with zipped.open(member) as source, open(partial / Path(member.filename).name, "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    task.advance()
        os.replace(partial, folder / archive.folder)
    except zipfile.BadZipFile as error:
        file.unlink()
        raise CaptuneError(f"{file} is damaged ({error}).", "It was removed: run the command again.") from None
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
