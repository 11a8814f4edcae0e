"""Trainings, an export and a prepared folder that are killed, against those that were left alone.

    python benchmarks/train_kills.py [--kills 20] [--stages plain,lora,scst] [--steps 24] [--other-kills 6]

A tiny BLIP learns drawn scenes. The process gets SIGKILL at random moments between its start and the time that the
whole takes alone, every third time while a checkpoint is being written; then the same command goes on (with --resume,
or, where nothing was trained, as it began), until the training is done. The weights of every checkpoint that both have,
optimizer and random state, history and metrics have to be the same, byte for byte, and each step stands in the
history once. `captune prepare` and `captune export` are killed and started again likewise: at no moment there is a
folder that looks whole and is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captune.core.runs import COMPLETE, Run, checkpoint_damage
from captune.data.scenes import write_flickr8k_folder
from machine import machine

STAGES = {
    "plain": ["--model", "new:blip-tiny"],
    "lora": ["--model", "new:blip-tiny", "--lora", "on"],
    "scst": ["--stage", "scst", "--best-metric", "cider", "--scst-samples", "2", "--scst-guard", "0"],
}
OPTIONS = {
    "batch-size": 2,
    "eval-steps": 4,
    "logging-steps": 1,
    "learning-rate": 1e-3,
    "validation-images": 2,
    "validation-metrics": "cider",
    "max-new-tokens": 6,
    "num-beams": 1,
    "vocab-size": 100,
    "dropout": 0.1,
    "crop": 0.2,
    "keep-checkpoints": 0,
    "trackers": "none",
}
# What tells when or how long; everything else has to be the same.
TIMES = ("train_runtime",)


class Commands:
    """Commands of captune as processes, some of which are killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "captune", *arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.folder)

    def whole(self, *arguments: str) -> float:
        """Seconds that a command takes; ends the measurement where it fails."""
        started = time.monotonic()
        process = self.start(*arguments)
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"captune {' '.join(arguments)}:\n{errors.decode()}")
        return time.monotonic() - started

    def killed(self, after: float, moment: Callable[[], bool], *arguments: str) -> bool:
        """Whether a command was killed after so many seconds, or at a moment; False where it was done before."""
        process, started = self.start(*arguments), time.monotonic()
        while process.poll() is None and time.monotonic() - started < after and not moment():
            time.sleep(0.002)
        done = process.poll()
        process.kill()
        _, errors = process.communicate()
        if done:
            sys.exit(f"captune {' '.join(arguments)}:\n{errors.decode()}")
        return done is None


def train_arguments(stage: str, out: str, steps: int) -> list[str]:
    given = {**OPTIONS, "max-steps": steps}
    if stage == "scst":
        given = {name: value for name, value in given.items() if name not in ("vocab-size", "learning-rate")}
    model = ["--model", "plain/best-metric"] if stage == "scst" else []
    options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    return ["train", "--data", "data", "--out", out, *STAGES[stage], *model, *options, "--quiet"]


def difference(alone: Run, killed: Run) -> str:
    """The first thing that differs between two runs; empty where nothing does."""
    history = killed.history()
    steps = [line["step"] for line in history if "loss" in line]
    if steps != sorted(set(steps)):
        return "history.jsonl has a step more than once"
    if history != alone.history():
        return "history.jsonl"
    metrics = [json.loads((run.path / "train_metrics.json").read_text()) for run in (alone, killed)]
    for name in metrics[0]:
        if name not in TIMES and metrics[0][name] != metrics[1].get(name):
            return f"{name} in train_metrics.json"
    names = [[checkpoint.name for checkpoint in run.checkpoints()] for run in (alone, killed)]
    if names[0] != names[1]:
        return f"checkpoints {names[1]} instead of {names[0]}"
    for checkpoint in alone.checkpoints():
        if checkpoint_damage(checkpoint.path):
            return checkpoint_damage(checkpoint.path)
        for file in sorted(path for path in checkpoint.path.rglob("*") if path.is_file()):
            name = file.relative_to(alone.path)
            if stated(file) != stated(killed.path / name):
                return str(name)
    return ""


def stated(file: Path) -> Any:
    """What a checkpoint's file says: its bytes; of a configuration all but the number type of the weights, which is
    written once they were loaded from a file; of the mark what it holds beside digests of the others.
    """
    if file.name == "config.json":
        lines = file.read_text().splitlines()
        return [line for line in lines if '"dtype"' not in line]
    if file.name == COMPLETE:
        mark = json.loads(file.read_bytes())
        return {name: mark.get(name) for name in ("step", "epoch", "scores", "sums", "history")}
    return file.read_bytes()


