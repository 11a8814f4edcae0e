"""Flickr8k and Flickr30k through kagglehub, which keeps and resumes its own downloads."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from captune.core.errors import CaptuneError, first_line, missing_extra
from captune.core.files import atomic_folder
from captune.core.progress import SILENT, Progress
from captune.datasets.downloads.http import fetch, remove_download

FLICKR = {"flickr8k": "adityajn105/flickr8k", "flickr30k": "hsankesara/flickr-image-dataset"}
KAGGLE_INPUT = Path("/kaggle/input")
# Kaggle's copy of Flickr8k lacks the official split lists; the original text archive has them.
SPLIT_LISTS = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip"


def download_flickr(name: str, folder: Path, progress: Progress = SILENT) -> Path:
    """The folder of `flickr8k` or `flickr30k`: `folder` if it is there, Kaggle's input, or Kaggle's download."""
    for present in (folder, KAGGLE_INPUT / FLICKR[name].partition("/")[2]):
        if present.is_dir() and any(present.iterdir()):
            return present
    found = _from_kaggle(name, folder, progress)
    if name == "flickr8k":
        _add_split_lists(found, progress)
    return found


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


def _add_split_lists(folder: Path, progress: Progress) -> None:
    """Put `Flickr_8k.{train,dev,test}Images.txt` beside the captions; without them only `--split flickr8k` is lost."""
    target, archive = folder / "Flickr8k_text", folder / "Flickr8k_text.zip"
    if target.is_dir():
        remove_download(archive)
        return
    try:
        fetch(SPLIT_LISTS, archive, progress=progress, attempts=2)
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
