"""`captune edit` killed again and again while people edit: every edit that was acknowledged has to be there.

    python benchmarks/edit_kills.py [--kills 20] [--writers 8] [--images 400] [--seed 1]

Several writers, each on images of its own, correct captions, set statuses and add keywords as fast as the server
answers, and remember what it acknowledged. The server gets SIGKILL after a random time, is started again, and has to
show, of each image, the last text that was acknowledged (or the one that was on its way), its
keywords and its status; the database has to be whole. In the end everything that was done is undone, step by step.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from captune.library.library import Library
from captune.server.startup import listen
from machine import machine


@dataclass
class Expected:
    """What the server acknowledged of an image, and what was on its way when it was killed."""

    text: str
    keywords: set[str] = field(default_factory=set)
    status: str = "draft"
    underway: dict[str, Any] | None = None


class Writer(threading.Thread):
    """Edits images until the server is gone."""

    def __init__(self, url: str, images: dict[int, Expected], chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.url, self.images, self.chance = url, images, chance
        self.acknowledged = 0

    def run(self) -> None:
        with httpx.Client(base_url=f"{self.url}/v1/library", timeout=30, trust_env=False) as client:
            try:
                while True:
                    self.edit(client, self.chance.choice(list(self.images)))
            except httpx.TransportError:
                return

    def edit(self, client: httpx.Client, image: int) -> None:
        expected = self.images[image]
        (row,) = client.get("details", params={"image": image}).json()["images"]
        caption = row["captions"][0]
        kind = self.chance.choice(("caption", "caption", "caption", "keywords", "status"))
        if kind == "caption":
            change = {"kind": kind, "image": image, "of": caption["id"], "text": f"text {self.chance.random()}"}
        elif kind == "keywords":
            change = {"kind": kind, "image": image, "add": [f"word {self.chance.randrange(1000)}"]}
        else:
            change = {"kind": kind, "caption": caption["id"], "status": self.chance.choice(("approved", "rejected"))}
        expected.underway = change
        answer = client.post("steps", json={"changes": [change]})
        if answer.status_code != 200:
            sys.exit(f"{answer.status_code}: {answer.text}")
        apply(expected, change)
        expected.underway = None
        self.acknowledged += 1


def apply(expected: Expected, change: dict[str, Any]) -> None:
    if change["kind"] == "caption":
        expected.text, expected.status = change["text"], "approved"
    elif change["kind"] == "keywords":
        expected.keywords.update(change["add"])
    else:
        expected.status = change["status"]


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "captune", "edit", str(folder), "--port", str(port), "--no-scan", "--quiet"],
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health/live", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return process
    sys.exit("the server did not start")


def wrong(client: httpx.Client, images: dict[int, Expected]) -> list[str]:
    """Images that are not as they were acknowledged."""
    found = []
    for image, expected in images.items():
        (row,) = client.get("details", params={"image": image}).json()["images"]
        caption = row["captions"][0]
        state = (caption["text"], set(row["keywords"]), caption["status"])
        allowed = [(expected.text, set(expected.keywords), expected.status)]
        if expected.underway is not None:
            after = Expected(expected.text, set(expected.keywords), expected.status)
            apply(after, expected.underway)
            allowed.append((after.text, after.keywords, after.status))
        if state not in allowed:
            found.append(f"image {image}: {state} instead of {allowed}")
        images[image] = Expected(*state[:2], state[2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    print(machine("captune"), flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-edit-kills-") as name:
        folder = Path(name) / "photos"
        lay(folder, chosen.images)
        with listen("127.0.0.1", 0) as probe:
            port = probe.getsockname()[1]
        url, acknowledged, lost = f"http://127.0.0.1:{port}", 0, []
        images = {image: Expected(f"caption {image}") for image in range(1, chosen.images + 1)}
        seconds = 0.0
        for kill in range(1, chosen.kills + 1):
            process = start(folder, port)
            shares = [dict(list(images.items())[n :: chosen.writers]) for n in range(chosen.writers)]
            writers = [Writer(url, share, random.Random(chance.random())) for share in shares]
            for writer in writers:
                writer.start()
            life = chance.uniform(0.5, 4)
            time.sleep(life)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            for writer in writers:
                writer.join(40)
            now = sum(writer.acknowledged for writer in writers)
            acknowledged, seconds = acknowledged + now, seconds + life
            process = start(folder, port)
            with httpx.Client(base_url=f"{url}/v1/library", timeout=30, trust_env=False) as client:
                lost += wrong(client, images)
            problems = Library(folder).problems()
            lost += problems
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            print(f"kill {kill}: after {life:.1f} s and {now} edits; {len(lost)} lost so far", flush=True)
        process = start(folder, port)
        undone = undo_all(f"{url}/v1/library", images)
        os.kill(process.pid, signal.SIGKILL)
    print(f"{chosen.kills} kills, {acknowledged} acknowledged edits ({acknowledged / seconds:.0f} a second), "
          f"{len(lost)} lost; then {undone} steps were undone")  # fmt: skip
    if lost:
        sys.exit("\n".join(lost))


def lay(folder: Path, count: int) -> None:
    """A library of small images, each with a draft."""
    folder.mkdir()
    for number in range(1, count + 1):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(folder / f"{number:06d}.png")
    library = Library(folder, create=True)
    library.add()
    with library.database.write() as connection:
        connection.execute(
            "INSERT INTO captions(image, text, written_by, written) "
            "SELECT id, 'caption ' || id, 'model', '' FROM images"
        )


def undo_all(url: str, images: dict[int, Expected]) -> int:
    """Undo everything; how many steps that were. Ends the process where the captions are not those of the beginning."""
    steps = 0
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        while client.post("undo", json={}).json()["step"] is not None:
            steps += 1
        for image in images:
            (row,) = client.get("details", params={"image": image}).json()["images"]
            texts = [(each["text"], each["status"]) for each in row["captions"]]
            if texts != [(f"caption {image}", "draft")] or row["keywords"]:
                sys.exit(f"image {image} after everything was undone: {texts}")
    return steps


if __name__ == "__main__":
    main()
