"""An export folder as a model that captions, and how likely it finds references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError, missing_extra
from captune.core.exported import TEXT, TOKENIZER, VISION, Exported
from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress, track
from captune.core.records import Caption, ImageRecord
from captune.decoding import captions_of, search
from captune.decoding.encoding import Encoded, TextCodec, prompt_for
from captune.decoding.generate import normalized
from captune.decoding.numpy_ops import NumpyOps
from captune.decoding.ops import Array
from captune.decoding.rows import Generated
from captune.images.batches import stream_pixels
from captune.images.preprocessing import Preprocessing
from captune.inference.prompting import prompts_of_records
from captune.inference.runtime.decoder import Memory, SessionDecoder, empty_cache, select
from captune.inference.runtime.sessions import Session, open_session
from captune.metrics.corpus import ReferenceLikelihood


def likelihood_of_references(
    model: ExportedModel,
    records: Sequence[ImageRecord],
    *,
    max_tokens: int = 512,
    progress: Progress = SILENT,
    label: str = "Loss",
) -> ReferenceLikelihood:
    """The references of each image, read side by side over its memory; an image that cannot be read raises."""
    records = list({record.id: record for record in records if record.references}.values())
    nll, tokens = np.zeros(len(records)), np.zeros(len(records), np.int64)
    stream = stream_pixels(((n, record.image) for n, record in enumerate(records)), model.pixels)
    for n, pixels in track(stream, progress, label, len(records)):
        if isinstance(pixels, CaptuneError):
            raise pixels
        (prompt,) = prompts_of_records(model, [records[n]])
        references = [model.codec.reference(text, prompt, max_tokens) for text in records[n].references]
        nll[n], tokens[n] = _likelihood(model, model.memory(pixels[None]), references)
    return ReferenceLikelihood(nll, tokens)


def _likelihood(model: ExportedModel, memory: Memory, references: Sequence[Encoded]) -> tuple[float, int]:
    """Summed negative log-likelihood (nats) and number of the supervised tokens of one image's references."""
    lengths = [len(one.tokens) - 1 for one in references]
    positions = np.concatenate([np.arange(length) for length in lengths])
    owner = np.repeat(np.arange(len(references)), lengths)
    # A token attends to its own reference up to itself.
    visible = (owner[:, None] == owner) & (positions[:, None] >= positions)
    outputs = model.text(
        tokens=np.concatenate([np.array(one.tokens[:-1], np.int64) for one in references])[None],
        positions=positions,
        mask=np.where(visible, np.float32(0), np.float32(-np.inf))[None, None],
        **memory,
        **empty_cache(memory),
    )
    targets = np.concatenate([np.array(one.tokens[1:], np.int64) for one in references])
    supervised = np.concatenate([np.arange(1, len(one.tokens)) >= one.prompt_length for one in references])
    logits = outputs["logits"][0]
    nll = NumpyOps().logsumexp(logits)[:, 0] - logits[np.arange(len(logits)), targets]
    return float(nll[supervised].sum(dtype=np.float64)), int(supervised.sum())


# What transformers' clean_up_tokenization replaces, in its order.
CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


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

    @property
    def codec(self) -> TextCodec:
        """How prompts, references and captions are tokens."""
        made, text = self.exported, self.tokenizer
        return TextCodec(text.encode, text.decode, made.start, made.end, made.longest, prompt_for(made.prompt, ""))

    def image_tokens(self, width: int, height: int) -> int:
        return 0

    def memory(self, inputs: Array) -> Memory:
        """What captions attend to, of pixels (images, 3, size, size), uint8."""
        return self.vision(pixels=inputs)

    def generate(
        self,
        inputs: Array,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Array, Array], None] | None = None,
    ) -> list[list[Caption]]:
        """Captions of each image of pixels (images, 3, size, size), uint8, the best first.

        `prompts`, one an image, replace the options' prompt (None: the model's own). `on_token` gets the tokens
        (images, captions) of every step of a search without beams. With `sample_seed` the same call gives the same
        captions; they are not those that torch draws.
        """
        options = normalized(options)
        memory, ops = self.memory(inputs), NumpyOps(np.random.default_rng(options.sample_seed))

        def search_group(images: list[int], prefixes: list[list[int]]) -> Generated:
            part = memory if len(images) == len(inputs) else select(memory, images)
            decoder, end = SessionDecoder(self.text, part), self.exported.end
            return search(decoder, ops, ops.array(prefixes), options, end, on_token)

        return captions_of(self.codec, prompts or [options.prompt] * len(inputs), options, search_group)


def weights_in(folder: Path) -> int:
    """Bytes of an export's graphs and weights."""
    graphs = (path for path in folder.iterdir() if path.name.startswith((f"{VISION}.", f"{TEXT}.")))
    return sum(path.stat().st_size for path in graphs)


class ExportTokenizer:
    """`tokenizer.json` by the package `tokenizers` alone, with the texts of `transformers`; without special tokens."""

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
