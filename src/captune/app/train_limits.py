"""A training that finds memory or the disk used up: what to tell, and the settings that learn the same with less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from captune.app.resuming import equal_steps
from captune.core.disk import DiskFull
from captune.core.errors import CaptuneError, first_line
from captune.core.machine import machine_error
from captune.core.memory import OutOfMemory, is_out_of_memory, memory_error
from captune.core.options import TrainConfig
from captune.core.runs import Run


@contextmanager
def told(run: Run, config: TrainConfig, what: str) -> Iterator[None]:
    """Around a part of a training (`what` it does): `OutOfMemory` and `DiskFull` say how it goes on."""
    try:
        yield
    except (OutOfMemory, DiskFull) as error:
        again = _again(run)
        if again in error.hint:
            raise
        hint = re.sub(r",? and run the command again\.", f", then: {again}", error.hint)
        less = _equal(run, config) if isinstance(error, OutOfMemory) else ""
        raise type(error)(error.message, less + hint) from error
    except CaptuneError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise memory_error(error, what, _equal(run, config) + _others(config)) from error
        if "dataloader worker" in str(error).lower():
            raise CaptuneError(
                f"A process that reads images has died: {first_line(error)}",
                f"Often it was memory. With fewer: {_again(run)} --loader-workers 0",
            ) from error
        known = machine_error(error)
        if isinstance(known, DiskFull):
            raise DiskFull(known.message, f"Free some space, then: {_again(run)}") from error
        raise


def _again(run: Run) -> str:
    """The command that goes on with a run, or begins one that has no folder yet."""
    return f"captune train --resume --out {run.path}" if Run.is_run(run.path) else "the same command"


def _equal(run: Run, config: TrainConfig) -> str:
    """The command that goes on with the same mathematics in less memory; empty where there is none."""
    learn = config.train
    flags = [] if learn.stage == "scst" else [equal_steps(learn.batch_size, learn.gradient_accumulation)]
    if not learn.gradient_checkpointing:
        flags.append("--gradient-checkpointing")
    flags = [flag for flag in flags if flag]
    if not flags:
        return ""
    each = " (or one of the two)" if len(flags) > 1 else ""
    return f"The same loss in less memory{each}: {_again(run)} {' '.join(flags)}\n"


def _others(config: TrainConfig) -> str:
    """What a new run could do with less, at other mathematics."""
    data, learn = config.data, config.train
    ways = {
        "--freeze vision --cache-features": not (data.cache_features or data.crop or data.flip or data.color_jitter),
        "--captions-per-image 1": learn.stage != "scst" and data.captions_per_image != 1,
        "--lora on": config.model.lora is None,
        "--precision bf16": config.run_on.precision in ("auto", "fp32"),
        "a smaller --image-size or model": True,
    }
    return f"In a new run also: {', '.join(way for way, open_ in ways.items() if open_)}."
