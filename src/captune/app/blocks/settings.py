"""The keys of a pipeline's `cfg`, checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from captune.core.aliases import canonical
from captune.core.config import leaves, resolve
from captune.core.errors import UsageError
from captune.core.options import DEFAULT_MODEL, EvaluateConfig, Options, PrepareConfig, TrainConfig
from captune.core.progress import SILENT, Progress
from captune.core.suggestions import about_option

SCENES = "scenes"
"""The source that needs no data: built-in scenes, drawn into the work folder."""

NEW = "new:"
CONFIGS: tuple[type[Options], ...] = (PrepareConfig, TrainConfig, EvaluateConfig)


class Cfg(dict[str, Any]):
    """A pipeline's `cfg` as a dictionary whose keys are attributes as well: `cfg.epochs = 3`.

    An attribute that was not set has the value that the blocks would take.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self:
            return self[name]
        known = known_keys()
        own = canonical(name, known) or name
        given = settings(self)
        if own in given.options:
            return given.options[own]
        if own in {one.name for one in fields(Settings)}:
            return getattr(given, own)
        if own in known:
            return given.value(own)
        raise AttributeError(f"cfg has no key '{name}'. {about_option(name, known)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self.pop(name, None)


def as_cfg(given: Any) -> Cfg:
    """A dictionary, or any object with attributes (a dataclass, a namespace, a class), as a `Cfg`."""
    if given is None:
        return Cfg()
    if isinstance(given, Mapping):
        return Cfg(given)
    if is_dataclass(given):
        return Cfg({one.name: getattr(given, one.name) for one in fields(given)})
    own = {name: value for kind in reversed(getattr(given, "__mro__", ())) for name, value in vars(kind).items()}
    own = own or {**vars(type(given)), **getattr(given, "__dict__", {})}
    return Cfg({name: value for name, value in own.items() if not name.startswith("_") and not callable(value)})


def known_keys() -> set[str]:
    """Every key that a `cfg` may have, by captune's names."""
    own = {one.name for one in fields(Settings)} - {"options"}
    return own | {name for config in CONFIGS for name in leaves(config)}


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
    options: Mapping[str, Any] = field(default_factory=dict)

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
        return {name: value for name, value in self.options.items() if name in leaves(config)}

    def prepare_options(self) -> dict[str, Any]:
        """What prepares the source: its own splits are kept, what has none is split 80/10/10."""
        return {"split": "flickr8k" if self.source == SCENES else "auto", **self.of(PrepareConfig)}

    def value(self, name: str) -> Any:
        """The value of an option of the verbs, given or not."""
        for config in CONFIGS:
            if name in leaves(config):
                preset = None if config is PrepareConfig else self.preset
                given = self.prepare_options() if config is PrepareConfig else self.of(config)
                found = resolve(config, preset=preset, flags=given, environment=os.environ).values
                return getattr(getattr(found, leaves(config)[name].section), name)
        raise KeyError(name)


def settings(cfg: Mapping[str, Any]) -> Settings:
    """Check a `cfg`; raises `UsageError` for an unknown key or a value that is not allowed."""
    own = {one.name for one in fields(Settings)} - {"options"}
    known = known_keys()
    cfg = _renamed(cfg, known)
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
            "options": {key: value for key, value in cfg.items() if key in known - own},
        }
    )
    _check_scenes(found.scenes)
    resolve(PrepareConfig, flags=found.prepare_options(), environment=os.environ)
    for config in (TrainConfig, EvaluateConfig):
        resolve(config, preset=found.preset, flags=found.of(config), environment=os.environ)
    return found


def _renamed(cfg: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The `cfg` by captune's names; raises `UsageError` for what is neither one nor another tool's name for one."""
    found: dict[str, Any] = {}
    before: dict[str, str] = {}
    for key, value in cfg.items():
        own = key if key in known else canonical(str(key), known)
        if own is None:
            raise UsageError(f"cfg has no key '{key}'.", about_option(str(key), known))
        if own in found and found[own] != value:
            raise UsageError(
                f"cfg: '{before[own]}' and '{key}' are the same key with two values.", f"Set '{own}' once."
            )
        found[own], before[own] = value, key
    return found


def _check_scenes(scenes: Any) -> None:
    if scenes is None:
        return
    right = isinstance(scenes, Mapping) and set(scenes) <= {"train", "dev", "test"}
    if not right or not all(isinstance(count, int) and count > 0 for count in scenes.values()):
        raise UsageError(
            f"cfg['scenes']: {scenes!r} is not allowed.", "For example: {'train': 600, 'dev': 60, 'test': 60}"
        )
