"""Trainings and searches that are killed, against those that were left alone.

    python benchmarks/train_kills.py [--kills 8] [--cases full,lora,scst,workers,tune] [--seed 1]

A tiny BLIP learns drawn scenes. How it is killed is told in `killing.py`: in the first seconds, while a checkpoint is
written, in a validation, in the summary at the end. It goes on with --resume, or, where nothing was written down yet,
as it began. Weights, optimizer and random state, history, metrics and the names of all files have to be the same in the
end, and no file may be left over.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import captune
from captune.core.runs import COMPLETE, SEARCH_JOURNAL, Run
from captune.datasets.scenes import write_flickr8k_folder
from killing import Case, Killing, contents
from machine import machine

OPTIONS: dict[str, Any] = {
    "max-steps": 8,
    "batch-size": 2,
    "eval-steps": 2,
    "logging-steps": 1,
    "validation-images": 2,
    "validation-metrics": "cider",
    "max-new-tokens": 6,
    "num-beams": 1,
    "dropout": 0.1,
    "crop": 0.2,
    "keep-checkpoints": 2,
    "trackers": "none",
}
SCRATCH: dict[str, Any] = {"model": "new:blip-tiny", "vocab-size": 100}
LEARNING = {"learning-rate": 1e-3}
SCST = {"stage": "scst", "best-metric": "cider", "scst-samples": 2, "scst-guard": 1}
SEARCH = {"search": "learning_rate=1e-4..1e-2:log", "trials": 3, "goal": "loss", "max-steps": 4, "random-trials": 2}
# What tells when or how long; everything else has to be the same.
TIMES = ("train_runtime", "created", "command")


def cases(data: Path, start: Path) -> list[Case]:
    """The trainings, and a search; `start` is the run that self-critical training begins with."""

    def training(name: str, **options: Any) -> Case:
        command = ["train", "--data", str(data), "--out", "run", "--quiet", *given(OPTIONS | options)]
        resume = ["train", "--resume", "--out", "run", "--quiet"]
        return Case(name, command, lambda work: resume if Run.is_run(work / "here" / "run") else command, state=states)

    search = ["tune", "--data", str(data), "--out", "search", "--quiet", *given(OPTIONS | SCRATCH | SEARCH)]
    return [
        training("full", **SCRATCH, **LEARNING),
        training("lora", **SCRATCH, **LEARNING, lora="on"),
        training("scst", **SCST, model=start),
        training("workers", **SCRATCH, **LEARNING, **{"loader-workers": 2}),
        Case("tune", search, state=states),
    ]


def first_run(data: Path, out: Path) -> None:
    """A run that other commands begin with."""
    options = {name.replace("-", "_"): value for name, value in (OPTIONS | SCRATCH | LEARNING).items()}
    captune.train(data, out=out, **options | {"max_steps": 2, "trackers": ["none"], "validation_metrics": ["cider"]})


def given(options: dict[str, Any]) -> list[str]:
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def states(work: Path) -> dict[str, Any]:
    """Every file of runs and of a search, by what it says beside times."""
    here = work / "here"
    return {name: stated(here / name, data) for name, data in contents(here).items()}


def stated(file: Path, data: bytes) -> Any:
    """What a file says: its bytes; of a configuration all but the number type of the weights, which is written once
    they were loaded from a file; of the mark of a checkpoint what it holds beside digests of the others.
    """
    if file.name == "config.json":
        return [line for line in data.splitlines() if b'"dtype"' not in line]
    if file.name == COMPLETE:
        mark = json.loads(data)
        return {name: mark.get(name) for name in ("step", "epoch", "scores", "sums", "history")}
    if file.name in ("manifest.json", "train_metrics.json"):
        return {name: value for name, value in json.loads(data).items() if name not in TIMES}
    return "" if file.name == SEARCH_JOURNAL else data  # it has the time of each trial


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=8, help="of each case")
    parser.add_argument("--cases", default="full,lora,scst,workers,tune")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    print(machine("captune", "torch", "transformers", "optuna"), flush=True)
    with tempfile.TemporaryDirectory(prefix="captune-kills-") as name:
        data, start = Path(name) / "data", Path(name) / "start"
        write_flickr8k_folder(Path(name) / "scenes", train=12, dev=4, test=4)
        captune.prepare(Path(name) / "scenes", data)
        first_run(data, start)
        killing = Killing(Path(name), chosen.seed)
        for case in cases(data, start):
            if case.name in chosen.cases.split(","):
                killing.kill(case, chosen.kills)
    print(killing.ending())


if __name__ == "__main__":
    main()
