"""A model's tokens from text and back, by the `tokenizers` package alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, missing_extra
from captune.core.exported import TOKENIZER

# Spaces that WordPiece and old BPE vocabularies leave before punctuation and in contractions.
TIDIED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True)
class Words:
    """`tokenizer.json` with the results of the `transformers` tokenizer it was saved by."""

    tokenizer: Any
    clean_up: bool

    @classmethod
    def read(cls, folder: Path, *, clean_up: bool) -> Words:
        """That of an export folder; raises `CaptuneError` where it is missing or broken."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise missing_extra("tokenizers", "onnx", "Running an export") from None
        path = folder / TOKENIZER
        if not path.is_file():
            raise CaptuneError(f"The export {folder} is not whole: there is no {TOKENIZER}.", "Export the model again.")
        try:
            tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # noqa: BLE001  the package raises nothing narrower
            raise CaptuneError(f"{path} is no tokenizer: {error}", "Export the model again.") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, clean_up)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text without start and end."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text.strip() else []

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        if self.clean_up:
            for spaced in TIDIED:
                text = text.replace(spaced, spaced.strip())
        return text.strip()
