"""Self-critical training: sampled captions are rewarded by CIDEr-D, against a baseline of the same model.

Rennie et al. 2017, *Self-critical Sequence Training for Image Captioning*. Likelihoods are
computed anew with gradients; the end of a caption counts as a word; document frequencies
are those of the whole training split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from captune.core.options import GenerationOptions
from captune.core.progress import Progress
from captune.core.runs import Ending, Run
from captune.decoding.rows import Generated
from captune.inference.batches import CaptionDataset, collate
from captune.metrics.reward import CiderReward
from captune.models.backbone import Backbone, Encoded
from captune.models.generate import search_tokens
from captune.training.loop.schedule import ending_at
from captune.training.loop.trainer import CaptionTrainer
from captune.training.selection import as_finite, exceeds

FIGURES = ("reward", "baseline", "ended")


@dataclass(frozen=True)
class SelfCritical:
    """`samples` captions an image of at most `longest` tokens; the baseline; the share of the references' own loss.

    `search` draws them by chance, or takes the beams of a search (Cornia et al. 2020, *Meshed-Memory
    Transformer*): then what is trained is what a beam search chooses among. Baseline `samples` is
    the mean reward of an image's other captions, `greedy` that of its likeliest one.
    """

    samples: int
    search: Literal["chance", "beams"]
    baseline: Literal["samples", "greedy"]
    references: float
    longest: int


class NumberedDataset(CaptionDataset):
    """Examples with their numbers."""

    def __getitem__(self, index: tuple[int, int]) -> Any:
        return *super().__getitem__(index), index[1] if index[1] >= 0 else -1 - index[1]


def collate_numbered(examples: Sequence[tuple[np.ndarray, Sequence[Encoded], int]], pad: int) -> dict[str, Tensor]:
    """A batch of `collate` with the numbers of its examples."""
    numbers = torch.tensor([number for _, _, number in examples])
    return {**collate([(image, references) for image, references, _ in examples], pad), "number": numbers}


class SelfCriticalModule(nn.Module):
    """The forward pass: images to a policy's loss."""

    def __init__(self, backbone: Backbone, reward: CiderReward, how: SelfCritical, *, recompute: bool) -> None:
        super().__init__()
        self.model = backbone.model
        self.backbone = [backbone]  # in a list: it is no module of its own
        self.reward, self.how, self.recompute = reward, how, recompute

    def forward(self, images: Tensor, number: Tensor, **captions: Any) -> dict[str, Tensor]:
        """`objective` is a mean over tokens; the figures are means over captions."""
        (backbone,), how = self.backbone, self.how
        image_features = backbone.image_features(images)
        numbers = number.tolist()
        sampled, rewards, ended = self._sample(image_features, numbers, how.samples, how.search)
        if how.baseline == "greedy":
            _, baseline, _ = self._sample(image_features, numbers, 1, "beams")
        else:
            baseline = (rewards.sum(1, keepdim=True) - rewards) / (how.samples - 1)
        tokens, lengths, owner, given = self._with_prefix(sampled)
        losses = backbone.token_losses(image_features, tokens, lengths, owner, given, recompute=self.recompute)
        advantage = (rewards - baseline).flatten()[losses.caption]
        objective = (advantage * losses.nll).mean()
        if how.references:
            nll = backbone.token_losses(image_features, **captions, recompute=self.recompute).nll
            objective = (1 - how.references) * objective + how.references * nll.sum() / max(1, len(nll))
        # A filled-up batch (`SharedBatches`) has nothing supervised.
        objective = objective * (captions["lengths"] > captions["given"]).any()
        return {
            "objective": objective,
            "reward": rewards.mean(),
            "baseline": baseline.mean(),
            "ended": ended.float().mean(),
        }

    def _sample(
        self, image_features: Tensor, numbers: list[int], captions: int, search: Literal["chance", "beams"]
    ) -> tuple[Generated, Tensor, Tensor]:
        """Captions of each image, their rewards and whether they end."""
        (backbone,) = self.backbone
        options = GenerationOptions(
            num_beams=captions if search == "beams" else 1,
            sample=search == "chance",
            num_captions=captions,
            top_k=0,
            max_new_tokens=self.how.longest,
            min_new_tokens=0,
        )
        prompts = torch.tensor([self._prefix()] * len(numbers), device=image_features.device)
        training = backbone.model.training
        backbone.model.eval()
        with torch.no_grad():
            generated = search_tokens(backbone, image_features.detach(), prompts, options)
        backbone.model.train(training)
        rows, lengths = generated.tokens.flatten(0, 1), generated.lengths.flatten()
        texts = [backbone.decode(row[:length]) for row, length in zip(rows.tolist(), lengths.tolist(), strict=True)]
        ended = rows.gather(1, lengths[:, None] - 1)[:, 0] == backbone.eos_token_id
        owners = np.repeat(numbers, generated.tokens.shape[1]).tolist()
        scores = self.reward(texts, owners, ended.tolist())
        rewards = torch.from_numpy(scores).to(image_features.device, torch.float32)
        return generated, rewards.view(len(numbers), -1), ended

    def _prefix(self) -> list[int]:
        (backbone,) = self.backbone
        return backbone.codec.start(backbone.codec.prompt)

    def _with_prefix(self, generated: Generated) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sampled captions after start and prompt, as `token_losses` takes them."""
        count, each, _ = generated.tokens.shape
        rows, prefix = generated.tokens.flatten(0, 1), torch.tensor(self._prefix(), device=generated.tokens.device)
        tokens = torch.cat([prefix.expand(len(rows), -1), rows], 1)
        owner = torch.arange(count, device=rows.device).repeat_interleave(each)
        given = torch.full_like(owner, len(prefix))
        return tokens, generated.lengths.flatten() + len(prefix), owner, given


class SelfCriticalTrainer(CaptionTrainer):
    """The same loop with rewards: logs `reward`, `baseline` and the share of captions that `ended`."""

    # Processes write captions of different lengths, and must not wait for each other at every word.
    gathered_by_layer = ("vision",)

    def __init__(self, backbone: Backbone, *args: Any, reward: CiderReward, how: SelfCritical, **kwargs: Any) -> None:
        self.reward, self.how = reward, how
        super().__init__(backbone, *args, **kwargs)
        self._figures: list[Tensor] = []

    def forward_pass(self, backbone: Backbone, *, label_smoothing: float, recompute: bool) -> nn.Module:
        return SelfCriticalModule(backbone, self.reward, self.how, recompute=recompute)

    def get_train_dataloader(self) -> Any:
        return self.loader(partial(collate_numbered, pad=self.backbone.pad_token_id))

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        sums = model(**inputs)
        figures = [sums["objective"].detach(), *(sums[name] for name in FIGURES)]
        self._figures.append(torch.stack([figure.double() for figure in figures]))
        loss = sums["objective"] / self.args.gradient_accumulation_steps
        return (loss, sums) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._figures:
            means = torch.stack(self._figures).mean(0)
            if self.args.world_size > 1:
                means = self.accelerator.reduce(means, "mean")
            self._figures = []
            for name, value in zip(("objective", *FIGURES), means.tolist(), strict=True):
                logs[name] = value
            logs["loss"] = logs["objective"]
            super(CaptionTrainer, self).log(logs, start_time)
        else:
            super().log(logs, start_time)


class Guard(TrainerCallback):
    """Stops when CIDEr-D on the validation split has fallen by a share of its best, the start included."""

    def __init__(self, run: Run, share: float, progress: Progress) -> None:
        self.run, self.share, self.progress = run, share, progress
        self.ending: Ending | None = None

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        measured = (as_finite("cider", line.get("eval_cider")) for line in self.run.history())
        scores = [score for score in measured if score is not None]
        if scores and exceeds((1 - self.share) * max(scores), scores[-1]):
            self.progress.info(
                f"CIDEr-D on the validation split fell from {100 * max(scores):.1f} to {100 * scores[-1]:.1f}: "
                "training stops; best-metric keeps the better one."
            )
            control.should_training_stop = True
            self.ending = ending_at(
                state,
                "scst-guard",
                f"scst guard at epoch {state.epoch or 0:g} (step {state.global_step}): CIDEr-D fell from "
                f"{100 * max(scores):.1f} to {100 * scores[-1]:.1f}, by more than --scst-guard {self.share:g} allows",
                metric="cider",
                best=max(scores),
                now=scores[-1],
                share=self.share,
            )
        return control
