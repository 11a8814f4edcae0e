"""Named blocks that run in order, with checked settings and results in one dictionary."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, overload

from captune.core.aliases import canonical
from captune.core.config import leaves, resolve
from captune.core.errors import CaptuneError, UsageError, about_option, did_you_mean
from captune.core.model_names import is_new
from captune.core.options import DEFAULT_MODEL
from captune.core.progress import SILENT, Progress

SCENES = "scenes"
"""The source that needs no data: built-in scenes, drawn into the work folder."""

VERBS = ("prepare", "train", "evaluate")


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
        settings = read_settings(self)
        if own in settings.options:
            return settings.options[own]
        if own in {one.name for one in fields(Settings)}:
            return getattr(settings, own)
        if own in known:
            return settings.value(own)
        raise AttributeError(f"cfg has no key '{name}'. {about_option(name, known)}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        self.pop(name, None)


def as_cfg(value: Any) -> Cfg:
    """A dictionary, or any object with attributes (a dataclass, a namespace, a class), as a `Cfg`."""
    if value is None:
        return Cfg()
    if isinstance(value, Mapping):
        return Cfg(value)
    if is_dataclass(value):
        return Cfg({one.name: getattr(value, one.name) for one in fields(value)})
    own = {name: item for kind in reversed(getattr(value, "__mro__", ())) for name, item in vars(kind).items()}
    own = own or {**vars(type(value)), **getattr(value, "__dict__", {})}
    return Cfg({name: item for name, item in own.items() if not name.startswith("_") and not callable(item)})


def known_keys() -> set[str]:
    """Every key that a `cfg` may have, by captune's names."""
    own = {one.name for one in fields(Settings)} - {"options"}
    return own | {name for verb in VERBS for name in leaves(verb)}


@dataclass(frozen=True)
class Settings:
    """A pipeline's `cfg` with its defaults.

    work     folder for everything the blocks make
    source   what `captune prepare` takes (`flickr8k`, a folder such as /kaggle/input/flickr8k), or `scenes`
    scenes   images of each split where the source is `scenes`
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
        """Images of each split of the built-in scenes."""
        return {"train": 600, "dev": 60, "test": 60, **(self.scenes or {})}

    @property
    def base(self) -> str:
        """The model that the trained one is compared with."""
        untrained = f"{self.run_folder}@checkpoint-0" if is_new(self.model) else self.model
        return self.against or untrained

    def of(self, verb: str) -> dict[str, Any]:
        """The options that a verb takes, as its keywords."""
        return {name: value for name, value in self.options.items() if name in leaves(verb)}

    def prepare_options(self) -> dict[str, Any]:
        """What prepares the source: its own splits are kept, what has none is split 80/10/10."""
        return {"split": "flickr8k" if self.source == SCENES else "auto", **self.of("prepare")}

    def value(self, name: str) -> Any:
        """The value of an option of the verbs, set or not."""
        for verb in VERBS:
            if name in leaves(verb):
                preset = None if verb == "prepare" else self.preset
                flags = self.prepare_options() if verb == "prepare" else self.of(verb)
                values = resolve(verb, preset=preset, flags=flags, environment=None).values
                return getattr(getattr(values, leaves(verb)[name].section), name)
        raise KeyError(name)


def read_settings(cfg: Mapping[str, Any]) -> Settings:
    """Check a `cfg`; raises `UsageError` for an unknown key or a value that is not allowed."""
    own = {one.name for one in fields(Settings)} - {"options"}
    known = known_keys()
    cfg = _renamed(cfg, known)
    values = {key: value for key, value in cfg.items() if key in own}
    for key in ("work", "source", "model", "run"):
        if not str(values.get(key, "-")):
            raise UsageError(f"cfg['{key}'] is empty.", "Leave it out for the default.")
    values |= {key: os.fspath(values[key]) for key in ("source", "model") if key in values}
    values["work"] = Path(values.get("work", Settings.work))
    settings = Settings(**values, options={key: value for key, value in cfg.items() if key in known - own})
    _check_scenes(settings.scenes)
    resolve("prepare", flags=settings.prepare_options(), environment=None)
    for verb in ("train", "evaluate"):
        resolve(verb, preset=settings.preset, flags=settings.of(verb), environment=None)
    return settings


def _renamed(cfg: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The `cfg` by captune's names; raises `UsageError` for what is neither one nor another tool's name for one."""
    renamed: dict[str, Any] = {}
    before: dict[str, str] = {}
    for key, value in cfg.items():
        own = key if key in known else canonical(str(key), known)
        if own is None:
            raise UsageError(f"cfg has no key '{key}'.", about_option(str(key), known))
        if own in renamed and renamed[own] != value:
            what = f"cfg: '{before[own]}' and '{key}' are the same key with two values."
            raise UsageError(what, f"Set '{own}' once.")
        renamed[own], before[own] = value, key
    return renamed


