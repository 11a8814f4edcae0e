"""A job on two Ray nodes of which one is killed, against one on this machine alone: every file has to be the same.

    python benchmarks/bulk_ray.py [--pictures 2000] [--times 5] [--model runs/x]

The images are those of bulk_kills.py. The cluster is `ray.cluster_utils.Cluster`: processes of this machine that
pretend to be nodes of one core each. In each round one of the two is killed (its raylet gets SIGKILL, and its workers
with it) at a random moment between the first shard and the time the whole took without a kill; another one joins for
the next round.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bulk_kills import pictures, tiny
from killing import contents, difference
from machine import machine, markdown
from ray_nodes import add_node, cluster


def check(out: Path, expected: dict[str, Any]) -> None:
    """Stop where a job has other files than it should."""
    wanted, found = (
        {name: data for name, data in each.items() if not name.endswith(".lock")} for each in (expected, contents(out))
    )
    different = difference(wanted, found)
    if different:
        sys.exit(f"{out.name} differs from the job left alone in {different}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    os.environ["OMP_NUM_THREADS"] = "1"  # as on nodes of one core
    print(machine("captune", "ray", "torch"), flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-ray-") as name, cluster() as made:
        here = Path(name)
        pictures(here / "pictures", asked.pictures)
        model = asked.model or str(tiny(here / "model"))

        def start(out: str, *more: str) -> subprocess.Popen[str]:
            words = [
                *(sys.executable, "-m", "captune", "caption", str(here / "pictures"), "--model", model, "--quiet"),
                *("--format", "jsonl", "--out", str(here / out), "--shard-size", str(asked.shard_size), *more),
            ]
            return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

        def on_ray(out: str) -> subprocess.Popen[str]:
            return start(out, "--engine", "ray", "--ray-address", made.address)

        def whole(out: str) -> int:
            return len(list((here / out).glob("captions-*")))

        started = time.monotonic()
        start("alone").communicate()
        alone = time.monotonic() - started
        expected = contents(here / "alone")
        shards = whole("alone")
        started = time.monotonic()
        on_ray("ray").communicate()
        both = time.monotonic() - started
        check(here / "ray", expected)
        rows = [("nothing", f"{alone:.0f} s, one process", f"{shards}", "")]
        rows.append(("nothing", f"{both:.0f} s, two nodes", f"{shards}", "equal"))
        for number in range(1, asked.times + 1):
            out = f"killed-{number}"
            job = on_ray(out)
            began = time.monotonic()
            while not whole(out) and job.poll() is None:
                time.sleep(0.05)
            first = time.monotonic() - began
            time.sleep(chance.uniform(0, max(0.0, both - first)))
            before = whole(out)
            made.remove_node(chance.choice(list(made.worker_nodes)), allow_graceful=False)
            after = time.monotonic() - began
            _, said = job.communicate()
            check(here / out, expected)
            noticed = "lost with shards in hand" if "Lost the node" in said else "had nothing in hand"
            rows.append(
                (f"a node after {after:.0f} s, {noticed}", f"{time.monotonic() - began:.0f} s", f"{before}", "equal")
            )
            add_node(made)
        columns = ("killed", "the job took", "shards whole before it", "files")
        print("\n" + markdown(columns, rows))
        print(f"\n{asked.pictures} images in {shards} shards; {asked.times} of two nodes killed; none lost, none twice")


if __name__ == "__main__":
    main()
