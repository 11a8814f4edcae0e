"""An export folder as a model that captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.exported import TEXT, TOKENIZER, VISION, Exported
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.core.search import check_length, check_prompt, settled, with_prompt
from captune.data.pixels import Preprocessing
from captune.data.words import ExportTokenizer
from captune.runtime.arrays import Array
from captune.runtime.generate import generate
from captune.runtime.memory import Memory
from captune.runtime.sessions import Session, open_session


@dataclass(frozen=True)
class ExportedModel:
    """A model that `captune export` wrote, run without torch; what a captioner asks of one.

    `weights` are the bytes of its graphs. Any number of threads may use it at once.
    """

    exported: Exported
    tokenizer: ExportTokenizer
    vision: Session
    text: Session
    pixels: Preprocessing
    weights: int = 0

    @classmethod
    def load(cls, folder: str | Path, *, threads: int = 0, fast_pixels: bool = False) -> ExportedModel:
        """Open an export folder; raises `CaptuneError` where something of it is missing or broken.

        `threads` 0: one for each core.
        """
        folder = Path(folder)
        exported = Exported.read(folder)
        shape = exported.pixels
        return cls(
            exported,
            ExportTokenizer.load(folder / TOKENIZER, clean_up=exported.clean_up),
            open_session(folder, VISION, exported.target, exported.layers, threads),
            open_session(folder, TEXT, exported.target, exported.layers, threads),
            Preprocessing(shape.size, shape.resample, shape.shorter, fast_pixels),
            weights_in(folder),
        )

    @property
    def family(self) -> str:
        return self.exported.family

    @property
    def prompt(self) -> str:
        return self.exported.prompt

    @property
    def generation(self) -> Mapping[str, Any]:
        return self.exported.generation

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def precision(self) -> str:
        return self.exported.precision

    @property
    def decoder(self) -> str:
        return "captune"

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text without start and end."""
        return self.tokenizer.encode(text)

    def token_budget(self, prompt: str | None = None) -> int:
        """How many new tokens the model can read behind start and prompt (None: its own)."""
        return self.exported.longest - 1 - len(self.tokenize(self.prompt if prompt is None else prompt))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return self.tokenizer.decode(tokens)

    def memory(self, inputs: Array) -> Memory:
        """What captions attend to, of pixels (pictures, 3, size, size), uint8."""
        return self.vision(pixels=inputs)

    def generate(
        self,
        inputs: Array,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Array], None] | None = None,
    ) -> list[list[Caption]]:
        """Captions of each picture of pixels (pictures, 3, size, size), uint8, the best first.

        `prompts`, one a picture, replace the options' prompt (None: the model's own). `on_token` gets the tokens
        (pictures, captions) of every step of a search without beams.
        """
        options = settled(options)
        asked = prompts or [options.prompt] * len(inputs)
        prefixes = [self._prefix(options, prompt) for prompt in asked]
        found = generate(self.text, self.memory(inputs), prefixes, options, self.exported.end, on_token)
        return [
            [Caption(self._text(tokens, prompt, options), confidence, tuple(tokens)) for tokens, confidence in captions]
            for captions, prompt in zip(found, asked, strict=True)
        ]

    def _text(self, tokens: list[int], prompt: str | None, options: GenerationOptions) -> str:
        if not options.prompt_in_caption:
            return self.decode(tokens)
        words = self.prompt if prompt is None else prompt
        return with_prompt(words, self.tokenize(words), tokens, self.decode)

    def _prefix(self, options: GenerationOptions, prompt: str | None) -> list[int]:
        words = self.prompt if prompt is None else prompt
        check_prompt(words, options)
        prefix = [self.exported.start, *self.tokenize(words)]
        check_length(len(prefix), self.exported.longest, options)
        return prefix


def weights_in(folder: Path) -> int:
    """Bytes of an export's graphs and weights."""
    graphs = (path for path in folder.iterdir() if path.name.startswith((f"{VISION}.", f"{TEXT}.")))
    return sum(path.stat().st_size for path in graphs)
