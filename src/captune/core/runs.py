"""A run: the folder of one training, its checkpoints, and why it ended."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from captune.core.errors import CaptuneError
from captune.core.files import part_path, read_json, remove_leftovers, write_json, write_text
from captune.core.files.fingerprints import find_damage, is_sealed
from captune.core.files.limits import parse_json
from captune.core.files.locks import Lock, Locked, lock_file

CONFIG = "config.yaml"
MANIFEST = "manifest.json"
HISTORY = "history.jsonl"
TRAIN_METRICS = "train_metrics.json"
EVAL = "eval_bleu.json"
SPLITS = "splits.json"
COMPLETE = "complete.json"
POINTERS = ("best-metric", "best-loss")
LOCK = ".lock"
# Beside the runs of a search: what it has drawn so far.
SEARCH_JOURNAL = "study.journal"
# Entries of a manifest that others than its writer read; those of `_NESTED` hold objects alone.
_KINDS = {
    **dict.fromkeys(("data", "model"), str),
    "processes": int,
    "changed": list,
    **dict.fromkeys(("options", "versions", "data_splits", "ended"), dict),
}
_NESTED = ("options", "data_splits")
# What a checkpoint holds beside the model.
_TRAINING_STATE = ("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "rng_state")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: `complete.json` is written last and names its step and epoch."""

    path: Path
    step: int
    epoch: float

    @property
    def name(self) -> str:
        return self.path.name


def read_mark(folder: Path) -> dict[str, Any] | None:
    """A checkpoint's `complete.json` (step, epoch, scores, files); None where it is missing or damaged."""
    try:
        mark = parse_json((folder / COMPLETE).read_text(encoding="utf-8"))
        return mark if is_sealed(mark) and int(mark["step"]) >= 0 and float(mark["epoch"]) >= 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checkpoint_damage(folder: Path, *, model_only: bool = False, sizes_only: bool = False) -> str:
    """The first file of a checkpoint that is not what was written, with what is wrong; empty where all are.

    `model_only` leaves out what only a training goes on with; `sizes_only` reads no file. A folder without a mark
    knows nothing of its files, and one of an earlier version only their sizes.
    """
    if not (folder / COMPLETE).is_file():
        return ""
    mark = read_mark(folder)
    if mark is None:
        return f"{folder / COMPLETE} is not what was written"
    names: Iterable[str] = mark.get("files", {})
    if model_only:
        names = [name for name in names if not name.startswith(_TRAINING_STATE)]
    return find_damage(folder, mark, names, sizes_only=sizes_only)


