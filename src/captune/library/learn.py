"""`captune learn`: a model learns from what people wrote in a library, and is tested against what it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from captune.core.config import leaves, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import write_json
from captune.core.progress import SILENT, Progress
from captune.core.runs import Run
from captune.library.database import now
from captune.library.learning_data import write_data
from captune.library.library import Library

Verdict = Literal["better", "worse", "not told apart"]
# The score that decides, and what a report shows besides it.
DECIDES = "cider"
METRICS = ("auto", "ter")
SHOWN = ("cider", "meteor", "ter", "loss")
# Differences on fewer held-out images say little, whatever their interval.
ENOUGH = 30


@dataclass(frozen=True)
class Round:
    """A round of learning: what was learned from, the run, and the new model minus the former on held-out images.

    `differences` have `value`, `low` and `high` (95 %) by score; `former` and `new` the scores themselves, 0–1.
    `images` are the held-out ones.
    """

    number: int
    model: str
    run: str
    report: str
    train: int
    images: int
    verdict: Verdict
    former: Mapping[str, float]
    new: Mapping[str, float]
    differences: Mapping[str, Mapping[str, float]]

    @property
    def enough(self) -> bool:
        """Whether so many images were held out that the difference means something."""
        return self.images >= ENOUGH

    @property
    def otherwise(self) -> tuple[str, ...]:
        """Scores by which the new model is worse where the verdict is better, or better where it is worse."""
        wanted = {"better": -1, "worse": 1}.get(self.verdict, 0)
        return tuple(
            name
            for name, one in self.differences.items()
            if one["low"] * one["high"] > 0 and _sign(name) * (1 if one["low"] > 0 else -1) == wanted
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "enough": self.enough, "otherwise": list(self.otherwise)}


def learn(
    folder: str | os.PathLike[str],
    model: str,
    *,
    library: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Round:
    """Train `model` on the captions that people wrote or approved in a library, and test it on those held out.

    A fifth of the images is never learned from, in no round; near-duplicates stay together. The new model and the
    former caption it, and are compared image by image. Options are those of `captune learn --help`. A round that was
    stopped goes on. Raises `CaptuneError` where people wrote too little.
    """
    sources: dict[str, Any] = {"config": config, "preset": preset, "sets": tuple(sets), "environment": environment}
    resolve("learn", preset=preset, file=config, environment=environment, flags=options, sets=sources["sets"])
    metrics = tuple(options.pop("metrics", METRICS))
    if DECIDES not in metrics and "auto" not in metrics:
        raise UsageError(f"Without {DECIDES} nothing tells which model is better.", f"Add it: --metrics {DECIDES},…")
    opened = Library(folder, library)
    number = _begin(opened, model)
    place = _place(opened, number)
    run = place / "run"
    if not Run.is_run(run):
        try:
            write_data(opened.database, opened.folder, place / "data")
        except CaptuneError:  # too little to learn from is no round
            with opened.database.write() as connection:
                connection.execute("DELETE FROM rounds WHERE id = ?", (number,))
            raise
    from captune.evaluation.evaluate import evaluate
    from captune.training.train import train

    train(place / "data", model, run, resume=Run.is_run(run), **_of("train", options), **sources, progress=progress)
    test = evaluate(
        str(run), place / "data", split="test", against=model, out=place / "test", metrics=metrics,
        **_of("evaluate", options), **sources, progress=progress,
    )  # fmt: skip
    found = _round(number, model, run, place, test)
    write_json(place / "round.json", found.to_json())
    with opened.database.write() as connection:
        values = ("done", json.dumps(found.to_json()), number)
        connection.execute("UPDATE rounds SET state = ?, result = ? WHERE id = ?", values)
    return found


def rounds(folder: str | os.PathLike[str], library: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """What became of each round of a library, the first one first; of one that was stopped only its model."""
    rows = Library(folder, library).database.connection.execute("SELECT * FROM rounds ORDER BY id").fetchall()
    return [{"number": row["id"], "model": row["model"], "at": row["at"], **json.loads(row["result"])} for row in rows]


def take_back(folder: str | os.PathLike[str], library: str | os.PathLike[str] | None = None) -> int:
    """Forget the last round of a library: its run, and the drafts that its model wrote; the number of these.

    What a person wrote or approved stays. Raises `CaptuneError` where there is no round.
    """
    opened = Library(folder, library)
    with opened.database.write() as connection:
        row = connection.execute("SELECT id FROM rounds ORDER BY id DESC").fetchone()
        if row is None:
            hint = f"Begin one: {opened.database.command('learn', '--model', 'MODEL')}"
            raise CaptuneError(f"{opened.folder} has learned in no round.", hint)
        place = _place(opened, row["id"])
        names = {str(place / "run"), os.path.abspath(place / "run")}
        drafts = connection.execute(
            "SELECT id, of FROM captions WHERE current AND status = 'draft' AND written_by = 'model' "
            f"AND model IN ({', '.join('?' * len(names))})",
            tuple(names),
        ).fetchall()
        for draft in drafts:
            connection.execute("UPDATE captions SET current = 0 WHERE id = ?", (draft["id"],))
            connection.execute("UPDATE captions SET current = 1 WHERE id = ?", (draft["of"],))
        connection.execute("DELETE FROM rounds WHERE id = ?", (row["id"],))
    shutil.rmtree(place, ignore_errors=True)
    return len(drafts)


def _place(library: Library, number: int) -> Path:
    """The folder of a round."""
    return library.own / "rounds" / str(number)


def _begin(library: Library, model: str) -> int:
    """The number of a new round, or of one that was stopped.

    Raises `UsageError` where another model is learning in that.
    """
    with library.database.write() as connection:
        row = connection.execute("SELECT * FROM rounds ORDER BY id DESC").fetchone()
        if row is None or row["state"] == "done":
            cursor = connection.execute("INSERT INTO rounds(at, model) VALUES (?, ?)", (now(), model))
            return int(cursor.lastrowid or 0)
        number = int(row["id"])
        if row["model"] != model and Run.is_run(_place(library, number) / "run"):
            raise UsageError(
                f"Round {number} was begun with {row['model']}, and not finished.",
                f"Finish it with that model, or forget it: {library.database.command('library take-back')}",
            )
        connection.execute("UPDATE rounds SET model = ? WHERE id = ?", (model, number))
        return number


def _of(verb: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a verb takes."""
    return {name: value for name, value in options.items() if name in leaves(verb)}


def _round(number: int, model: str, run: Path, place: Path, test: Any) -> Round:
    (differences,) = test.comparisons.values()
    new, former = test.reports.values()
    decides = differences[DECIDES]
    verdict: Verdict = "better" if decides.low > 0 else "worse" if decides.high < 0 else "not told apart"
    shown = {name: one for name, one in differences.items() if name in SHOWN}
    return Round(
        number, model, str(run), str(place / "test" / "report.html"), _images(place / "data"), len(test.records),
        verdict, dict(former.scores), dict(new.scores),
        {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in shown.items()},
    )  # fmt: skip


def _sign(score: str) -> int:
    """1 where more of a score is better, -1 where less is."""
    from captune.metrics import spec_of

    return spec_of(score).sign


def _images(data: Path) -> int:
    from captune.datasets.prepared import read_prepared

    return read_prepared(data).splits["train"].images
