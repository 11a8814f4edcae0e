"""Saved folders as earlier `transformers` reads them too: the same facts under the names that 4.x and 5.x both know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def _tokenizer(config: dict[str, Any], words: Path) -> dict[str, Any]:
    kept = {name: value for name, value in config.items() if name not in _LOADING}
    kept["tokenizer_class"] = CLASSES.get(config["tokenizer_class"], config["tokenizer_class"])
    # 4.57 takes `extra_special_tokens` for a mapping of names to tokens.
    if isinstance(kept.get("extra_special_tokens"), list):
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    # 5.x does not take spaces out of byte-pair encodings, whatever is set here; 4.x does as it says.
    if kept.get("clean_up_tokenization_spaces") and not kept.get(_FORCED) and words.is_file():
        kept["clean_up_tokenization_spaces"] = read_json(words)["model"]["type"] != "BPE"
    return kept