def kill_trainings(commands: Commands, stage: str, kills: int, steps: int) -> None:
    """Kill trainings of a stage until the kills are used up, and compare each that ends."""
    alone = commands.folder / stage
    seconds = commands.whole(*train_arguments(stage, stage, steps))
    print(f"\n{stage}: {steps} steps, {seconds:.0f} s alone\n", flush=True)
    print(
        "| kill | run | after | moment | last checkpoint | half-written |\n| ---: | ---: | ---: | --- | ---: | ---: |"
    )
    runs, count = 1, 0
    while count < kills or (commands.folder / f"{stage}-{runs}").exists():
        run = Run(commands.folder / f"{stage}-{runs}")
        resume = ["--resume"] if Run.is_run(run.path) else []
        arguments = [*train_arguments(stage, run.path.name, steps), *resume]
        if resume:
            arguments = ["train", "--resume", "--out", run.path.name, "--quiet"]
        saving = count % 3 == 2
        after = commands.chance.uniform(0, seconds) if count < kills else 10 * seconds
        earlier = run.last()

        def moment(run: Run = run, saving: bool = saving, seen: int = len(run.checkpoints())) -> bool:
            return saving and len(run.checkpoints()) > seen and (run.checkpoints_folder / ".incoming").exists()

        if count < kills and commands.killed(10 * seconds if saving else after, moment, *arguments):
            count += 1
            last, half = run.last(), len(list(run.path.rglob(".incoming"))) + len(list(run.path.rglob("*.part")))
            print(f"| {count} | {runs} | {'-' if saving else f'{after:.1f} s'} | {'save' if saving else 'any'} | "
                  f"{last.name if last else '-'} | {half} |", flush=True)  # fmt: skip
            if earlier and (not last or last.step < earlier.step):
                sys.exit(f"{earlier.name} of {run.path.name} is gone")
            continue
        if not (run.path / "train_metrics.json").exists():
            commands.whole(*arguments)
        found = difference(Run(alone), run)
        if found:
            sys.exit(f"{run.path.name} differs from the training left alone: {found}")
        print(f"run {runs} equals the training left alone", flush=True)
        runs += 1
    print(f"{stage}: {count} kills in {runs - 1} runs, all equal to the one left alone", flush=True)


def kill_folders(commands: Commands, name: str, kills: int, mark: str, *arguments: str) -> None:
    """Kill a command that writes a folder: after every kill its mark is not there, or every file is."""
    seconds = commands.whole(*arguments, "--out", f"{name}-alone")
    expected = contents(commands.folder / f"{name}-alone")
    whole = 0
    for number in range(kills):
        out = f"{name}-{number}"
        commands.killed(commands.chance.uniform(0.5, 1.0) * seconds, lambda: False, *arguments, "--out", out)
        if (commands.folder / out / mark).exists():
            whole += 1
            same = contents(commands.folder / out)
            if same.keys() != expected.keys():
                sys.exit(f"{out} looks whole and is not: {sorted(same.keys() ^ expected.keys())}")
        else:
            commands.whole(*arguments, "--out", out)
        found = contents(commands.folder / out)
        different = sorted(file for file in {*found, *expected} if found.get(file) != expected.get(file))
        if different:
            sys.exit(f"{out} differs from the one left alone in {', '.join(different)}")
    left = sorted(path.name for path in commands.folder.rglob("*.part"))
    print(f"\n{name}: {seconds:.0f} s alone; {kills} kills, {whole} when all was done, none half that looks whole; "
          f"left over: {', '.join(left) or 'nothing'}", flush=True)  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a folder; those that say when they were made have their times and paths taken out."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json":
            lines = [line for line in data.splitlines() if b'"created"' not in line and b'"seconds"' not in line]
            data = b"\n".join(lines)
        found[str(path.relative_to(folder))] = data
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stages", default="plain,lora,scst")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--other-kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    print(machine("captune", "torch", "transformers"))
    with tempfile.TemporaryDirectory(prefix="captune-kills-") as name:
        commands = Commands(Path(name), chosen.seed)
        write_flickr8k_folder(Path(name) / "scenes", train=12, dev=4, test=4)
        commands.whole("prepare", "scenes", "--out", "data")
        stages = chosen.stages.split(",")
        each = chosen.kills // len(stages) if len(stages) > 1 else chosen.kills
        for place, stage in enumerate(stages):
            rest = chosen.kills - each * len(stages) if place == 0 else 0
            kill_trainings(commands, stage, each + rest, chosen.steps)
        if chosen.other_kills:
            kill_folders(commands, "prepared", chosen.other_kills, "splits.json", "prepare", "scenes")
            kill_folders(commands, "exported", chosen.other_kills, "captune-export.json", "export", "plain/best-metric")


if __name__ == "__main__":
    main()
