"""The training loop: `transformers.Trainer` with our loss, our order of images and our checkpoints."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from captune.core.errors import CaptuneError
from captune.core.files import scratch_folder
from captune.core.options import PARTS
from captune.core.runs import Checkpoint, Run
from captune.inference.batches import CaptionDataset, Collate, EpochOrder, supervised_tokens, training_loader
from captune.inference.processes import Processes
from captune.models.backbone import Backbone
from captune.models.lora import ADAPTER, load_adapter
from captune.models.weights import Shared
from captune.training.history import history_digest
from captune.training.loop.checkpoints import mark_of, rotate, update_pointers, write_checkpoint
from captune.training.loop.sharding import ShardedBackbone, load_state, whole_state

Validate = Callable[[], dict[str, float]]
SUMS = ("nll", "objective", "tokens")


class TrainingModule(nn.Module):
    """The forward pass that training wraps (precision, several devices): a batch to its summed losses."""

    def __init__(self, backbone: Backbone, *, label_smoothing: float = 0.0, recompute: bool = False) -> None:
        super().__init__()
        self.model = backbone.model
        self.backbone = [backbone]  # in a list: it is no module of its own
        self.label_smoothing, self.recompute = label_smoothing, recompute

    def forward(self, images: Tensor, **captions: Tensor) -> dict[str, Tensor]:
        (backbone,) = self.backbone
        losses = backbone.token_losses(
            backbone.image_features(images), label_smoothing=self.label_smoothing, recompute=self.recompute, **captions
        )
        return {"objective": losses.objective.sum(), "nll": losses.nll.sum()}


class CaptionTrainer(Trainer):
    """Trains a backbone on examples.

    The loss of an optimizer step is the sum of its token losses divided by the number of
    supervised tokens in the whole step, over all accumulated batches and all devices
    (plain `Trainer` averages means, which depends on how a step is cut into batches).
    What is logged as `loss` is the plain negative log-likelihood per token, whatever the
    label smoothing; `objective` is what is minimised. With `shard` the weights, their gradients
    and the optimizer's state are sharded over the processes; `backbone` then has weights only
    while it validates and is saved.
    """

    # With `shard`: the parts whose layers are gathered one at a time.
    gathered_by_layer: ClassVar[tuple[str, ...]] = PARTS

    def __init__(
        self,
        backbone: Backbone,
        examples: CaptionDataset,
        run: Run,
        args: TrainingArguments,
        *,
        order_seed: int,
        validate: Validate,
        best_metric: str,
        rates: Mapping[str, float],
        keep_checkpoints: int,
        stays: Callable[[int], bool],
        label_smoothing: float,
        recompute: bool,
        processes: Processes,
        shard: bool,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.sharded = ShardedBackbone(backbone) if shard else None
        self.learner = self.sharded.learner if self.sharded else backbone
        module = self.forward_pass(self.learner, label_smoothing=label_smoothing, recompute=recompute)
        super().__init__(model=module, args=args, train_dataset=examples, callbacks=callbacks)
        if self.sharded:
            self.sharded.shard(module, apart=self.gathered_by_layer, count=processes.count)
            # Autocast, but no DDP.
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.backbone, self.examples, self.run = backbone, examples, run
        self.order = EpochOrder(len(examples), order_seed)
        self.validate, self.best_metric = validate, best_metric
        self.keep_checkpoints, self.stays = keep_checkpoints, stays
        self.rates, self.processes = rates, processes
        self.scores: dict[str, float | None] = {}
        self.sums: dict[str, float] = dict.fromkeys(SUMS, 0.0)
        self._step_sums: list[Tensor] = []

    def forward_pass(self, backbone: Backbone, *, label_smoothing: float, recompute: bool) -> nn.Module:
        """What training wraps and calls with a batch."""
        return TrainingModule(backbone, label_smoothing=label_smoothing, recompute=recompute)

    # -- data --------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        return self.loader(None)

    def loader(self, collate: Collate | None) -> Any:
        """This process's batches, on its device."""
        loader = training_loader(
            self.examples,
            self.order,
            self.args.per_device_train_batch_size,
            self.args.dataloader_num_workers,
            self.backbone.pad_token_id,
            collate,
            self.processes,
        )
        # The batches are split over the processes already; accelerate would split them again, with doubles at the end.
        return prepare_data_loader(
            loader, device=self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # accelerate reaches the sampler through some of its wrappers only; this reaches it through all.
        self.order.set_epoch(kwargs["epoch"])
        super()._run_epoch(*args, **kwargs)

    # -- optimizer -------------------------------------------------------------------------

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The library's, with a peak learning rate of its own for each part in `rates`."""
        optimizer = super().create_optimizer(model)
        part_of = {id(p): part for part, parameters in self.learner.parts().items() for p in parameters}
        groups = []
        for group in optimizer.param_groups:
            by_rate: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                rate = self.rates.get(part_of.get(id(parameter), ""), group["lr"])
                by_rate.setdefault(rate, []).append(parameter)
            groups += [{**group, "params": params, "lr": rate} for rate, params in by_rate.items()]
        optimizer.param_groups[:] = groups
        return optimizer

    # -- loss --------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        for batch in batch_samples:
            if isinstance(batch, CaptuneError):
                raise batch
        if not batch_samples:
            return None
        count = torch.tensor(sum(supervised_tokens(batch) for batch in batch_samples), device=device)
        return self.accelerator.gather(count).sum() if self.args.world_size > 1 else count

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        sums = model(**inputs)
        tokens = supervised_tokens(inputs)
        values = (sums["nll"].detach(), sums["objective"].detach(), sums["nll"].new_tensor(tokens))
        self._step_sums.append(torch.stack([value.double() for value in values]))
        # Gradients are averaged over devices, the token count is summed over them.
        loss = sums["objective"] * self.args.world_size / num_items_in_batch
        return (loss, sums) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if not bool(torch.isfinite(loss)):
            raise not_finite(self.run, self.state.global_step + 1, "loss")
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # With fp16 the scaler skips steps whose gradients overflow; elsewhere they would destroy the weights.
        if norm is not None and self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise not_finite(self.run, self.state.global_step + 1, "gradient")
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._collect()
            tokens = max(1.0, self.sums["tokens"])
            logs["loss"] = self.sums["nll"] / tokens
            logs["objective"] = self.sums["objective"] / tokens
            self.sums = dict.fromkeys(SUMS, 0.0)
        super().log(logs, start_time)

    def _collect(self) -> None:
        """Move the sums of the batches since the last time to Python floats, over all devices."""
        if not self._step_sums:
            return
        total = torch.stack(self._step_sums).sum(0)
        self._step_sums = []
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, "sum")
        for name, value in zip(SUMS, total.tolist(), strict=True):
            self.sums[name] += value

    # -- validation and checkpoints --------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        module = self.backbone.model
        module.eval()
        with self._gathered():
            scores = self.validate()
        module.train()
        # Files and trackers get None for what is no finite number; callbacks get what was measured.
        self.scores = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        self.log({f"eval_{name}": value for name, value in self.scores.items()})  # type: ignore[misc]
        logs = {f"eval_{name}": value for name, value in scores.items()}
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs

    def _gathered(self, *, here: bool = True) -> AbstractContextManager[None]:
        """The backbone has all its weights within the block, in the processes that are `here`."""
        return self.sharded.gathered(here=here) if self.sharded else nullcontext()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._collect()
        step, epoch = self.state.global_step, float(self.state.epoch or 0.0)
        extra = {"scores": self.scores, "sums": self.sums, "history": history_digest(self.run)}
        states = self.processes.gather(self._random_state())
        first = self.processes.first
        assert self.optimizer is not None, "what is saved has been trained"
        optimizer = whole_state(self.optimizer, here=first) if self.sharded else self.optimizer.state_dict()
        with self._gathered(here=first):
            if first:
                write_checkpoint(self.run, step, epoch, lambda folder: self._fill(folder, optimizer, states), extra)
                update_pointers(self.run, self.best_metric)
                rotate(self.run, self.keep_checkpoints, self.stays)
        self.scores = {}
        self.processes.wait()

    def _random_state(self) -> dict[str, bytes]:
        """What the library would write of this process's random state, by the name of the file."""
        with scratch_folder() as folder:
            self._save_rng_state(str(folder))
            return {file.name: file.read_bytes() for file in folder.iterdir()}

    def _fill(self, folder: Path, optimizer: Mapping[str, Any], states: Sequence[Mapping[str, bytes]]) -> None:
        assert self.lr_scheduler is not None, "it is made with the optimizer"
        self._save_model(folder)
        torch.save(optimizer, folder / OPTIMIZER_NAME)
        torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
        self._save_scaler(str(folder))
        for name, state in (pair for each in states for pair in each.items()):
            (folder / name).write_bytes(state)
        self.state.save_to_json(os.path.join(folder, "trainer_state.json"))

    def _save_model(self, folder: Path) -> None:
        last = self.run.last()
        self.backbone.save(folder, shared=Shared(last.path if last else None))

    def save_start(self, *, measure: bool = False) -> None:
        """Keep the model before its first step as `checkpoint-0`, to compare with; with `measure`, validate it too.

        Then it takes part in the choice of the best.
        """
        if measure:
            self.state.epoch = 0.0
            self.evaluate()
        first = self.processes.first
        with self._gathered(here=first):
            if first:
                write_checkpoint(self.run, 0, 0.0, self._save_model, {"scores": self.scores})
                if measure:
                    update_pointers(self.run, self.best_metric)
        self.processes.wait()

    def resume_from(self, checkpoint: Checkpoint) -> None:
        """Take the running sums of the log from a checkpoint; `train` loads the rest."""
        self.sums = {name: float(value) for name, value in mark_of(checkpoint).get("sums", self.sums).items()}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Adapters alone: without them the backbone was loaded from the checkpoint, and large weights are read once."""
        if self.backbone.lora is None:
            return
        with self._gathered():
            folder = Path(resume_from_checkpoint)
            load_adapter(self.backbone, folder if self.backbone.adapter_base else folder / ADAPTER)
            if self.sharded:
                self.sharded.update_shards()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.sharded is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.optimizer is not None, "it is made before it is loaded"
        assert self.lr_scheduler is not None, "it is made with the optimizer"
        folder = Path(checkpoint)
        # Mapped from the file: the processes of a machine together have room for one copy.
        load_state(
            self.optimizer, torch.load(folder / OPTIMIZER_NAME, map_location="cpu", mmap=True, weights_only=True)
        )
        self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))


def not_finite(run: Run, step: int, what: str) -> CaptuneError:
    """The error for a loss or a gradient that is NaN or infinite."""
    last = run.last()
    good = f"The last good checkpoint is {last.path}." if last else "No checkpoint had been written yet."
    return CaptuneError(
        f"The {what} is not finite at step {step}: training stopped before the weights were touched. {good}",
        "Lower --learning-rate, raise --warmup-steps, or use --precision bf16 or fp32; then start again or --resume.",
    )
