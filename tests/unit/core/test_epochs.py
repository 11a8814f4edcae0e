"""Chosen epochs, the plan of a training, and what is plan_warnings before it begins."""

from __future__ import annotations

from typing import Any

import pytest

from captune.core.config import resolve
from captune.core.errors import UsageError
from captune.core.options.training import ChosenEpochs, TrainOptions
from captune.core.runs import ending_reason, ending_text
from captune.training.plan import TrainingPlan, max_checkpoints, plan_warnings


@pytest.mark.parametrize("given", ["2,4,every-10", ["2", "4", "every-10"], [2, 4.0, "every-10"], ("2,4", "every-10")])
def test_epochs_are_taken_as_people_write_them(given: Any) -> None:
    options = resolve("train", flags={"keep_epochs": given}).values.train
    assert options.keep_epochs == ("2", "4", "every-10")


@pytest.mark.parametrize("wrong", ["two", "0", "every", "-2", "every-0", "2-4", "nan"])
def test_what_is_no_epoch_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(UsageError, match="2,4,every-10"):
        resolve("train", flags={"keep_epochs": wrong})


@pytest.mark.parametrize("per_epoch", [1, 7, 188, 938])
def test_steps_of_chosen_epochs(per_epoch: int) -> None:
    chosen = ChosenEpochs.parse(("2", "4", "every-10"))
    found = [step for step in range(70 * per_epoch + 1) if chosen.at(step, per_epoch)]
    assert found == [epoch * per_epoch for epoch in (2, 4, 10, 20, 30, 40, 50, 60, 70)]


def test_parts_of_an_epoch() -> None:
    chosen = ChosenEpochs.parse(("0.5", "every-1.5"))
    assert [step for step in range(31) if chosen.at(step, 10)] == [5, 15, 30]


def plan(examples: int = 100, **options: Any) -> tuple[TrainOptions, TrainingPlan]:
    chosen = TrainOptions(**{"batch_size": 10, "epochs": 3, **options})
    return chosen, TrainingPlan.of(chosen, examples)


def test_the_plan_counts_as_the_loop_does() -> None:
    _, found = plan(examples=101, gradient_accumulation=4, epochs=2.5)
    assert (found.per_epoch, found.steps, found.validate_every, found.validations) == (3, 8, 3, 3)
    _, found = plan(max_steps=7, eval_steps=7)
    assert (found.steps, found.validations) == (7, 1)


@pytest.mark.parametrize(
    ("options", "about"),
    [
        (
            {"warmup_steps": 30},
            "warm-up is longer than the training: the learning rate rises for 30 steps, and there are",
        ),
        ({"warmup_steps": 500}, "It will end at 6% of --learning-rate"),
        ({"early_stopping_patience": 3}, "there will be 3"),
        ({"keep_epochs": ("2", "4", "every-10")}, "--keep-epochs names 4, 10, and this training ends with epoch 3"),
    ],
)
def test_what_cannot_work_out_is_plan_warnings(options: dict[str, Any], about: str) -> None:
    (sentence,) = plan_warnings(*plan(**options))
    assert about in sentence


def test_captions_longer_than_the_references_are_plan_warnings() -> None:
    (sentence,) = plan_warnings(*plan(), 10, [5, 6, 12])
    assert "67% of the training references are shorter than --min-new-tokens 10" in sentence
    assert not plan_warnings(*plan(), 10, [5, 11, 12])


def test_nothing_is_plan_warnings_of_a_sound_plan() -> None:
    assert plan_warnings(*plan(warmup_steps=29, early_stopping_patience=2, keep_epochs=("1", "every-3"))) == []


def test_the_long_recipe_is_as_its_document_has_it() -> None:
    config = resolve("train", preset="flickr8k-long").values
    learn = config.train
    # Flickr8k: 6,000 training images with 5 captions each, every pair a row.
    found = TrainingPlan.of(learn, 30_000)
    assert [step / found.per_epoch for step in range(found.steps + 1) if found.stays(step)] == [
        2, 4, 10, 20, 30, 40, 50, 60, 70,
    ]  # fmt: skip
    assert (learn.early_stopping_metric, learn.best_metric) == ("loss", "bleu")
    assert (learn.label_smoothing, config.model.dropout, learn.max_grad_norm, learn.weight_decay) == (
        0.1,
        0.1,
        1.0,
        0.05,
    )
    assert (config.generation.min_new_tokens, config.generation.max_new_tokens) == (0, 50)
    assert plan_warnings(learn, found) == []
    assert max_checkpoints(learn) == 2 + 9, "what the disk has to hold besides the best two"


def test_an_ending_in_words_for_new_and_old_runs() -> None:
    recorded = {"ended": {"reason": "early-stopping", "text": "early stopping at epoch 12"}, "finished": True}
    assert (ending_text(recorded), ending_reason(recorded)) == ("early stopping at epoch 12", "early stopping")
    assert "does not record why" in ending_text({"finished": True})
    assert "killed" in ending_text({"finished": False})
    assert ending_reason({}) == ""
