"""The tokenizer of an export, by the package `tokenizers` alone; the words are those that `transformers` finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, missing_extra

# What transformers' clean_up_tokenization replaces, in its order.
CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class ExportTokenizer:
    """Texts to tokens and back, special tokens neither added nor shown."""

    def __init__(self, tokenizer: Any, *, clean_up: bool) -> None:
        self._tokenizer, self._clean_up = tokenizer, clean_up

    @classmethod
    def load(cls, path: Path, *, clean_up: bool) -> ExportTokenizer:
        """That of a `tokenizer.json`; raises `CaptuneError` where it is missing or broken."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise missing_extra("tokenizers", "onnx", "Captioning with an exported model") from None
        try:
            return cls(Tokenizer.from_file(str(path)), clean_up=clean_up)
        except Exception as error:  # noqa: BLE001 (the package raises nothing narrower)
            raise CaptuneError(f"The tokenizer {path} cannot be read: {error}.", "Export the model again.") from None

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; none of one that is only spaces."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text.strip() else []

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without spaces around it."""
        text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        if self._clean_up:
            for piece in CLEANED:
                text = text.replace(piece, piece.strip() if piece == " ' " else piece[1:])
        return text.strip()
