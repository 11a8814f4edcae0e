"""The keys of a pipeline's `cfg`, checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from captune.core.config import leaves, resolve
from captune.core.errors import UsageError, did_you_mean
from captune.core.options import DEFAULT_MODEL, EvaluateConfig, Options, PrepareConfig, TrainConfig
from captune.core.progress import SILENT, Progress

SCENES = "scenes"
"""The source that needs no data: built-in scenes, drawn into the work folder."""

NEW = "new:"


@dataclass(frozen=True)
class Settings:
    """A pipeline's `cfg` with its defaults.

    work     folder for everything the blocks make
    source   what `captune prepare` takes (`flickr8k`, a folder such as /kaggle/input/flickr8k), or `scenes`
    scenes   pictures of each split where the source is `scenes`
    model    what is trained: a folder, a run, a Hub id, or new:FAMILY-SIZE
    preset   recipe of training and evaluation, or None
    run      name of the run's folder in `work`; another name for another training
    eval_split   split that block 08 measures on
    against  model that block 08 compares with; None: `model` itself, or the untrained start of a new one
    own      whatever blocks of your own read
    progress where the blocks report; set by `run_pipeline`

    Every other key is an option of `captune prepare`, `train` or `evaluate` by its name
    (`epochs`, `batch_size`, `limit_images`, ...); it wins over the preset.
    """

    work: Path = Path("captune-work")
    source: str = "flickr8k"
    scenes: Mapping[str, int] | None = None
    model: str = DEFAULT_MODEL
    preset: str | None = "flickr8k-quick"
    run: str = "run"
    eval_split: str = "test"
    against: str | None = None
    own: Any = None
    progress: Progress = SILENT
    options: Mapping[str, Any] | None = None

    @property
    def data(self) -> Path:
        """The prepared folder."""
        return self.work / "data"

    @property
    def run_folder(self) -> Path:
        return self.work / self.run

    @property
    def drawn(self) -> dict[str, int]:
        """Pictures of each split of the built-in scenes."""
        return {"train": 600, "dev": 60, "test": 60, **(self.scenes or {})}

    @property
    def base(self) -> str:
        """The model that the trained one is compared with."""
        untrained = f"{self.run_folder}@checkpoint-0" if self.model.startswith(NEW) else self.model
        return self.against or untrained

    def of(self, config: type[Options]) -> dict[str, Any]:
        """The options that a verb takes, as its keywords."""
        return {name: value for name, value in (self.options or {}).items() if name in leaves(config)}

    def prepare_options(self) -> dict[str, Any]:
        split = "flickr8k" if self.source == SCENES else "80/10/10"
        return {"split": split, **self.of(PrepareConfig)}


def settings(cfg: Mapping[str, Any]) -> Settings:
    """Check a `cfg`; raises `UsageError` for an unknown key or a value that is not allowed."""
    own = {field.name for field in fields(Settings)} - {"options"}
    options = {name for config in (PrepareConfig, TrainConfig, EvaluateConfig) for name in leaves(config)}
    for key in cfg:
        if key not in own | options:
            raise UsageError(f"cfg has no key '{key}'.", did_you_mean(str(key), own | options))
    given = {key: value for key, value in cfg.items() if key in own}
    for key in ("work", "source", "model", "run"):
        if not str(given.get(key, "-")):
            raise UsageError(f"cfg['{key}'] is empty.", "Leave it out for the default.")
    found = Settings(
        **{
            **given,
            "work": Path(given.get("work", Settings.work)),
            "source": os.fspath(given.get("source", Settings.source)),
            "model": os.fspath(given.get("model", Settings.model)),
            "options": {key: value for key, value in cfg.items() if key in options},
        }
    )
    _check_scenes(found.scenes)
    resolve(PrepareConfig, flags=found.prepare_options(), environment=os.environ)
    for config in (TrainConfig, EvaluateConfig):
        resolve(config, preset=found.preset, flags=found.of(config), environment=os.environ)
    return found


def _check_scenes(scenes: Any) -> None:
    if scenes is None:
        return
    right = isinstance(scenes, Mapping) and set(scenes) <= {"train", "dev", "test"}
    if not right or not all(isinstance(count, int) and count > 0 for count in scenes.values()):
        raise UsageError(
            f"cfg['scenes']: {scenes!r} is not allowed.", "For example: {'train': 600, 'dev': 60, 'test': 60}"
        )
