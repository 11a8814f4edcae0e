"""Data sets by name: Flickr8k and Flickr30k through kagglehub, which keeps and resumes its own downloads, and COCO 2017
(118,287 training and 5,000 validation images, 19 GB) from its own server."""

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from captune.core.errors import CaptuneError, UsageError, did_you_mean, first_line, missing_extra
from captune.core.files import atomic_folder, disk_error, write_text
from captune.core.progress import SILENT, Progress
from captune.datasets.downloads.http import fetch, remove_download

FLICKR = {"flickr8k": "adityajn105/flickr8k", "flickr30k": "hsankesara/flickr-image-dataset"}
KAGGLE_INPUT = Path("/kaggle/input")
# Kaggle's copy of Flickr8k lacks the official split lists; the original text archive has them.
SPLIT_LISTS = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip"


def _from_kaggle(name: str, folder: Path, progress: Progress) -> Path:
    try:
        import kagglehub
        from kagglehub import exceptions
    except ImportError:
        raise missing_extra("kagglehub", "kaggle", f"Downloading {name}") from None
    handle = FLICKR[name]
    progress.info(f"{name} comes from kaggle.com/datasets/{handle}.")
    otherwise = f"or download it elsewhere and point at it: captune prepare FOLDER --out DIR (or put it into {folder})"
    try:
        return Path(kagglehub.dataset_download(handle))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError, ValueError) as error:
        raise _credentials(name, str(error), otherwise) from None
    except (exceptions.DataCorruptionError, exceptions.BackendError, exceptions.NotFoundError) as error:
        raise CaptuneError(
            f"Kaggle did not give {name}: {_first(error)}.", f"Run the command again, {otherwise}."
        ) from None
    except OSError as error:  # also what requests raises
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise _credentials(name, f"Kaggle answered {status}", otherwise) from None
        if status is not None:
            message = f"www.kaggle.com answered {status} for {handle}: {_first(error)}."
        elif error.errno is not None and error.filename is not None:
            message = f"{name} cannot be written to Kaggle's cache: {error.strerror} ({error.filename})."
        else:
            message = f"{name} cannot be downloaded: www.kaggle.com was not reached ({_first(error)})."
        raise CaptuneError(message, f"Check the network and run the command again, {otherwise}.") from None


def _credentials(name: str, reason: str, otherwise: str) -> CaptuneError:
    return CaptuneError(
        f"Kaggle does not let {name} be downloaded without valid credentials ({reason.strip().splitlines()[0]}).",
        "Make a token on kaggle.com/settings and set KAGGLE_API_TOKEN, or save it as ~/.kaggle/kaggle.json, or set "
        f"KAGGLE_USERNAME and KAGGLE_KEY; {otherwise}.",
    )


def _add_split_lists(folder: Path, url: str, progress: Progress) -> None:
    """Put `Flickr_8k.{train,dev,test}Images.txt` beside the captions; without them only `--split flickr8k` is lost."""
    target, archive = folder / "Flickr8k_text", folder / "Flickr8k_text.zip"
    if target.is_dir():
        remove_download(archive)
        return
    try:
        fetch(url, archive, progress=progress, attempts=2)
        with zipfile.ZipFile(archive) as zipped, atomic_folder(target) as lists:
            for name in zipped.namelist():
                if Path(name).name.startswith("Flickr_8k."):
                    with zipped.open(name) as source, open(lists / Path(name).name, "wb") as file:
                        shutil.copyfileobj(source, file)
        remove_download(archive)
    except (CaptuneError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, zipfile.BadZipFile):
            remove_download(archive)  # else it would be found damaged each time
        progress.warn(f"The lists of the official Flickr8k split were not fetched ({_first(error)}).")


def _first(error: Exception) -> str:
    text = first_line(error).rstrip(".")
    return "its name cannot be resolved" if "resolve" in text else text[:160]


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


DOWNLOADS = (*FLICKR, "coco")


def download(
    name: str,
    to: str | Path,
    progress: Progress = SILENT,
    *,
    kaggle_input: Path = KAGGLE_INPUT,
    split_lists: str = SPLIT_LISTS,
) -> Path:
    """The folder of a data set that `datasets.formats` reads: `flickr8k`, `flickr30k` or `coco`.

    A folder `to` that is there already (or, on Kaggle, the one in /kaggle/input) is taken
    as it is; a download that was cut off goes on where it stopped. Flickr's images are
    kept in Kaggle's own cache, COCO's in `to`. Raises `UsageError` for another name, and
    `CaptuneError` that names the host which was not reached or the credential that is missing.
    """
    if name not in DOWNLOADS:
        raise UsageError(f"There is no data set '{name}' to download.", did_you_mean(name, DOWNLOADS))
    folder = Path(to)
    if name == "coco":
        return download_coco(folder, progress)
    for present in (folder, kaggle_input / FLICKR[name].partition("/")[2]):
        if present.is_dir() and any(present.iterdir()):
            return present
    downloaded = _from_kaggle(name, folder, progress)
    if name == "flickr8k":
        _add_split_lists(downloaded, split_lists, progress)
    return downloaded
