"""Data sets by name: Flickr8k and Flickr30k from Kaggle, COCO 2017 from its own server."""

from __future__ import annotations

from pathlib import Path

from captune.core.errors import UsageError, did_you_mean
from captune.core.progress import SILENT, Progress
from captune.datasets.downloads.coco import download_coco
from captune.datasets.downloads.flickr import FLICKR, download_flickr

DOWNLOADS = (*FLICKR, "coco")


def download(name: str, to: str | Path, progress: Progress = SILENT) -> Path:
    """The folder of a data set that `data.formats` reads: `flickr8k`, `flickr30k` or `coco`.

    A folder `to` that is there already (or, on Kaggle, the one in /kaggle/input) is taken
    as it is; a download that was cut off goes on where it stopped. Flickr's images are
    kept in Kaggle's own cache, COCO's in `to`. Raises `UsageError` for another name, and
    `CaptuneError` that names the host which was not reached or the credential that is missing.
    """
    if name not in DOWNLOADS:
        raise UsageError(f"There is no data set '{name}' to download.", did_you_mean(name, DOWNLOADS))
    folder = Path(to)
    return download_coco(folder, progress) if name == "coco" else download_flickr(name, folder, progress)
