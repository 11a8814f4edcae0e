"""The one door to `from_pretrained`, and the layouts of several years of `transformers`.

A folder can name Python code of its own (`auto_map`), native code of the Hub (a kernel as its attention) and modules
to import (Megatron's, in adapters). `transformers` asks on the terminal about the first by default, loads the
second where `kernels` is installed, and `peft` imports the third. A test holds the rest of captune to `pretrained`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import read_json, write_json

TOKENIZER, PROCESSOR, PIXELS = "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"
# Names of 5.x for classes that 4.x has under another one, which 5.x still reads.
CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
# How the tokenizer was found when it was loaded: nothing about the model.
_LOADING = ("backend", "is_local", "local_files_only")
_FORCED = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"


def readable_by_earlier(folder: Path) -> None:
    """Rewrite what `transformers` 5.x saved in `folder` so that 4.46 and later read it; 5.x reads the same of it."""
    if (folder / TOKENIZER).is_file():
        write_json(folder / TOKENIZER, _tokenizer(read_json(folder / TOKENIZER), folder / "tokenizer.json"))
    if (folder / PROCESSOR).is_file():
        processor = read_json(folder / PROCESSOR)
        # 4.46 reads the image processor from a file of its own, and fails where it is in this one.
        pixels = processor.pop("image_processor", None)
        if pixels is not None:
            write_json(folder / PIXELS, {**pixels, "processor_class": processor["processor_class"]})
            write_json(folder / PROCESSOR, processor)


def _tokenizer(config: dict[str, Any], backend: Path) -> dict[str, Any]:
    portable = {name: value for name, value in config.items() if name not in _LOADING}
    portable["tokenizer_class"] = CLASSES.get(config["tokenizer_class"], config["tokenizer_class"])
    # 4.57 takes `extra_special_tokens` for a mapping of names to tokens.
    if isinstance(portable.get("extra_special_tokens"), list):
        portable["additional_special_tokens"] = portable.pop("extra_special_tokens")
    # 5.x does not take spaces out of byte-pair encodings, whatever is set here; 4.x does as it says.
    if portable.get("clean_up_tokenization_spaces") and not portable.get(_FORCED) and backend.is_file():
        portable["clean_up_tokenization_spaces"] = read_json(backend)["model"]["type"] != "BPE"
    return portable


# Added to the tokenizer of a BLIP-2 that was saved before a token stood for the image.
IMAGE = "<image>"


def load_tokenizer(source: str | Path, **hub: Any) -> Any:
    """The tokenizer of a folder or Hub id; raises `CaptuneError` where it has none.

    `transformers` then makes one without a vocabulary, and gives no warning.
    """
    from transformers import AutoTokenizer

    tokenizer = pretrained(AutoTokenizer, source, **hub)
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise CaptuneError(
            f"{source} holds no tokenizer: no vocabulary was found beside the weights.",
            f"Copy the tokenizer's files of the model that it was made of; or: {convert_command(source)}",
        )
    return tokenizer


def load_processor(source: str | Path, **hub: Any) -> Any:
    """The image processor of a folder or Hub id; raises `CaptuneError` where a folder holds none."""
    from transformers import AutoImageProcessor

    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in _PROCESSORS):
        raise CaptuneError(
            f"{source} does not say how its images are prepared: there is no {_PROCESSORS[0]}.",
            f"Copy that file of the model that it was made of; or: {convert_command(source)}",
        )
    return pretrained(AutoImageProcessor, source, backend="pil", **hub)


_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def convert_command(source: str | Path) -> str:
    """The command that makes a whole model of weights alone."""
    return f"captune convert {source} --like BASE_MODEL --out DIR"


def with_image_token(model: Any, tokenizer: Any) -> None:
    """Give a BLIP-2 of before 2024 the token that stands for images, as `transformers` writes it today.

    Its id follows the vocabulary's; embeddings are added only where there are too few.
    """
    config = model.config
    if config.image_token_id is None:
        tokenizer.add_tokens([IMAGE], special_tokens=True)
        config.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE)
    if config.image_token_id >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(config.image_token_id + 1)


_OF_HUB = ("local_files_only", "revision")


def pretrained(kind: Any, source: str | Path | None, **options: Any) -> Any:
    """`kind.from_pretrained(source, **options)` for a class of `transformers`.

    Raises `CaptuneError` where the files want code run that is not of `transformers`, besides what that raises.
    """
    never_ask()
    if kind.__name__.startswith("Auto"):
        options["trust_remote_code"] = False  # classes that are named run no code of a folder
    if source is None:
        return kind.from_pretrained(None, **options)
    if "Config" not in kind.__name__ and "Processor" not in kind.__name__ and "Tokenizer" not in kind.__name__:
        _check_code(str(source), options)
    return kind.from_pretrained(str(source), **options)


def never_ask() -> None:
    """Have `transformers` refuse code of a folder where it would ask on the terminal whether to run it.

    It asks about parts of a model (the text part of a BLIP-2, a tokenizer that names another loader) without regard to
    `trust_remote_code` of the whole. Zero seconds to answer is its own setting for runs that nobody watches.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


def own_code_error(name: str, what: str = "Python code of its own (trust_remote_code)") -> CaptuneError:
    """The error for a model that wants code run."""
    return CaptuneError(
        f"{name} brings {what}, which captune does not run.",
        "Choose a model that transformers loads by itself: captune models lists the families.",
    )


def _check_code(source: str, hub: dict[str, Any]) -> None:
    """Raise `CaptuneError` where a model's own files name code that `from_pretrained` of its class would run."""
    kernel = next(_kernels(read_file(source, "config.json", hub)), None)
    if kernel is not None:
        raise own_code_error(source, f"native code for its attention ({kernel})")
    adapter = read_file(source, "adapter_config.json", hub)
    module = adapter.get("megatron_core") if adapter.get("megatron_config") else None
    if module is not None:
        raise own_code_error(source, f"adapters that import a module ({module})")


def _kernels(config: Any) -> Iterator[str]:
    """Attentions of a configuration and its parts that are kernels of the Hub: `org/name`."""
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key.lstrip("_").startswith(("attn_implementation", "experts_implementation")):
            named = value.values() if isinstance(value, dict) else [value]
            yield from (str(one) for one in named if "/" in str(one))
        else:
            yield from _kernels(value)


def read_file(source: str, name: str, hub: dict[str, Any]) -> dict[str, Any]:
    """An object of JSON in a folder or a repository of the Hub; empty where there is none."""
    from transformers.utils import cached_file

    of_hub = {key: hub[key] for key in _OF_HUB if key in hub}
    found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **of_hub)
    values = read_json(Path(found)) if found is not None else {}
    return values if isinstance(values, dict) else {}
