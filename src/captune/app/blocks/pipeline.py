"""Named blocks that run in order and keep their results in one dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, overload

from captune.app.blocks.results import Ctx, Result, Results, full_name
from captune.app.blocks.settings import Cfg, as_cfg
from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.progress import SILENT, Progress

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
    earlier call, is added to in place. What an asked block needs and `ctx` lacks is taken from disk,
    or run where that is quick; a long block that has left nothing finished is named in the error
    instead. A long block that is asked for and was finished with the same settings is taken from
    disk as well.
    Raises `UsageError` for unknown names and missing results, `BlockError` for what fails
    inside a block; other exceptions carry a note with the block's name.
    """
    blocks = _by_name(pipeline)
    asked = set(blocks) if only is None else _asked(only, blocks)
    ctx = Results() if ctx is None else ctx
    if isinstance(ctx, Results):
        ctx.also.update({other: one.name for one in blocks.values() for other in one.also})
    cfg = Cfg({**as_cfg(cfg), "progress": progress})
    wanted = set(asked)
    for name in asked:
        wanted |= _lacking(blocks[name], blocks, asked, cfg, ctx)
    for name, one in blocks.items():
        if name in wanted:
            with _Named(name, ctx):
                ctx[name] = _result(one, cfg, ctx, asked=name in asked, progress=progress)
    return ctx


def _result(one: Block, cfg: Cfg, ctx: Ctx, *, asked: bool, progress: Progress) -> Result:
    recalled = one.recall(cfg) if one.recall else None
    if recalled is not None:
        progress.info(f"{one.name}: finished before, taken from disk")
        return recalled
    if one.recall and not asked:
        raise _missing(one.name, [one.name])
    progress.info(one.name)
    result = one.run(cfg, ctx)
    if not isinstance(result, dict):
        raise UsageError(f"The block returned {type(result).__name__}.", "Let it return a dictionary.")
    return result


def _lacking(one: Block, blocks: Mapping[str, Block], asked: set[str], cfg: Cfg, ctx: Ctx) -> set[str]:
    """The blocks that `one` needs and that have to be recalled or run for it."""
    found: set[str] = set()
    missing: list[str] = []

    def look(needed: Block) -> None:
        for name in (full_name(need, blocks) for need in needed.needs):
            if name in asked or name in ctx or name in found:
                continue
            found.add(name)
            recall = blocks[name].recall
            if recall is None:
                look(blocks[name])
            else:
                with _Named(name, ctx):
                    if recall(cfg) is None:
                        missing.append(name)

    look(one)
    if missing:
        raise _missing(one.name, missing)
    return found


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


def _asked(only: str | Iterable[str], blocks: Mapping[str, Block]) -> set[str]:
    names = [full_name(name, blocks) for name in ([only] if isinstance(only, str) else only)]
    for name in names:
        if name not in blocks:
            raise UsageError(f"There is no block '{name}' in the pipeline.", did_you_mean(name, blocks))
    return set(names)


class _Named:
    """Gives whatever is raised inside the name of the block."""

    def __init__(self, name: str, ctx: Ctx) -> None:
        self.name, self.ctx = name, ctx

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CaptuneError):
            raise BlockError(self.name, self.ctx, error) from error
        if error is not None:
            error.add_note(f"(in the block {self.name}; the results of those before it are in the ctx you passed)")