class Run:
    """A run folder.

    It holds `config.yaml`, `manifest.json`, `history.jsonl`, `checkpoints/`, the pointers
    `best-loss` and `best-metric`, and what evaluations leave. Checkpoints that are not
    complete do not exist for it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @staticmethod
    def is_run(path: str | os.PathLike[str]) -> bool:
        """Whether the folder was made by `captune train`."""
        # os.path also answers for names that no file system takes.
        return os.path.isfile(Path(path) / MANIFEST) and os.path.isfile(Path(path) / CONFIG)

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the run within the block: nothing else trains into it; raises `CaptuneError` where another does."""
        try:
            with lock_file(self.path / LOCK) as lock:
                yield lock
        except Locked as error:
            raise CaptuneError(
                f"Another training{f' ({error.owner})' if error.owner else ''} writes to {self.path}.",
                "Let it go on, or end it; or choose another --out.",
            ) from None

    @property
    def checkpoints_folder(self) -> Path:
        return self.path / "checkpoints"

    def checkpoints(self) -> list[Checkpoint]:
        """Whole checkpoints, oldest first."""
        whole = []
        for path in self.checkpoints_folder.glob(f"checkpoint-*/{COMPLETE}"):
            mark = read_mark(path.parent)
            if mark is not None:
                whole.append(Checkpoint(path.parent, int(mark["step"]), float(mark["epoch"])))
        return sorted(whole, key=lambda c: c.step)

    def last(self) -> Checkpoint | None:
        whole = self.checkpoints()
        return whole[-1] if whole else None

    def point(self, pointer: str, checkpoint: str) -> None:
        """Make `pointer` (best-loss, best-metric) name a checkpoint, at once or not at all."""
        target = self.path / pointer
        temporary = part_path(target, os.getpid())
        remove_leftovers(target)
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(Path("checkpoints") / checkpoint)
        except OSError:  # a file system without links: the name alone
            write_text(target, checkpoint + "\n")
            return
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(temporary, target)

    def pointed(self, pointer: str) -> str | None:
        """The name of the checkpoint that `pointer` names, or None.

        A copy that followed links (`cp -L`, an archive, object storage) has a checkpoint's files
        in the pointer's place: the mark among them names its step.
        """
        target = self.path / pointer
        if target.is_symlink():
            return Path(os.readlink(target)).name
        if (target / COMPLETE).is_file():
            return f"checkpoint-{read_json(target / COMPLETE)['step']}"
        return target.read_text(encoding="utf-8").strip() if target.is_file() else None

    def checkpoint(self, which: str = "best") -> Checkpoint:
        """A checkpoint by name: best, best-metric, best-loss, last, epoch-N or checkpoint-N.

        `best` is best-metric where there is one, else best-loss, else the last.
        Raises `CaptuneError` that lists what there is.
        """
        whole = self.checkpoints()
        if not whole:
            raise CaptuneError(
                f"The run {self.path} has no whole checkpoint yet.", "Let it train longer, or --resume it."
            )
        by_name = {c.name: c for c in whole}
        for name in POINTERS if which == "best" else (which,):
            target = self.pointed(name) if name in POINTERS else name
            if target in by_name:
                return by_name[target]
        if which in ("best", "last"):
            return whole[-1]
        for candidate in reversed(whole):
            if which == f"epoch-{candidate.epoch:g}":
                return candidate
        names = [*(p for p in POINTERS if self.pointed(p)), "last", *by_name, *(f"epoch-{c.epoch:g}" for c in whole)]
        raise CaptuneError(f"The run {self.path} has no checkpoint '{which}'.", f"It has: {', '.join(names)}.")

    def manifest(self) -> dict[str, Any]:
        """What the run is; raises `CaptuneError` where `manifest.json` is missing, broken or of another form."""
        path = self.path / MANIFEST
        hint = f"Restore it from a copy. The models stay usable without it: {self.checkpoints_folder}/checkpoint-STEP"
        try:
            manifest = read_json(path)
        except CaptuneError as error:
            raise CaptuneError(error.message, hint) from None
        if not isinstance(manifest, dict):
            raise CaptuneError(f"{path} does not hold an object.", hint)
        for name, kind in _KINDS.items():
            value = manifest.get(name)
            whole = name not in manifest or isinstance(value, kind)
            if whole and name in _NESTED and value is not None:
                whole = all(isinstance(each, dict) for each in value.values())
            if not whole:
                raise CaptuneError(f"{path}: '{name}' is not what captune writes there.", hint)
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.path / MANIFEST, manifest)

    def history(self) -> list[dict[str, Any]]:
        """Lines of `history.jsonl`; one that was cut off by a kill, or is no object, is left out."""
        path = self.path / HISTORY
        if not path.is_file():
            return []
        lines = []
        for line in path.read_bytes().split(b"\n"):
            try:
                value = parse_json(line.decode("utf-8"))
            except ValueError:
                continue
            if isinstance(value, dict) and isinstance(value.get("step", 0), int) and _is_number(value.get("epoch", 0)):
                lines.append(value)
        return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e9


def find_runs(folder: str | os.PathLike[str]) -> Iterator[Run]:
    """Runs in a folder, or the folder itself if it is one; by name."""
    if Run.is_run(folder):
        yield Run(folder)
        return
    for manifest in sorted(Path(folder).glob(f"*/{MANIFEST}")):
        if Run.is_run(manifest.parent):
            yield Run(manifest.parent)


Reason = Literal["all-epochs", "max-steps", "early-stopping", "scst-guard", "signal", "pruned", "watch", "error"]
# As tables show them; every other reason reads as it is, with spaces.
IN_WORDS = {"all-epochs": "all epochs done", "max-steps": "all steps done", "watch": "ended from outside"}


@dataclass(frozen=True)
class Ending:
    """Why a training ended: the reason, a sentence, the step, and the numbers that led to it."""

    reason: Reason
    text: str
    step: int
    epoch: float
    details: dict[str, Any] = field(default_factory=dict)


def ending_text(manifest: Mapping[str, Any]) -> str:
    """The recorded sentence, or what its absence means."""
    recorded = manifest.get("ended")
    if isinstance(recorded, Mapping) and recorded.get("text"):
        return str(recorded["text"])
    if manifest.get("finished"):
        return "finished; this run does not record why"
    return "not recorded: it is still running, or was killed"


def ending_reason(manifest: Mapping[str, Any]) -> str:
    """The reason in a few words; empty where none is recorded."""
    recorded = manifest.get("ended")
    reason = recorded.get("reason", "") if isinstance(recorded, Mapping) else ""
    return IN_WORDS.get(str(reason), str(reason).replace("-", " "))
