"""The protocol of a model family: what the rest of captune may ask of any captioner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from captune.core.encoding import Encoded, encoded
from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.files import read_json, write_json
from captune.core.model_names import CARD
from captune.core.options import GenerationOptions
from captune.core.search import asking, keywords
from captune.models.dense import contiguous_head
from captune.models.earlier import readable_by_earlier
from captune.models.eye import Eye
from captune.models.frozen import Shared, save_apart
from captune.models.lora import ADAPTER, Lora, merged, save_adapter
from captune.models.losses import TokenLosses
from captune.models.pixels import PixelSettings
from captune.models.reread import Reread, reread
from captune.models.stepper import Stepper

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Checkpoint:
    """Published weights: name on the Hub, parameters and licence as their card states them."""

    name: str
    parameters: int
    license: str


@dataclass
class Backbone(ABC):
    """A captioning model with all that belongs to it.

    `prompt` stands before every reference in training and before every caption later, with a
    question where it says `{question}`, else at its end. It is saved with the model, as are
    `generation` (options that differ from captune's defaults). Without `own_decoder`, captions
    are searched for by `transformers`; without `own_vision`, it runs the vision part. `processor`
    prepares pictures for plain `transformers` and is saved with the model. A family is one file
    that implements the abstract methods.
    """

    model: Any
    tokenizer: Any
    pixels: PixelSettings
    prompt: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    own_decoder: bool = True
    own_vision: bool = True
    processor: Any = None
    lora: Lora | None = None
    _kept: dict[str, tuple[Any, Tensor, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    family: ClassVar[str]
    sizes: ClassVar[tuple[str, ...]]
    # Well-known weights of the family.
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = ()
    # Whether `load` takes a quantization_config.
    quantizes: ClassVar[bool] = False
    # Whether `load` takes a `placing` (captune.models.weights), and `_save_model` the weights to save.
    placed: ClassVar[bool] = False
    # Modules of each part whose weights may be of another type than those of the other parts; empty: all are alike.
    apart: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Parts of a model that was trained before which do not learn unless asked to.
    frozen_by_default: ClassVar[tuple[str, ...]] = ("vision",)

    # -- what a family implements --------------------------------------------------

    @classmethod
    @abstractmethod
    def load(cls, folder: str | Path, *, image_size: int | None = None, **hub: Any) -> Backbone:
        """Load a folder in the Hub's layout, or a Hub id; weights in fp32 on the CPU."""

    @classmethod
    @abstractmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Backbone:
        """A model with random weights whose tokenizer is learned from `texts`."""

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of `vision`, `bridge` and `text`; each parameter in one part only."""

    @abstractmethod
    def encode(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (pictures, 3, size, size) to the memory that captions attend to."""

    @abstractmethod
    def token_losses(
        self,
        memory: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        owner: Tensor,
        given: Tensor,
        *,
        label_smoothing: float = 0.0,
        recompute: bool = False,
    ) -> TokenLosses:
        """Losses of captions `tokens` (captions, width) of `lengths`, whose pictures are `owner` (rising).

        The first `given` (captions,) tokens of each are read, not supervised; `recompute`
        trades time for memory in the backward pass.
        """

    @abstractmethod
    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        """Token ids (pictures · captions, width), `prefix` included, as `transformers` finds them."""

    def stepper(self) -> Stepper | None:
        """The text part ready for captune's own search; None: `search` is all there is."""
        return None

    def reread(self, memory: Tensor, tokens: Sequence[int], given: int) -> Reread | None:
        """Written `tokens`, the first `given` start and prompt, over the memory (1, places, width) of a picture.

        The last step reads the last token; a family may leave out those that only read the prompt. None: it cannot.
        """
        stepper = self.stepper()
        return None if stepper is None else reread(stepper, memory, tokens)

    def layered_parts(self) -> dict[str, nn.Module]:
        """The parts whose layers may fetch their weights when they run, because training calls them (or `layered.run`).

        As often for any batch: processes that share weights wait for each other at every layer.
        """
        return {}

    @property
    def decoder(self) -> str:
        """Whose search writes the captions: captune or transformers."""
        return "captune" if self.own_decoder and self.stepper() is not None else "transformers"

    @property
    @abstractmethod
    def width(self) -> int:
        """Hidden size of the vision part: what says whether a number type is worth its conversions."""

    @property
    @abstractmethod
    def start(self) -> int:
        """The token before every caption."""

    @property
    @abstractmethod
    def end(self) -> int:
        """The token behind every caption."""

    @property
    @abstractmethod
    def pad(self) -> int: ...

    @property
    @abstractmethod
    def longest(self) -> int:
        """Most tokens the text part can read, start and end included."""

    @abstractmethod
    def set_dropout(self, probability: float) -> None:
        """Set the dropout of the text part, in its layers and in its saved configuration."""

    @abstractmethod
    def _save_model(self, folder: Path, **weights: Any) -> None:
        """Write all but `captune.json`; `weights` are keywords of `save_pretrained` (families that are `placed`)."""

    # -- what all families share ----------------------------------------------------

    @classmethod
    def assembled(cls, model: Any, tokenizer: Any, processor: Any, card: Mapping[str, Any] | None = None) -> Self:
        """A backbone of its pieces, with what `card` (captune.json) kept beside them."""
        kept = card or {}
        if not set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens):
            # transformers makes one without words where the files are missing.
            raise CaptuneError(
                "The model has no tokenizer: there is no tokenizer.json (or vocabulary) beside its weights.",
                "Save or download the model again, its tokenizer with it.",
            )
        contiguous_head(model)
        return cls(
            model,
            tokenizer,
            PixelSettings.of(processor),
            prompt=kept.get("prompt", ""),
            generation=kept.get("generation", {}),
            processor=processor,
        )

    @classmethod
    def tiny(cls, texts: Iterable[str] = ("a red circle", "two dogs play", "a man on a bike .")) -> Backbone:
        """A seconds-fast random instance for tests."""
        return cls.new("tiny", texts)

    def save(self, folder: str | Path, *, shared: Shared | None = None) -> None:
        """Write weights (safetensors), processor, tokenizer and generation defaults in the Hub's layout.

        With `shared`, weights that do not learn are written once for all checkpoints of a run.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        card = {"family": self.family, "prompt": self.prompt, "generation": self.generation}
        frozen = self.frozen_weights()
        whole = self if self.lora is None else replace(self, model=merged(self.model), lora=None)
        if shared is not None and self.placed and frozen:
            save_apart(whole.model, frozen, folder, whole._save_model, shared)
        else:
            whole._save_model(folder)
        readable_by_earlier(folder)
        if self.lora is not None:
            save_adapter(self, folder / ADAPTER)
            card["lora"] = asdict(self.lora)
        write_json(folder / CARD, card)
        # safetensors makes its files for their owner alone: whoever may read the others (a container's user) may these.
        mode = (folder / CARD).stat().st_mode
        for weights in folder.rglob("*.safetensors"):
            weights.chmod(mode)

    def frozen_weights(self) -> frozenset[str]:
        """Names of the weights, as they are saved, that do not learn and get no adapter."""
        names = dict(self.model.named_parameters(remove_duplicate=False))
        learning = {id(p) for p in names.values() if p.requires_grad}
        adapted = {f"{name}.base_layer." for name, module in self.model.named_modules() if hasattr(module, "lora_A")}
        return frozenset(
            name
            for name, parameter in names.items()
            if id(parameter) not in learning and not any(name.startswith(each) for each in adapted)
        )

    @staticmethod
    def read_card(folder: str | Path) -> dict[str, Any]:
        """What captune saved beside the weights; empty for a model of another origin."""
        path = Path(folder) / CARD
        card = read_json(path) if path.is_file() else {}
        try:
            GenerationOptions(**card.get("generation", {}))
            usable = isinstance(card.get("prompt", ""), str)
        except (AttributeError, TypeError, ValueError):  # pydantic's error is a ValueError
            usable = False
        if not usable:
            raise CaptuneError(
                f"{path} does not hold what this captune saves beside a model (prompt, options of the search).",
                "Save the model again, or move that file away: the model then has captune's defaults.",
            )
        return card

    def memory(self, seen: Tensor) -> Tensor:
        """What captions attend to, of pixels (pictures, 3, size, size), uint8.

        Or of memory that was kept: (pictures, length, width), bf16 written as uint16.
        """
        if seen.dtype == torch.uint16:
            return seen.to(self.device).view(torch.bfloat16).to(self.running_dtype)
        values = self.pixels.normalise(seen.to(self.device))
        return self.encode(values.to(next(self.model.parameters()).dtype))

    def freeze(self, names: Sequence[str]) -> None:
        """Let only the parts that are not named learn."""
        parts = self.parts()
        for name in names:
            if name not in parts:
                raise UsageError(f"There is no part '{name}' in {self.family}.", did_you_mean(name, parts))
        for name, parameters in parts.items():
            for parameter in parameters:
                parameter.requires_grad_(name not in names)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise UsageError("Every part is frozen: nothing would learn.", "Freeze fewer parts with --freeze.")

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text without start and end."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []

    def asking(self, question: str, prompt: str | None = None) -> str:
        """The model's prompt, or another one, with a question in its place."""
        return asking(self.prompt, question, prompt)

    def encode_reference(self, reference: str, longest: int, question: str = "") -> Encoded:
        """Start, prompt, at most `longest` tokens of the reference, end."""
        return encoded(
            reference,
            self.asking(question),
            self.tokenize,
            start=self.start,
            end=self.end,
            most=longest,
            longest=self.longest,
        )

    @property
    def running_dtype(self) -> torch.dtype:
        """The number type in which layers run now: autocast's, or that of the weights."""
        if torch.is_autocast_enabled(self.device.type):
            return torch.get_autocast_dtype(self.device.type)
        return next(self.model.parameters()).dtype

    def asked_of_transformers(self, options: GenerationOptions, temperature: float) -> dict[str, Any]:
        """The options of a search as keywords of `generate`."""
        return {"eos_token_id": self.end, "pad_token_id": self.pad, **keywords(options, temperature)}

    def set_generation_config(self, config: Any) -> None:
        """Put the saved generation options where plain `transformers` reads them."""
        defaults = GenerationOptions(**self.generation)
        config.eos_token_id, config.pad_token_id = self.end, self.pad
        config.num_beams, config.max_new_tokens = defaults.num_beams, defaults.max_new_tokens
        config.no_repeat_ngram_size = defaults.no_repeat_ngram_size
        config.repetition_penalty = defaults.repetition_penalty
        if defaults.num_beams > 1:
            config.length_penalty = defaults.length_penalty

    def seen_by(self, vision: nn.Module, pixel_values: Tensor, lay_out: Callable[[], Eye | None]) -> Tensor | None:
        """What a vision part laid out for inference makes of pixels; None while it learns, or where there is none."""
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in vision.parameters())
        if learns or not self.own_vision:
            return None
        eye = self.kept("vision", vision, lay_out)
        if eye is None:
            return None
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return eye(pixel_values)

    def forget(self) -> None:
        """Drop what was laid out: the layers themselves have changed."""
        self._kept.clear()

    def kept(self, name: str, module: nn.Module, lay_out: Callable[[], Kept]) -> Kept:
        """What `lay_out` makes of a module's weights, made again only when one of them has changed.

        Fused optimizers do not count what they change: a few values of every weight are compared as well.
        """
        parameters = list(module.parameters())
        state = (self.running_dtype, [(p.data_ptr(), p._version) for p in parameters])
        some = torch.cat([p.detach().reshape(-1)[:: -(-p.numel() // 4)].float() for p in parameters])
        held = self._kept.get(name)
        if held is None or held[0] != state or not torch.equal(held[1], some):
            self._kept.pop(name, None)
            self._kept[name] = held = state, some, lay_out()
        return held[2]
