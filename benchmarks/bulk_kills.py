"""Jobs that are killed, against those that were left alone: every file of a job has to be the same.

    python benchmarks/bulk_kills.py [--pictures 200] [--kills 4] [--cases jsonl,csv,…] [--model runs/x]

Photos of Flickr8k (128 px) and the odd files of $CAPTUNE_TEST_DATA, or drawn scenes where it is not there, are
captioned into each format, from each kind of source, and over what a person wrote. Without a model of one's own it is a
tiny BLIP of random weights. How a job is killed is told in `killing.py`; the same command goes on with it. Of the case
`decoders` it is not the job that is killed but one of its decoders: the job has to go on by itself. `--cases jsonl
--pictures 2000 --kills 20` is one long job, killed often.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tarfile
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captune.datasets.scenes import write_flickr8k_folder
from captune.images.signatures import IMAGE_SUFFIXES
from coco_captions import DATA
from killing import Case, Killing
from machine import machine


def pictures(folder: Path, count: int) -> None:
    """`count` images in a folder: the odd files, then photos; or scenes, every tenth of them cut off."""
    folder.mkdir()
    archive = DATA / "flickr8k" / "images-128.tar"
    if not archive.is_file():
        write_flickr8k_folder(folder / "scenes", train=count, dev=1, test=1)
        for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
            if number % 10 == 3:
                path.write_bytes(path.read_bytes()[:400])
            if number >= count:
                path.unlink()
        return
    odd = [path for path in sorted((DATA / "odd").rglob("*")) if path.is_file() and path.suffix not in (".md", ".txt")]
    odd = odd[: count // 10]
    for number, path in enumerate(odd):
        ending = path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
        shutil.copyfile(path, folder / f"{number * 7919 % 1000:03}-{number:03}{ending}")  # among the photos
    left = count - len(odd)
    with tarfile.open(archive) as photos:
        for member in photos:
            data = photos.extractfile(member) if member.isfile() and left else None
            if data is not None:
                (folder / Path(member.name).name).write_bytes(data.read())
                left -= 1


def tiny(folder: Path) -> Path:
    """A tiny BLIP of random weights, the same each time."""
    import torch

    from captune.models.blip import Blip

    torch.manual_seed(0)
    Blip.tiny().save(folder)
    return folder


def as_tar(folder: Path, tar: Path) -> Path:
    with tarfile.open(tar, "w") as archive:
        for path in files(folder):
            archive.add(path, path.name)
            entry = tarfile.TarInfo(f"{path.stem}.cls")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"7"))
    return tar


def as_table(folder: Path, table: Path) -> Path:
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in files(folder)]
    pq.write_table(pa.table({"image": rows}), table, row_group_size=16)
    return table


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class Quiet(SimpleHTTPRequestHandler):
    """Files over HTTP, without a log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        return None


def served(folder: Path, count: int) -> list[str]:
    """Addresses of the first images of a folder, from a server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return [f"http://127.0.0.1:{server.server_port}/{path.relative_to(folder)}" for path in files(folder)[:count]]


def cases(folder: Path, model: str, shard_size: int) -> list[Case]:
    """A job into each format, from each kind of source, and over what a person wrote."""
    given = str(folder / "pictures")
    tar, table = (str(folder / name) for name in ("pictures.tar", "pictures.parquet"))

    def job(name: str, format: str, out: str, *inputs: str, options: tuple[str, ...] = (), **more: Any) -> Case:
        command = ("caption", *(inputs or (given,)), "--model", model, "--format", format, "--out", out, "--quiet")
        return Case(name, (*command, "--shard-size", str(shard_size), *options), **more)

    def words(work: Path) -> None:
        """A person's sidecars where captune's go."""
        for path in files(folder / "pictures")[::3]:
            sidecar = (work / "here" / "out" / path.relative_to("/")).with_suffix(".txt")
            sidecar.parent.mkdir(parents=True, exist_ok=True)
            sidecar.write_text("a person's words\n")

    def copies(work: Path) -> None:
        shutil.copytree(folder / "pictures", work / "here" / "photos")

    def rows(work: Path) -> None:
        """A table with a row that a person wrote."""
        (work / "here" / "out.csv").write_text(f"image,caption\n{files(folder / 'pictures')[0]},a person's words\n")

    in_place = ("caption", "photos", "--model", model, "--format", "xmp", "--in-place", "--quiet", "--existing")
    return [
        *(job(format, format, "out") for format in ("jsonl", "csv", "parquet", "sidecar", "tar", "xmp")),
        *(job(f"one {format}", format, f"out.{format}") for format in ("csv", "json", "xml", "parquet")),
        job("sidecar append", "sidecar", "out", options=("--existing", "append"), lay=words),
        job("csv prepend", "csv", "out.csv", options=("--existing", "prepend"), lay=rows),
        Case("in place", (*in_place, "keep"), lay=copies),
        Case("in place replace", (*in_place, "replace"), lay=copies),
        job("tar to tar", "tar", "out", tar),
        job("tar to jsonl", "jsonl", "out", tar),
        job("table to parquet", "parquet", "out", table),
        job("web to jsonl", "jsonl", "out", *served(folder / "pictures", 60)),
        job("web to xmp", "xmp", "out", *served(folder / "pictures", 60)),
        job("decoders", "jsonl", "out", decoders=True),
        job("ray", "jsonl", "out", options=("--engine", "ray")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--kills", type=int, default=4, help="of each case")
    parser.add_argument("--cases", default="")
    parser.add_argument("--shard-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    print(machine("captune", "torch", "pillow"), flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-kills-") as name:
        folder = Path(name)
        pictures(folder / "pictures", chosen.pictures)
        as_tar(folder / "pictures", folder / "pictures.tar")
        as_table(folder / "pictures", folder / "pictures.parquet")
        killing = Killing(folder, chosen.seed)
        for case in cases(folder, chosen.model or str(tiny(folder / "model")), chosen.shard_size):
            if case.name in chosen.cases.split(",") if chosen.cases else case.name != "ray":
                killing.kill(case, chosen.kills)
    print(killing.ending())


if __name__ == "__main__":
    main()
