"""captune's training options as `transformers.TrainingArguments`."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

# The one place where both libraries' words meet.
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def training_arguments(
    folder: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    epochs: float,
    max_steps: int,
    batch_size: int,
    gradient_accumulation: int,
    learning_rate: float,
    weight_decay: float,
    adam_beta2: float,
    schedule: str,
    warmup_steps: float,
    max_grad_norm: float,
    seed: int,
    loader_workers: int,
) -> TrainingArguments:
    """Arguments of the loop alone: logging, validation, saving and trackers are captune's own.

    `warmup_steps` below 1 is a share of all steps.
    """
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        adam_beta2=adam_beta2,
        lr_scheduler_type=SCHEDULES[schedule],
        warmup_steps=warmup_steps,
        max_grad_norm=max_grad_norm,
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=loader_workers,
        optim="adamw_torch_fused",
        use_cpu=device.type == "cpu",
        bf16=precision is torch.bfloat16,
        fp16=precision is torch.float16,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        # CLIP's last norm serves a vector that captions do not use.
        ddp_find_unused_parameters=True,
    )
