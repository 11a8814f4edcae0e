"""The study of a search: its journal, and trials that go on after a stop at any moment as if there had been none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.locks import Locked, lock_file
from captune.core.runs import LOCK, SEARCH_JOURNAL

if TYPE_CHECKING:
    import optuna


@contextmanager
def opened(folder: Path, *, smallest: bool, prune: bool, random_trials: int) -> Iterator[optuna.Study]:
    """The study in a folder, made where there is none; no other search writes to it within the block.

    The trial with the `smallest` value is the best, or that with the largest; with `prune`, poor ones are cut short
    once `random_trials` are done. Raises `CaptuneError` where another search holds the folder, or without Optuna.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise CaptuneError("captune tune needs optuna.", "pip install 'captune[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / SEARCH_JOURNAL
    try:
        with lock_file(folder / LOCK):
            _mend(journal)
            yield optuna.create_study(
                study_name="captune",
                storage=JournalStorage(JournalFileBackend(str(journal))),
                direction="minimize" if smallest else "maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=random_trials) if prune else None,
                load_if_exists=True,
            )
    except Locked as error:
        raise CaptuneError(
            f"Another search{f' ({error.owner})' if error.owner else ''} writes to {folder}.",
            "Let it go on, or end it; or choose another --out.",
        ) from None


def _mend(journal: Path) -> None:
    """Remove what a killed search left of a write: Optuna would wait half a minute for its lock, and never read on
    behind half a line.
    """
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink(missing_ok=True)
    if not journal.is_file():
        return
    with open(journal, "r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def next_trial(study: optuna.Study) -> tuple[optuna.Trial, bool]:
    """The trial that was stopped before its end, else a new one; and whether it is such a one."""
    from optuna.trial import Trial, TrialState

    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if running:
        return Trial(study, running[0]._trial_id), True
    return study.ask(), False


def seed_for(search_seed: int, trial: int, axis: int) -> int:
    """The seed of one draw: it does not depend on what this process drew before."""
    return int(np.random.SeedSequence([search_seed, trial, axis]).generate_state(1)[0])
