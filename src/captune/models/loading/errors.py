"""Errors of loading a model: what is wrong, and what to do next."""

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files.limits import parse_json
from captune.core.model_names import did_you_mean_beside, hub_name
from captune.core.runs import Run
from captune.models.loading.pretrained import own_code_error, read_file

_MAX_NAME = 120
_OFFLINE = (
    "\nWithout network: `captune demo` trains a small model from built-in images; use it with --model captune-demo/run."
)


def load_error(name: str, folder: Path | None, error: Exception, known: Iterable[str] = ()) -> CaptuneError:
    """The `CaptuneError` for `error`, raised while the model `name` was loaded from a folder or the Hub.

    `known` are models of the Hub, one of which may have been meant.
    """
    refused = _hub_error(name, error, known) if folder is None else _closed_error(folder)
    if refused is not None:
        return refused
    kind = _kind_of(folder or name)
    if kind in NATIVE:
        return own_format_error(folder or name, kind)
    if "custom code" in str(error) or "trust_remote_code" in str(error):
        return own_code_error(str(folder or name))
    quantized = "" if folder is None else _quantized(folder)
    if quantized:
        return CaptuneError(
            f"The weights in {folder} are quantized ({quantized}), and do not load here: {reason(error)}",
            "Name the model that was quantized; on an NVIDIA card --quantize 4bit makes its weights as small.",
        )
    message = f"The model {name if folder is None else f'in {folder}'} cannot be loaded: {reason(error)}"
    if "Missing optional dependencies: torchvision" in str(error):
        return CaptuneError(f"The images of {folder or name} are prepared by torchvision.", "pip install torchvision")
    if isinstance(error, ImportError):
        if "sentencepiece" in str(error).lower():
            return CaptuneError(f"The tokenizer of {folder or name} needs sentencepiece.", "pip install sentencepiece")
        return CaptuneError(message, "Install what it needs, or choose another model.")
    if folder is None:
        return _fetched_error(name, error)
    return CaptuneError(message, "Some file is missing, cut off or of another model; save or download it again.")


# Kinds whose authors publish a format of their own, and where the same weights are in that of transformers.
NATIVE = {
    "internvl_chat": "OpenGVLab/{name}-hf",
    "florence2": "florence-community/{name}",
    "llava_llama": "llava-hf (such as llava-hf/llava-1.5-7b-hf)",
    "llava_mistral": "llava-hf (such as llava-hf/llava-v1.6-mistral-7b-hf)",
    "llava_qwen": "llava-hf (such as llava-hf/llava-onevision-qwen2-7b-ov-hf)",
}


def own_format_error(source: str | Path, kind: str) -> CaptuneError:
    """The error for weights of a kind of `NATIVE` in the format of their authors."""
    return CaptuneError(
        f"{source} is in the format of its authors' own code (trust_remote_code), which captune does not run.",
        f"The same weights in the format of transformers: {NATIVE[kind].format(name=Path(source).name)}.",
    )


def _kind_of(source: str | Path) -> str:
    """The kind of model that a configuration on this machine names; empty where there is none."""
    try:
        return str(read_file(str(source), "config.json", {"local_files_only": True}).get("model_type", ""))
    except (OSError, ValueError):
        return ""


