"""Names that the documents, transformers, LAVIS and kohya's scripts have for captune's options.

An alias is taken wherever captune's own name is: as a flag, a keyword, a key of a YAML file or of a notebook's
`cfg`, and in `--set`. Where captune does the thing in another way, the answer says how.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Origin:
    """Names of one other tool.

    `aliases` maps its name to captune's, in the order they are looked for among what a verb takes; `answers` says
    what to do instead of the others, and of `name=value` where only that value is another thing.
    """

    name: str
    aliases: dict[str, tuple[str, ...]]
    answers: dict[str, str] = field(default_factory=dict)


# `max_length` is the length of a reference where there is training, else that of a caption.
_LENGTH = ("max_caption_tokens", "max_new_tokens")
_OUT = ("out", "work")
_DATA = ("data", "source")
_WORKERS = ("loader_workers", "workers")
_BEST = (
    "RUN is the best checkpoint, RUN@best-loss and RUN@best-metric the best by loss and by captions, RUN@last the last."
)
_SAVED = "Checkpoints are written at each validation: --eval-every EPOCHS or --eval-steps STEPS."
_TOKEN = "A token is no option, for other users of the machine could read it: set HF_TOKEN, or log in by hf auth login."
_WANDB = "Set the environment variable WANDB_PROJECT or WANDB_RUN_NAME, and --trackers wandb."

# Options that have a better name since 0.1.0; the former one is taken in every place, and read from the environment.
FORMER = {
    "pixels": "preprocessing",
    "least_identical": "min_identical",
    "looks_per_second": "sample_fps",
    "least_scene": "min_scene_seconds",
    "max_pictures": "max_images",
}

ORIGINS = (
    Origin("captune 0.1.0", {former: (name,) for former, name in FORMER.items()}),
    Origin(
        "the BLIP notebook",
        {
            "lr": ("learning_rate",),
            "per_device_train_batch_size": ("batch_size",),
            "per_device_eval_batch_size": ("eval_batch_size",),
            "grad_accum": ("gradient_accumulation",),
            "model_id": ("model",),
            "outputs_dir": _OUT,
            "max_length": _LENGTH,
        },
    ),
    Origin(
        "the CLIP+GPT-2 scripts",
        {
            "num_epochs": ("epochs",),
            "data_dir": _DATA,
            "eval_strategy": ("best_metric",),
            "save_to_hf": ("push_to",),
            "hf_private": ("private",),
            "checkpoint": ("model",),
            "num_samples": ("limit_images",),
        },
        {
            "no_eval": "A validation measures loss and captions; --validation-images 0 leaves the captions out.",
            "wandb": "Name the trackers: --trackers wandb (or tensorboard,wandb).",
            "wandb_project": _WANDB,
            "wandb_run_name": _WANDB,
            "hf_token": _TOKEN,
            "token": _TOKEN,
            "repo_name": "The repository stands behind the model: captune push RUN user/name.",
            "model_type": _BEST,
            "action": "captune runs list, captune runs show RUN, captune compare RUN RUN.",
        },
    ),
    Origin(
        "transformers",
        {
            "num_train_epochs": ("epochs",),
            "gradient_accumulation_steps": ("gradient_accumulation",),
            "lr_scheduler_type": ("schedule",),
            "output_dir": _OUT,
            "model_name": ("model",),
            "model_name_or_path": ("model",),
            "pretrained_model_name_or_path": ("model",),
            "train_batch_size": ("batch_size",),
            "max_train_steps": ("max_steps",),
            "save_total_limit": ("keep_checkpoints",),
            "report_to": ("trackers",),
            "dataloader_num_workers": _WORKERS,
            "label_smoothing_factor": ("label_smoothing",),
            "metric_for_best_model": ("best_metric",),
            "hub_model_id": ("push_to",),
            "hub_private_repo": ("private",),
            "max_target_length": _LENGTH,
            "max_seq_length": _LENGTH,
            "min_length": ("min_new_tokens",),
            "do_sample": ("sample",),
            "num_return_sequences": ("num_captions",),
        },
        {
            "evaluation_strategy": _SAVED,
            "eval_strategy=epoch": _SAVED,
            "eval_strategy=steps": _SAVED,
            "eval_strategy=no": _SAVED,
            "save_strategy": _SAVED,
            "save_steps": _SAVED,
            "save_safetensors": "Weights are always saved as safetensors.",
            "load_best_model_at_end": f"Always so: {_BEST}",
            "predict_with_generate": "Every validation writes captions, of --validation-images N pictures.",
            "push_to_hub": "While it trains: --push-to user/name. Afterwards: captune push RUN user/name.",
            "resume_from_checkpoint": "The same command with --resume goes on from the last whole checkpoint of --out.",
            "overwrite_output_dir": "A run is never overwritten: name another --out, or go on with --resume.",
            "do_train": "captune train trains.",
            "do_eval": "captune train validates; captune evaluate measures afterwards.",
            "do_predict": "captune caption captions; captune evaluate captions a split and measures it.",
            "fp16": "--precision fp16.",
            "bf16": "--precision bf16.",
            "torch_dtype": "--precision fp32, bf16 or fp16.",
            "dtype": "--precision fp32, bf16 or fp16.",
            "use_cpu": "--device cpu.",
            "no_cuda": "--device cpu.",
            "device_map": "--device names one device; torchrun … -m captune train uses several.",
            "load_in_8bit": "--quantize 8bit.",
            "load_in_4bit": "--quantize 4bit.",
            "use_lora": "--lora on, or --lora r=16,alpha=32.",
            "hub_token": _TOKEN,
            "use_auth_token": _TOKEN,
            "remove_unused_columns": "There is nothing to set: a prepared folder holds what training reads.",
            "optimizer": "captune trains with AdamW: --weight-decay, --adam-beta2.",
            "optim": "captune trains with AdamW: --weight-decay, --adam-beta2.",
            "early_stopping": "--early-stopping-patience N ends a training; --early-stopping, a beam search.",
        },
    ),
    Origin(
        "LAVIS",
        {
            "init_lr": ("learning_rate",),
            "lr_sched": ("schedule",),
            "max_epoch": ("epochs",),
            "batch_size_train": ("batch_size",),
            "batch_size_eval": ("eval_batch_size",),
            "accum_grad_iters": ("gradient_accumulation",),
            "max_len": _LENGTH,
            "max_txt_len": _LENGTH,
            "min_len": ("min_new_tokens",),
            "num_workers": _WORKERS,
            "use_nucleus_sampling": ("sample",),
            "use_grad_checkpoint": ("gradient_checkpointing",),
            "vit_grad_ckpt": ("gradient_checkpointing",),
            "pretrained": ("model",),
        },
        {
            "min_lr": "The learning rate falls to 0 (--schedule cosine or linear) or stays (constant).",
            "warmup_lr": "The learning rate rises from 0: --warmup-steps N or --warmup-ratio SHARE.",
            "freeze_vit": "--freeze vision, which is so unless a model is new; --freeze none trains all parts.",
            "amp": "--precision auto takes bf16 or fp16 where that is quicker.",
            "cfg_path": "captune's own YAML file: --config FILE; docs/coming-from.md has its names.",
            "resume_ckpt_path": "The same command with --resume goes on from the last whole checkpoint of --out.",
            "evaluate": "captune evaluate RUN --data DIR.",
            "arch": "--model names a folder, a run or a Hub id; captune models lists the families.",
        },
    ),
    Origin(
        "kohya's scripts and TagGUI",
        {
            "caption_weights": ("model",),
            "caption_extension": ("sidecar_suffix",),
            "caption_extention": ("sidecar_suffix",),
            "train_data_dir": _DATA,
            "max_train_epochs": ("epochs",),
            "max_data_loader_n_workers": _WORKERS,
            "mixed_precision": ("precision",),
            "maximum_tokens": ("max_new_tokens",),
            "number_of_beams": ("num_beams",),
            "use_sampling": ("sample",),
        },
        {
            "beam_search": "A beam search is the default: --num-beams N; --sample draws by chance.",
            "save_every_n_epochs": _SAVED,
            "network_dim": "--lora r=16,alpha=32.",
            "network_alpha": "--lora r=16,alpha=32.",
            "start_caption_with": "--prompt WORDS --prompt-in-caption.",
        },
    ),
    Origin(
        "other scripts",
        {
            "n_epochs": ("epochs",),
            "bs": ("batch_size",),
            "accumulation_steps": ("gradient_accumulation",),
            "grad_accum_steps": ("gradient_accumulation",),
            "grad_clip": ("max_grad_norm",),
            "clip_grad_norm": ("max_grad_norm",),
            "gradient_clip_val": ("max_grad_norm",),
            "patience": ("early_stopping_patience",),
            "scheduler": ("schedule",),
            "wd": ("weight_decay",),
            "img_size": ("image_size",),
            "beam_size": ("num_beams",),
            "save_dir": _OUT,
            "image_dir": ("images",),
            "img_dir": ("images",),
            "base_model": ("model",),
        },
        {
            "gpu": "--device cuda, or cuda:1.",
            "cuda": "--device cuda, or cuda:1.",
            "no_wandb": "--trackers tensorboard, or none.",
            "use_wandb": "Name the trackers: --trackers wandb (or tensorboard,wandb).",
        },
    ),
)
ALIASES = {name: here for origin in ORIGINS for name, here in origin.aliases.items()}
ANSWERS = {name: text for origin in ORIGINS for name, text in origin.answers.items()}
# What others call a verb.
VERBS_ELSEWHERE = {
    **dict.fromkeys(("finetune", "fine_tune", "fit"), "train"),
    **dict.fromkeys(("infer", "inference", "predict", "generate", "describe", "make_captions", "tag"), "caption"),
    **dict.fromkeys(("eval", "test", "test_model"), "evaluate"),
    **dict.fromkeys(("download", "preprocess", "split", "data"), "prepare"),
    **dict.fromkeys(("debug_infer", "debug"), "inspect"),
    **dict.fromkeys(("save_to_hf", "upload", "publish"), "push"),
    **dict.fromkeys(("list", "model_utils"), "runs"),
    **dict.fromkeys(("web", "ui", "gradio", "streamlit", "page"), "app"),
    **dict.fromkeys(("api", "server", "rest"), "serve"),
    **dict.fromkeys(("search", "hpo", "sweep"), "tune"),
    **dict.fromkeys(("vqa", "answer"), "ask"),
    **dict.fromkeys(("itm", "retrieve", "retrieval"), "match"),
    **dict.fromkeys(("check", "env", "test_wandb_logging"), "doctor"),
    **dict.fromkeys(("features", "encode"), "embed"),
    **dict.fromkeys(("onnx", "openvino"), "export"),
}


def plain(name: str) -> str:
    """`--Per-Device` as `per_device`: a name as options are declared."""
    return name.strip().lstrip("-").replace("-", "_").lower()


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, those of `FORMER` by their new name."""
    return {FORMER.get(name, name): value for name, value in values.items()}


def canonical(name: str, known: Collection[str]) -> str | None:
    """captune's name among `known` for another tool's `name`, or None."""
    return next((here for here in ALIASES.get(plain(name), ()) if here in known), None)


def names_of(option: str, known: Collection[str]) -> list[str]:
    """All other names that mean `option` where `known` are taken."""
    return [name for name in ALIASES if name not in known and canonical(name, known) == option]
