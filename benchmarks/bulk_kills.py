"""A job that is killed 20 times, against one that was left alone: every file of the job has to be the same.

    python benchmarks/bulk_kills.py [--pictures 2000] [--kills 20] [--model runs/x]
                                    [--format jsonl|tar|sidecar|xmp] [--existing keep|replace|…] [--in-place]

Photos of Flickr8k (128 px) and the odd files of $CAPTUNE_TEST_DATA, or drawn scenes where it is not there,
are captioned by `captune caption --format jsonl` (or another); with `--in-place` copies of them change. Without a
model of one's own it is a tiny BLIP of random weights.
The process gets SIGKILL at random moments between its start and the time the whole takes alone; the same command
goes on, until the kills are used up; a job that is done before begins anew in another folder.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from captune.data.scenes import write_flickr8k_folder
from captune.data.signatures import PICTURE_SUFFIXES
from coco_captions import DATA
from machine import machine


def pictures(folder: Path, count: int) -> None:
    """`count` pictures in a folder: the odd files, then photos; or scenes, every tenth of them cut off."""
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
    for number, path in enumerate(odd[:count]):
        ending = path.suffix if path.suffix.lower() in PICTURE_SUFFIXES else ".jpg"
        shutil.copyfile(path, folder / f"{number * 7919 % 1000:03}-{number:03}{ending}")  # among the photos
    left = count - min(count, len(odd))
    with tarfile.open(archive) as photos:
        for member in photos:
            data = photos.extractfile(member) if member.isfile() and left else None
            if data is not None:
                (folder / Path(member.name).name).write_bytes(data.read())
                left -= 1


def tiny(folder: Path) -> Path:
    import torch

    from captune.models.blip import Blip

    torch.manual_seed(0)
    Blip.tiny().save(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    # What captune wrote has its digest noted before it appears: a kill may leave digests of what never came.
    own = (".captune-written", "written")
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name not in own)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shard-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model")
    parser.add_argument("--format", default="jsonl", choices=("jsonl", "tar", "sidecar", "xmp"))
    parser.add_argument("--existing", default="keep", choices=("keep", "replace", "append", "prepend"))
    parser.add_argument("--in-place", action="store_true")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    print(machine("captune", "torch", "pillow"))
    with tempfile.TemporaryDirectory(prefix="captune-kills-") as name:
        here = Path(name)
        pictures(here / "pictures", asked.pictures)
        model = asked.model or str(tiny(here / "model"))

        def command(out: str) -> list[str]:
            verb = [
                sys.executable,
                "-m",
                "captune",
                "caption",
                "--model",
                model,
                "--quiet",
                "--existing",
                asked.existing,
            ]
            if asked.in_place:
                if not (here / out).exists():
                    shutil.copytree(here / "pictures", here / out)
                return [*verb, "--format", "xmp", "--in-place", str(here / out)]
            told = ("--format", asked.format, "--out", str(here / out), "--shard-size", str(asked.shard_size))
            return [*verb, str(here / "pictures"), *told]

        def run(out: str) -> float:
            started = time.monotonic()
            subprocess.run(command(out), stderr=subprocess.DEVNULL, check=False)
            return time.monotonic() - started

        seconds = run("alone")
        expected = contents(here / "alone")
        report = json.loads(expected.get("_job/report.json", b'{"pictures": "all", "failed": "some"}'))
        print(f"alone: {report['pictures']} pictures, {report['failed']} failed, {seconds:.0f} s\n")
        print(
            "| kill | job | after | shards whole before it | half-written files |\n| ---: | ---: | ---: | ---: | ---: |"
        )
        jobs, kills = 1, 0
        while kills < asked.kills:
            out = here / f"killed-{jobs}"
            process = subprocess.Popen(command(out.name), stderr=subprocess.DEVNULL)
            after = chance.uniform(0, seconds)
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                whole, half = len(list(out.glob("captions-*"))), len(list(out.rglob(".*.part")))
                print(f"| {kills} | {jobs} | {after:.1f} s | {whole} | {half} |", flush=True)
            else:
                check(out, expected)
                jobs += 1
        if (here / f"killed-{jobs}").exists():
            run(f"killed-{jobs}")
            check(here / f"killed-{jobs}", expected)
        print(f"\n{kills} kills in {jobs} jobs: every file equals that of the job left alone")


def check(out: Path, expected: dict[str, bytes]) -> None:
    """Stop where a job has other files than it should, or a picture not once."""
    found = contents(out)
    rows = [json.loads(line)["image"] for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
    different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if different or len(rows) != len(set(rows)):
        sys.exit(f"{out.name} differs from the job left alone in {', '.join(different)}; {len(rows)} rows")


if __name__ == "__main__":
    main()
