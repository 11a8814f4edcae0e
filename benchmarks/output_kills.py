"""What prepares, downloads, exports and measures, killed, against the same left alone.

    python benchmarks/output_kills.py [--kills 6] [--cases prepare,tar,download,export,library,…] [--seed 1]

A tiny BLIP and drawn scenes. How it is killed is told in `killing.py`; the same command is run again. All files have to
be the same in the end, and none may be left over. The download is `captune prepare coco` of a small COCO, from a server
on this machine that gives two megabytes a second and stands in as the proxy.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tarfile
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

import captune
from captune.datasets.scenes import write_flickr8k_folder
from captune.models.blip_matcher import BlipMatcher
from killing import Case, Killing, contents
from machine import machine
from train_kills import first_run

BLOCK, PAUSE = 1 << 16, 0.03
NOISE = 1500
# What tells when or how long.
TIMES = ("created", "seconds", "captions_per_second", "speed")


class SlowFiles(BaseHTTPRequestHandler):
    """Files as a web server gives them, in parts where it is asked, slowly; of the address the last part counts."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        content = self.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        try:
            for at in range(start, len(content), BLOCK):
                self.wfile.write(content[at : at + BLOCK])
                time.sleep(PAUSE)
        except ConnectionError:
            return  # it was killed

    def log_message(self, format: str, *arguments: Any) -> None:
        return None


def small_coco() -> dict[str, bytes]:
    """The three archives of COCO 2017 with a few images of noise in each split."""
    chance = np.random.default_rng(0)
    images = {name: io.BytesIO() for name in ("val2017", "train2017")}
    tables = io.BytesIO()
    with zipfile.ZipFile(tables, "w") as archive:
        for number, (split, file) in enumerate(images.items()):
            names = [f"{number}{image:011d}.png" for image in range(8)]
            with zipfile.ZipFile(file, "w") as pictures:
                for name in names:
                    data = io.BytesIO()
                    Image.fromarray(chance.integers(0, 255, (300, 300, 3), np.uint8)).save(data, "PNG")
                    pictures.writestr(f"{split}/{name}", data.getvalue())
            archive.writestr(f"annotations/captions_{split}.json", json.dumps({
                "images": [{"id": place, "file_name": name} for place, name in enumerate(names)],
                "annotations": [{"id": place, "image_id": place, "caption": f"noise {place}"} for place in range(8)],
            }))  # fmt: skip
        archive.writestr("annotations/instances_train2017.json", chance.bytes(1 << 20))
    return {
        "annotations_trainval2017.zip": tables.getvalue(),
        **{f"{split}.zip": file.getvalue() for split, file in images.items()},
    }


def cases(folder: Path) -> list[Case]:
    scenes, run, photos = folder / "scenes", folder / "start", str(folder / "scenes" / "Images")
    data, made, references = (str(folder / name) for name in ("data", "made.json", "references.json"))

    def earlier(work: Path) -> None:
        """A folder that was prepared before, of other images, with a note of its owner."""
        captune.prepare(folder / "others", work / "here" / "data")
        (work / "here" / "data" / "notes.md").write_text("mine\n")

    def trained(work: Path) -> None:
        shutil.copytree(run, work / "here" / "run", symlinks=True)

    export = ("export", str(run), "--out", "export", "--check-images", "4", "--quiet")
    return [
        Case("prepare", ("prepare", str(scenes), "--out", "data"), state=states),
        Case("prepare-over", ("prepare", str(scenes), "--out", "data"), lay=earlier, state=states),
        Case("tar", ("prepare", str(folder / "shards.tar"), "--out", "data"), state=states),
        Case("download", ("prepare", "coco", "--out", "data"), state=states),
        Case("export", export, whole="export/captune-export.json", state=states),
        Case(
            "int8",
            (*export, "--int8", "--min-identical", "0", "--calibrate-on", photos),
            whole="export/captune-export.json",
            state=states,
        ),
        Case("embed", ("embed", photos, "--model", str(folder / "matcher"), "--out", "photos.npz"), state=states),
        Case(
            "library",
            ("library", "add", "photos", "--embed", str(folder / "matcher"), "--quiet"),
            lay=lambda work: shutil.copytree(folder / "noise", work / "here" / "photos"),
            state=library_state,
        ),
        Case(
            "evaluate",
            ("evaluate", "run", "--data", data, "--metrics", "bleu,cider", "--explain", "2", "--quiet"),
            lay=trained,
            state=states,
        ),
        Case("score", ("score", "-H", made, "-R", references, "--save-document-frequencies", "df.npz"), state=states),
    ]


def library_state(work: Path) -> dict[str, Any]:
    """Which images a search by meaning finds, in fp16's digits; that nothing stands twice, and all is whole."""
    library = captune.Library(work / "here" / "photos")
    found = library.search("a red circle", mode="meaning", limit=0)
    connection = library.database.connection
    return {
        **{each.path: None if each.similarity is None else round(each.similarity, 3) for each in found},
        "problems": library.problems(),
        "counts": [*connection.execute("SELECT rows FROM embedders").fetchone(), *library.status().vectors.values()],
    }


def states(work: Path) -> dict[str, Any]:
    """Every file, without the lines that say when it was made."""
    return {name: stated(name, data) for name, data in contents(work / "here").items()}


def stated(name: str, data: Any) -> Any:
    if not name.endswith((".json", ".md", ".html")) or isinstance(data, str):
        return data
    return [line for line in data.splitlines() if not any(f'"{word}"'.encode() in line for word in TIMES)]


def lay(folder: Path) -> None:
    """What the commands work on."""
    write_flickr8k_folder(folder / "scenes", train=12, dev=4, test=4)
    write_flickr8k_folder(folder / "others", train=8, dev=2, test=2, seed=2)
    captune.prepare(folder / "scenes", folder / "data")
    with tarfile.open(folder / "shards.tar", "w") as tar:
        for path in sorted((folder / "scenes" / "Images").iterdir()):
            tar.add(path, path.name)
            words = f"the scene {path.stem}".encode()
            entry = tarfile.TarInfo(f"{path.stem}.txt")
            entry.size = len(words)
            tar.addfile(entry, io.BytesIO(words))
    for name in ("made.json", "references.json"):
        (folder / name).write_text(json.dumps({f"{n}.jpg": f"a scene with {n} things" for n in range(2000)}))
    first_run(folder / "data", folder / "start")
    BlipMatcher.tiny().save(folder / "matcher")
    (folder / "noise").mkdir()
    chance = np.random.default_rng(1)
    for number in range(NOISE):
        Image.fromarray(chance.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "noise" / f"{number}.png")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=6, help="of each case")
    parser.add_argument("--cases", default="")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    SlowFiles.files = small_coco()
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowFiles)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"http_proxy": f"http://127.0.0.1:{server.server_port}", "no_proxy": ""}
    print(machine("captune", "torch", "onnxruntime"), flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-kills-") as name:
        lay(Path(name))
        killing = Killing(Path(name), chosen.seed)
        for case in cases(Path(name)):
            if not chosen.cases or case.name in chosen.cases.split(","):
                killing.kill(case, chosen.kills)
    print(killing.ending())


if __name__ == "__main__":
    main()