def _check_scenes(scenes: Any) -> None:
    right = scenes is None or (isinstance(scenes, Mapping) and set(scenes) <= {"train", "dev", "test"})
    if not right or not all(isinstance(count, int) and count > 0 for count in (scenes or {}).values()):
        example = "For example: {'train': 600, 'dev': 60, 'test': 60}"
        raise UsageError(f"cfg['scenes']: {scenes!r} is not allowed.", example)


Result = dict[str, Any]
Ctx = dict[str, Result]
_NUMBER = re.compile(r"^\d+_")


class Results(dict[str, Result]):
    """Results by the names of their blocks; `ctx["04_load_ds"]` and `ctx["load_datasets"]` find them as well."""

    def __init__(self) -> None:
        super().__init__()
        self.also: dict[str, str] = {}

    def _key(self, name: Any) -> Any:
        if not isinstance(name, str) or super().__contains__(name):
            return name
        short = next((full for full in self if _NUMBER.sub("", full) == name), name)
        return self.also.get(name, short)

    def __getitem__(self, name: str) -> Result:
        return super().__getitem__(self._key(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._key(name))

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(self._key(name), default)


def full_name(name: str, blocks: Mapping[str, Block]) -> str:
    """The name of the block that is meant by another of its names, or by its name without the number."""
    if name in blocks:
        return name
    return next((full for full, one in blocks.items() if name in one.also or _NUMBER.sub("", full) == name), name)


Run = Callable[[Cfg, Ctx], Result]
Recall = Callable[[Cfg], Result | None]


@dataclass(frozen=True)
class Block:
    """One named step: `run(cfg, ctx)` returns the dictionary that is kept as `ctx[name]`.

    `needs` names the blocks whose results it reads. `recall(cfg)` finds the result that an
    earlier session left on disk, or None; a block with `recall` is long work, never done
    only because another block needs it. `also` are other names of the block.
    """

    name: str
    run: Run
    needs: tuple[str, ...] = ()
    recall: Recall | None = None
    also: tuple[str, ...] = ()

    def __call__(self, cfg: Any, ctx: Ctx) -> Result:
        return self.run(as_cfg(cfg), ctx)


class BlockError(CaptuneError):
    """What went wrong in a block: `block` is its name, `ctx` the results of those before it."""

    def __init__(self, block: str, ctx: Ctx, error: CaptuneError) -> None:
        super().__init__(f"{block}: {error.message}", error.hint, code=error.code)
        self.block, self.ctx = block, ctx


@overload
def block(name: Run) -> Block: ...
@overload
def block(
    name: str, needs: Iterable[str] = (), recall: Recall | None = None, also: Iterable[str] = ()
) -> Callable[[Run], Block]: ...
def block(
    name: str | Run, needs: Iterable[str] = (), recall: Recall | None = None, also: Iterable[str] = ()
) -> Block | Callable[[Run], Block]:
    """Make a function of (cfg, ctx) a `Block`; it is registered nowhere: put it into a pipeline yourself.

    Without arguments, `@block` names it after its function.
    """
    if callable(name):
        return Block(getattr(name, "__name__", "block"), name)
    return lambda run: Block(name, run, tuple(needs), recall, tuple(also))


def run_pipeline(
    pipeline: Sequence[Block],
    cfg: Any = None,
    only: str | Iterable[str] | None = None,
    ctx: Ctx | None = None,
    progress: Progress = SILENT,
) -> Ctx:
    """Run all blocks in order, or those named in `only`, and return their results by name.

    `cfg` is a dictionary, or any object whose attributes are the keys. `ctx`, the results of an
    earlier call, is added to in place. What a requested block needs and `ctx` lacks is taken from disk,
    or run where that is quick; a long block that has left nothing finished is named in the error
    instead. A long block that is requested and was finished with the same settings is taken from
    disk as well.
    Raises `UsageError` for unknown names and missing results, `BlockError` for what fails
    inside a block; other exceptions carry a note with the block's name.
    """
    blocks = _by_name(pipeline)
    requested = set(blocks) if only is None else _requested(only, blocks)
    ctx = Results() if ctx is None else ctx
    if isinstance(ctx, Results):
        ctx.also.update({other: one.name for one in blocks.values() for other in one.also})
    cfg = Cfg({**as_cfg(cfg), "progress": progress})
    chosen = set(requested)
    for name in requested:
        chosen |= _lacking(blocks[name], blocks, requested, cfg, ctx)
    for name, one in blocks.items():
        if name in chosen:
            with _named(name, ctx):
                ctx[name] = _result(one, cfg, ctx, requested=name in requested, progress=progress)
    return ctx


def _result(one: Block, cfg: Cfg, ctx: Ctx, *, requested: bool, progress: Progress) -> Result:
    recalled = one.recall(cfg) if one.recall else None
    if recalled is not None:
        progress.info(f"{one.name}: finished before, taken from disk")
        return recalled
    if one.recall and not requested:
        raise _missing(one.name, [one.name])
    progress.info(one.name)
    result = one.run(cfg, ctx)
    if not isinstance(result, dict):
        raise UsageError(f"The block returned {type(result).__name__}.", "Let it return a dictionary.")
    return result


def _lacking(one: Block, blocks: Mapping[str, Block], requested: set[str], cfg: Cfg, ctx: Ctx) -> set[str]:
    """The blocks that `one` needs and that have to be recalled or run for it."""
    lacking: set[str] = set()
    missing: list[str] = []

    def add_needs_of(needed: Block) -> None:
        for name in (full_name(need, blocks) for need in needed.needs):
            if name in requested or name in ctx or name in lacking:
                continue
            lacking.add(name)
            recall = blocks[name].recall
            if recall is None:
                add_needs_of(blocks[name])
            else:
                with _named(name, ctx):
                    if recall(cfg) is None:
                        missing.append(name)

    add_needs_of(one)
    if missing:
        raise _missing(one.name, missing)
    return lacking


def _missing(needing: str, missing: list[str]) -> UsageError:
    listed = ", ".join(missing)
    return UsageError(
        f"{needing} needs {listed}, and nothing finished of that is in `ctx` or in the work folder.",
        f"Run it as well: only={[*missing, *({needing} - set(missing))]}, or pass the ctx of an earlier call.",
    )


def _by_name(pipeline: Sequence[Block]) -> dict[str, Block]:
    """Blocks by name; every need has to stand before the block that has it."""
    blocks: dict[str, Block] = {}
    for one in pipeline:
        if one.name in blocks:
            raise UsageError(f"Two blocks of the pipeline are named {one.name}.", "Rename one of them.")
        for need in one.needs:
            if full_name(need, blocks) not in blocks:
                raise UsageError(f"{one.name} needs {need}, which is not before it.", did_you_mean(need, blocks))
        blocks[one.name] = one
    return blocks


def _requested(only: str | Iterable[str], blocks: Mapping[str, Block]) -> set[str]:
    names = [full_name(name, blocks) for name in ([only] if isinstance(only, str) else only)]
    for name in names:
        if name not in blocks:
            raise UsageError(f"There is no block '{name}' in the pipeline.", did_you_mean(name, blocks))
    return set(names)


@contextmanager
def _named(name: str, ctx: Ctx) -> Iterator[None]:
    """Give whatever is raised inside the name of the block."""
    try:
        yield
    except CaptuneError as error:
        raise BlockError(name, ctx, error) from error
    except BaseException as error:
        error.add_note(f"(in the block {name}; the results of those before it are in the ctx you passed)")
        raise
