"""Where files of `transformers` come in: every `from_pretrained` of captune is called here, and runs no code of theirs.

A folder can name Python code of its own (`auto_map`), native code of the Hub (a kernel as its attention) and modules
to import (Megatron's, in adapters). `transformers` asks on the terminal about the first where it is not told, loads the
second where `kernels` is installed, and `peft` imports the third. A test holds the rest of captune to `pretrained`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import read_json

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
    what it was told about the whole. Zero seconds to answer is its own setting for runs that nobody watches.
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
