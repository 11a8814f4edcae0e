"""Whether two names are the same model: digests of files, commits of the Hub."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captune.core.endpoints import GENERATION as ENDPOINT_GENERATION
from captune.core.endpoints import is_endpoint, parse_endpoint
from captune.core.errors import CaptuneError
from captune.core.exported import Exported, export_folder
from captune.core.files import read_json
from captune.core.model_names import CARD, hub_name, is_new, is_pair, local_folder

# Weights and what they are read with; a checkpoint's optimizer and history are not the model.
_PARTS = frozenset((".safetensors", ".bin", ".json", ".txt", ".model", ".jinja", ".onnx", ".data", ".xml"))


@dataclass(frozen=True)
class Identity:
    """`digest` of a model's files (or its commit on the Hub), and the options of the search that it was saved with."""

    digest: str
    generation: dict[str, Any] = field(default_factory=dict)


def identity_of(name: str) -> Identity | None:
    """Of a folder, a run, an export or a Hub id; None for one on the Hub that is not on this machine yet.

    Raises `CaptuneError` where there is no such folder.
    """
    if is_endpoint(name):  # nobody tells which weights are behind it
        endpoint = parse_endpoint(name)
        return Identity(f"{endpoint.model} at {endpoint.url}", dict(ENDPOINT_GENERATION))
    exported = export_folder(name)
    if exported is not None:
        return Identity(_digest(_files(exported)), dict(Exported.read(exported).generation))
    folder = local_folder(name)
    if folder is None:
        return _on_hub(name)
    return Identity(_digest(_files(folder)), _generation(folder / CARD))


def revision_of(name: str) -> str | None:
    """The commit of a model on the Hub as it lies in the cache; None for any other model."""
    if is_new(name) or is_pair(name) or export_folder(name) is not None or local_folder(name) is not None:
        return None
    found = _on_hub(name)
    return found.digest.removeprefix("commit ") if found else None


def _on_hub(name: str) -> Identity | None:
    from huggingface_hub import try_to_load_from_cache

    repository, revision = hub_name(name)
    config = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    card = try_to_load_from_cache(repository, CARD, revision=revision)
    # The folder of a snapshot is named after its commit.
    return Identity(f"commit {Path(config).parent.name}", _generation(Path(card)) if isinstance(card, str) else {})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _PARTS and path.is_file())


def _digest(files: list[Path]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for path in files:
        try:
            with open(path, "rb") as file:
                whole.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise CaptuneError(f"Cannot read {path}: {error.strerror}.", "Check the model's folder.") from None
    return whole.hexdigest()


def _generation(card: Path) -> dict[str, Any]:
    found = read_json(card).get("generation", {}) if card.is_file() else {}
    return dict(found)
