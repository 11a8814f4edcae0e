"""A library of many images: adding, searching by words and by vectors, what it takes of disk and memory.

    python benchmarks/bench_library.py [--images 1000000] [--new 20000] [--repeats 9] [--in DIR]

The images are made up (`library_rows.py`): rows with captions as long as people's and words as frequent as in English,
brought in by `captune library import`; files that are links to 500 small JPEG files, so that a folder of so many is
looked through; `--new` files more, each of its own, are really opened and taken in; random vectors of 512 numbers.
Seconds of commands are those of whole processes. Searches are repeated: the
shortest, median and longest of them, and the CPU time, which other programs lengthen less.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from captune.library.library import Library
from captune.library.vectors import VectorFile
from library_rows import SIZE, add_vectors, draw, link_files, words, write_rows
from machine import machine, markdown

MB = 1e6
# Runs captune and prints the largest resident memory that its process had ("... 12345 kB") last of all.
_MEASURED = """
import atexit, runpy, sys
from pathlib import Path
lines = lambda: Path("/proc/self/status").read_text().splitlines()
atexit.register(lambda: print(next(line for line in lines() if line.startswith("VmHWM")), file=sys.stderr))
runpy.run_module("captune", run_name="__main__")
"""
QUESTIONS: dict[str, tuple[str, dict[str, object]]] = {
    "the commonest word": ("a", {}),
    "a common word": ("dog", {}),
    "a rare word": ("RARE", {}),
    "two common words": ("two dog", {}),
    "a common and a rare word": ("dog RARE", {}),
    "a phrase of common words": ('"a man in the snow"', {}),
    "a phrase": ('"two dog"', {}),
    "the beginning of many words": ("s*", {}),
    "the beginning of some words": ("bake*", {}),
    "a word without another": ("dog -snow", {}),
    "a word that is nowhere": ("zebra", {}),
    "a word and one that is nowhere": ("dog zebra", {}),
    "a common word, approved": ("dog", {"status": "approved"}),
    "a common word, by persons": ("dog", {"by": "person"}),
    "a common word, below a small folder": ("dog", {"under": "0042"}),
    "a common word, with a rare keyword": ("dog", {"tag": ("tag500",)}),
    "a common word, with a common keyword": ("dog", {"tag": ("tag1",)}),
    "a common word, of a month": ("dog", {"taken": "2020-07"}),
    "a common word, with a flag": ("dog", {"flag": ("any",)}),
    "a common word, of no image": ("dog", {"mark": "none"}),
    "no words: a status": ("", {"status": "approved"}),
    "no words: a rare keyword": ("", {"tag": ("tag500",)}),
    "no words: without a caption": ("", {"without_caption": True}),
    "no words: low confidence": ("", {"confidence": "<0.01"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--in", dest="where", type=Path, help="Keep the library in this folder, or take it from there.")
    chosen = parser.parse_args()
    print(machine("captune", "numpy"), f"{chosen.images:,} images", sep="; ", flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-library-") as name:
        top = chosen.where or Path(name)
        photos = top / "photos"
        if not photos.is_dir():
            lay(top, photos, chosen.images, chosen.new)
        Library(photos).status()
        search(photos, chosen.repeats)
        nearest(photos, chosen.repeats)
        commands(photos)
        sizes(photos)


def lay(top: Path, photos: Path, count: int, new: int) -> None:
    """Make the library, and print what each part of it took."""
    photos.mkdir(parents=True)
    states = link_files(photos, top / "originals", count)
    write_rows(top / "rows.jsonl", count, states)
    run("import", "library", "import", str(photos), str(top / "rows.jsonl"))
    run("add, nothing is new", "library", "add", str(photos))
    for number in range(new):
        path = photos / "new" / f"{number // 1000:02d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, 1_000_000 + number)
    seconds = run(f"add, {new:,} files are new", "library", "add", str(photos))
    print(f"  {new / seconds:.0f} new images a second")
    run("add again", "library", "add", str(photos))
    started = time.perf_counter()
    add_vectors(photos, count)
    print(f"{count:,} vectors: {time.perf_counter() - started:.1f} s", flush=True)


def run(name: str, *command: str) -> float:
    """Run a command of captune; its seconds, printed with the largest memory of its process."""
    quiet = ("--quiet",) * (command[:2] == ("library", "add"))
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _MEASURED, *command, *quiet], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"captune {' '.join(command)}: status {done.returncode}\n{done.stderr}")
    memory = int(done.stderr.split()[-2]) * 1024 / MB
    print(f"{name}: {seconds:.1f} s, {memory:.0f} MB", flush=True)
    return seconds


def search(photos: Path, repeats: int) -> None:
    """Milliseconds of each question."""
    rare = words()[20_000]
    library, rows = Library(photos), []
    for name, (text, conditions) in QUESTIONS.items():
        text = text.replace("RARE", rare)

        def found(text: str = text, conditions: dict[str, object] = conditions) -> object:
            return library.search(text, **conditions)

        number = len(library.search(text, **conditions))
        rows.append((name, text, str(number), *timed(found, repeats)))
        print(" | ".join(rows[-1]), flush=True)
    print(markdown(("question", "words", "images", "shortest", "median", "longest", "CPU"), rows), flush=True)


def timed(way: Callable[[], object], repeats: int) -> Sequence[str]:
    """Shortest, median and longest in milliseconds, and the median of CPU time, after one call that does not count."""
    way()
    times, busy = [], []
    for _ in range(repeats):
        started, before = time.perf_counter(), time.process_time()
        way()
        times.append(1000 * (time.perf_counter() - started))
        busy.append(1000 * (time.process_time() - before))
    return [f"{each:.1f} ms" for each in (min(times), statistics.median(times), max(times), statistics.median(busy))]


def nearest(photos: Path, repeats: int) -> None:
    file = VectorFile(Library(photos).database, "made up", "0", SIZE)
    query = np.random.default_rng(9).standard_normal(SIZE).astype(np.float32)
    query /= np.linalg.norm(query)
    started = time.perf_counter()
    file.nearest(query, 1000)
    print(f"first search: {1000 * (time.perf_counter() - started):.0f} ms")
    print("the 1,000 nearest vectors:", " | ".join(timed(lambda: file.nearest(query, 1000), 3 * repeats)), flush=True)


def commands(photos: Path) -> None:
    started = time.perf_counter()
    Library(photos)
    print(f"opened: {1000 * (time.perf_counter() - started):.1f} ms")
    run("status", "library", "status", str(photos))
    run("search", "search", "dog", "--in", str(photos), "--limit", "1", "--paths")
    run("check", "library", "check", str(photos))


def sizes(photos: Path) -> None:
    own = photos / ".captune"
    for path in (own / "library.db", *sorted((own / "vectors").glob("*"))):
        print(f"{path.name}: {path.stat().st_size / MB:,.0f} MB")


if __name__ == "__main__":
    main()