def _closed_error(folder: Path) -> CaptuneError | None:
    closed = next((path for path in [folder, *folder.rglob("*")] if not os.access(path, os.R_OK)), None)
    if closed is None:
        return None
    return CaptuneError(
        f"The model in {folder} cannot be loaded: {closed.name} may not be read by this user.",
        f"Its owner can change that: chmod -R a+rX {folder}",
    )


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind where that says nothing by itself."""
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else ""
    if "ignore_mismatched_sizes" in first:
        return "its weights have other shapes than config.json says"
    if isinstance(error, KeyError):
        return f"there is no {first} in one of its files"
    if isinstance(error, (TypeError, AttributeError)) or len(first) < 6:
        return f"one of its files does not hold what it should ({type(error).__name__}{': ' + first if first else ''})"
    return first


def _hub_error(name: str, error: Exception, known: Iterable[str]) -> CaptuneError | None:
    """What the Hub's answer means; None where it has not refused."""
    from huggingface_hub import constants, errors

    short = name if len(name) <= _MAX_NAME else f"{name[:60]}…"
    page = f"{constants.ENDPOINT}/{short}"
    causes = list(_causes(error))

    def cause_of(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    if cause_of(errors.HFValidationError):
        return CaptuneError(
            f"{short} is neither a folder here nor can it be a model of the Hugging Face Hub.",
            "Check the path, or give a Hub id such as org/name.",
        )
    if cause_of(errors.GatedRepoError):
        return CaptuneError(
            f"{name} is gated: its owner lets in who has agreed to the terms.",
            f"Agree at {page}, then log in: hf auth login (or set HF_TOKEN).",
        )
    if cause_of(errors.RepositoryNotFoundError):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
        meant = f"Did you mean '{near[0]}'? " if near else ""
        return CaptuneError(
            f"There is no folder {name} here, and no model {name} on the Hugging Face Hub that this user may see.",
            f"{meant}Check the name at {page}; a private model needs `hf auth login` (or HF_TOKEN).",
        )
    if cause_of(errors.RevisionNotFoundError):
        return CaptuneError(f"{name} has no such revision on the Hub.", f"Its revisions: {page}/tree/main")
    answer = cause_of(errors.HfHubHTTPError)
    status = getattr(getattr(answer, "response", None), "status_code", None)
    if status in (401, 403):
        return CaptuneError(
            f"The Hub refuses {name}: {reason(answer or error)}",
            "Check the token: hf auth whoami; hf auth login (or HF_TOKEN) sets another.",
        )
    if status is not None and (status == 429 or status >= 500):
        return CaptuneError(f"The Hub answers with {status} for {name}.", f"Try again later. Its page: {page}")
    return None


def _fetched_error(name: str, error: Exception) -> CaptuneError:
    """What went wrong with a model of the Hub that was not refused: no network, or files that do not load."""
    from huggingface_hub import constants, errors

    if not isinstance(error, OSError):
        return CaptuneError(
            f"The model {name} of the Hub cannot be loaded: {reason(error)}",
            "Its files are missing, cut off or of another kind of model than captune knows (captune models).",
        )
    missing = next((cause for cause in _causes(error) if isinstance(cause, errors.EntryNotFoundError)), None)
    beside = did_you_mean_beside(name)
    meant = f"{beside}\n" if beside else ""
    offline = missing is None or isinstance(missing, errors.LocalEntryNotFoundError)
    return CaptuneError(
        f"The model {name} is neither a folder here nor can it be fetched from the Hugging Face Hub: {reason(error)}",
        f"{meant}With network: hf download {_download(name)}  (cache: {constants.HF_HUB_CACHE}; HF_HUB_OFFLINE must "
        "not be 1; private models need `hf auth login`)." + (_OFFLINE if offline else ""),
    )


def unknown_kind(name: str, kind: Any, families: Iterable[str]) -> CaptuneError:
    """The error for a model whose kind (`model_type`) is of no known family, and what it does instead."""
    from transformers.models.auto import modeling_auto as auto

    captions = f"Models that caption here: {', '.join(sorted(families))} (captune models)."
    joined = "A model that sees and a GPT-2 can be joined and trained: captune train --model VISION+TEXT."
    does = (
        ("hears speech and sees no images", auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, ""),
        (
            "compares images with texts and writes none",
            auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
            f"captune match, tag and library take it. {joined}",
        ),
        ("writes text and sees no images", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, joined),
        ("translates or rewrites text and sees no images", auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, ""),
        ("reads text and sees no images", auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, ""),
        ("sees images and writes no text", auto.MODEL_FOR_IMAGE_MAPPING_NAMES, joined),
    )
    what, then = next(((what, then) for what, kinds, then in does if kind in kinds), ("", ""))
    message = f"{name} is a model of the kind '{kind}', which captune does not know"
    return CaptuneError(f"{message}: it {what}." if what else f"{message}.", " ".join(filter(None, (then, captions))))


def _quantized(folder: Path) -> str:
    """How the weights of a folder are quantized, as its configuration says; empty where they are not."""
    try:
        config = parse_json((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
        named = config.get("quant_method") if isinstance(config, dict) else config
        return str(named or "in a way that is not named") if config else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def damaged_error(name: str, what: str) -> CaptuneError:
    """The error for a checkpoint that is no longer what was written; `what` names the file."""
    base = name.partition("@")[0]
    return CaptuneError(
        f"{name} is damaged: {what}.",
        f"Use another checkpoint ({base}@last, @checkpoint-N: captune runs show {base}), or restore it from a copy."
        if Run.is_run(base)
        else "Use another checkpoint, or restore it from a copy.",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _download(name: str) -> str:
    repository, revision = hub_name(name)
    return repository if revision is None else f"{repository} --revision {revision}"
