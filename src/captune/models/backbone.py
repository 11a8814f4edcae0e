"""The protocol of a model family: what the rest of captune uses of any captioner, from pixels to losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.files import read_json, write_json
from captune.core.model_names import BASE, CARD
from captune.core.options import GenerationOptions
from captune.decoding.encoding import Encoded, TextCodec, prompt_for
from captune.decoding.generate import transformers_kwargs
from captune.decoding.rows import CachedDecoder
from captune.images.preprocessing import Preprocessing, resize_passes, resized_shape
from captune.models.decoder import BatchDecoder, Decoder
from captune.models.layers.fused import contiguous_head
from captune.models.layers.losses import TeacherForced, TokenLosses, teacher_forced_pass
from captune.models.layers.vision_encoder import VisionEncoder
from captune.models.loading.pretrained import load_processor, load_tokenizer, readable_by_earlier
from captune.models.lora import ADAPTER, AdapterBase, Lora, merged, save_adapter
from captune.models.weights import FP32, Placing, Shared, load_weights, save_apart


@dataclass(frozen=True)
class PixelSettings(Preprocessing):
    """How an image becomes a model's pixels, and the `mean` and `std` of each channel that normalise them."""

    mean: Sequence[float] = field(kw_only=True)
    std: Sequence[float] = field(kw_only=True)

    @classmethod
    def of(cls, processor: Any) -> PixelSettings:
        """Those of a `transformers` image processor; raises `CaptuneError` for one that does something else."""
        size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
        cut = bool(getattr(processor, "do_center_crop", False))
        side, shorter = int(size.get("height") or size.get("shortest_edge") or 0), 0
        if cut:
            side, shorter = int(crop.get("height") or 0), int(size.get("shortest_edge") or 0)
        square = size.get("height") == size.get("width") and crop.get("height") == crop.get("width")
        scaled = abs(float(getattr(processor, "rescale_factor", 1 / 255)) - 1 / 255) < 1e-9
        if not side or not square or not scaled or (cut and shorter and shorter < side):
            raise CaptuneError(
                f"The model prepares its images in a way that captune does not know: {type(processor).__name__} with "
                f"size {size} and crop {crop or 'none'}.",
                "Use a model whose images are squares of 8-bit values.",
            )
        plain = not getattr(processor, "do_normalize", True)
        mean = (0.0,) * 3 if plain else tuple(processor.image_mean)
        std = (1.0,) * 3 if plain else tuple(processor.image_std)
        return cls(side, int(processor.resample), shorter, mean=mean, std=std)

    def apply(self, levels: np.ndarray) -> np.ndarray:
        """As the base class, in a quarter of Pillow's time."""
        shape = levels.shape[1], levels.shape[0]
        image = torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0)
        first, (width, height) = resize_passes(shape, resized_shape(shape, self.size, self.shorter))
        if first[1] == height:  # columns first; torch itself begins with the rows
            image = interpolate(image, (height, first[0]), mode="bicubic", antialias=True)
        image = interpolate(image, (height, width), mode="bicubic", antialias=True)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return image[0, :, top : top + self.size, left : left + self.size].contiguous().numpy()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Levels (…, 3, size, size) of 0–255 as the model takes them, fp32, bit for bit as transformers computes."""
        mean, std = (torch.tensor(tuple(each), device=pixels.device).view(3, 1, 1) for each in (self.mean, self.std))
        return pixels.float().div_(255).sub_(mean).div_(std)


Fused = TypeVar("Fused")
# Dropout in the configurations of transformers' text models.
DROPOUT_OPTIONS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob",  # BERT, GIT
    "resid_pdrop", "embd_pdrop", "attn_pdrop",  # GPT-2
    "dropout", "attention_dropout", "dropout_rate",  # OPT, T5
)  # fmt: skip
# Names of captune 0.1.0 that families of other packages implement or use, by their names today.
IMPLEMENTED = {
    "start": "bos_token_id",
    "end": "eos_token_id",
    "pad": "pad_token_id",
    "longest": "max_length",
    "width": "vision_hidden_size",
    "stepper": "text_decoder",
    "reread": "teacher_forced",
    "layered_parts": "shardable_parts",
    "parts": "part_of(name)",
}
USED = {
    "assembled": "from_components",
    "asked_of_transformers": "generate_kwargs",
    "seen_by": "fused_features",
    "running_dtype": "compute_dtype",
    "own_decoder": "own_search",
    "own_vision": "fused_vision",
}


@dataclass(frozen=True)
class Checkpoint:
    """Published weights: name on the Hub, parameters and licence as their card states them."""

    name: str
    parameters: int
    license: str


@dataclass(frozen=True)
class Task:
    """What a family does, in the words of the Hub (`tag`, `name`) and of the model card; `captune_code` has {repo}."""

    tag: str
    name: str
    about: str
    captune_code: str


CAPTIONING = Task(
    "image-to-text", "Image captioning", "An image captioner", 'captune.Captioner.load("{repo}")("photo.jpg").text'
)
# A line of `transformers_code`.
OPEN_IMAGE = 'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")'


@dataclass
class Backbone(ABC):
    """A captioning model with all that belongs to it.

    `prompt` stands before every reference in training and before every caption later, with a question in place of
    `{question}`, else at its end. It is saved with the model, as are `generation` (options that differ from captune's
    defaults) and `processor`, which prepares images for plain `transformers`. Without `own_search`, `transformers`
    searches for captions; without `fused_vision`, it runs the vision part. With `adapter_base`, adapters are saved
    without the weights. A family is one file that implements the
    abstract methods.
    """

    model: Any
    tokenizer: Any
    pixels: PixelSettings
    prompt: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    own_search: bool = True
    fused_vision: bool = True
    processor: Any = None
    lora: Lora | None = None
    adapter_base: AdapterBase | None = None
    _fused: dict[str, tuple[Any, Tensor, Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    family: ClassVar[str]
    sizes: ClassVar[tuple[str, ...]]
    # Name of the class in `transformers`.
    kind: ClassVar[str]
    task: ClassVar[Task] = CAPTIONING
    # Why it has no attention maps; empty where it has.
    no_attention_maps: ClassVar[str] = ""
    # What else runs a saved folder of the family without torch; empty where captune exports it.
    other_runtimes: ClassVar[str] = ""
    # Well-known weights of the family.
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = ()
    # Whether `load` takes a quantization_config.
    quantizes: ClassVar[bool] = False
    # Whether `load` takes a `placing` (captune.models.weights), and `_save_model` the weights to save.
    placed: ClassVar[bool] = False
    # Whether captioning works with layers on several devices (hooks of accelerate move what they read).
    spreads: ClassVar[bool] = False
    # Whether the weights that get adapters (fp32) may be in the 16 bits to compute in.
    adapts_half: ClassVar[bool] = False
    # Modules of each part whose weights may be of another type than those of the other parts; empty: all are alike.
    apart: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Modules of the text part that have dropout.
    text_modules: ClassVar[tuple[str, ...]] = ()
    # Parts of a model that was trained before which do not learn unless asked to.
    frozen_by_default: ClassVar[tuple[str, ...]] = ("vision",)
    # Parts that images pass on the way to their memory, whose cached features belong to their weights.
    encoding_parts: ClassVar[tuple[str, ...]] = ("vision",)
    # Parts that get adapters (--lora) unless others are named.
    adapted_by_default: ClassVar[tuple[str, ...]] = ("bridge", "text")

    def __init_subclass__(cls, **options: Any) -> None:
        """Raises `CaptuneError` for a family that is written for captune 0.1.0."""
        super().__init_subclass__(**options)
        used = {name for value in vars(cls).values() for name in _names_used(value)}
        renamed = {old: new for old, new in IMPLEMENTED.items() if old in vars(cls)}
        renamed |= {old: new for old, new in USED.items() if old in used}
        if renamed:
            raise CaptuneError(
                f"The model family {cls.__module__}.{cls.__name__} is written for captune 0.1.0: "
                f"{', '.join(f'{old} is {new} now' for old, new in renamed.items())}.",
                "Update its package, or rename these in it; captune.models.backbone.Backbone is the base class.",
            )

    # -- what a family implements --------------------------------------------------

    @classmethod
    @abstractmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Backbone:
        """A model with random weights whose tokenizer is learned from `texts`."""

    @abstractmethod
    def part_of(self, name: str) -> str:
        """The part of the parameter `name`: `vision`, `bridge` or `text`."""

    @abstractmethod
    def encode(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels (images, 3, size, size) to the memory (images, length, width) that captions attend to."""

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
        """Losses of captions `tokens` (captions, width) of `lengths`, whose images are `owner` (rising).

        The first `given` (captions,) tokens of each are read, not supervised; `recompute`
        trades time for memory in the backward pass.
        """

    @abstractmethod
    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        """Token ids (images · captions, width), `prefix` included, by the search of `transformers`."""

    def text_decoder(self) -> Decoder | None:
        """The text part fused for captune's own search; None: `transformers` searches."""
        return None

    def cached_decoder(self, memory: Tensor) -> CachedDecoder | None:
        """The text part over the memory of images, for captune's own search; None: `transformers` searches."""
        decoder = self.text_decoder()
        if decoder is None:
            return None
        with torch.autocast(memory.device.type, enabled=False):
            return BatchDecoder(decoder, memory)

    def teacher_forced(self, memory: Tensor, tokens: Sequence[int], prompt_length: int) -> TeacherForced | None:
        """One pass over `tokens`, of which the first `prompt_length` are start and prompt, and the memory of one image.

        `memory` is (1, places, width). The last step reads the last token; a family may leave out the steps that only
        read the prompt. None: it cannot.
        """
        decoder = self.text_decoder()
        return None if decoder is None else teacher_forced_pass(decoder, memory, tokens)

    def shardable_parts(self) -> dict[str, nn.Module]:
        """The parts whose layers may be sharded (FSDP): training calls them, itself or by `layered.call_layer`.

        It calls them as often for any batch: processes that share weights wait for each other at every layer.
        """
        return {}

    @property
    def searched_by(self) -> str:
        """Whose search writes the captions: captune or transformers."""
        return "captune" if self.own_search and self.text_decoder() is not None else "transformers"

    def image_tokens(self, width: int, height: int) -> int:
        """Tokens that an image of so many pixels has among those of its prompt; 0: captions attend to it apart."""
        return 0

    @property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Tokens that no caption has."""
        return ()

    @property
    def text_config(self) -> Any:
        """The configuration of the text part."""
        return self.model.config.get_text_config()

    @property
    def vision_hidden_size(self) -> int:
        """Hidden size of the vision part; it decides whether a number type is worth its conversions."""
        return self.model.config.vision_config.hidden_size

    @property
    def bos_token_id(self) -> int:
        """The token before every caption."""
        return self.text_config.bos_token_id

    @property
    def eos_token_id(self) -> int:
        """The token after every caption."""
        return self.text_config.eos_token_id

    @property
    def pad_token_id(self) -> int:
        return self.text_config.pad_token_id

    @property
    def max_length(self) -> int:
        """The most tokens that the text part can read, start and end included."""
        return self.text_config.max_position_embeddings

    @abstractmethod
    def _save_model(self, folder: Path, **weights: Any) -> None:
        """Write all but `captune.json`; `weights` are keywords of `save_pretrained` (families that are `placed`)."""

    # -- what all families share ----------------------------------------------------

    @classmethod
    def load(cls, folder: str | Path, *, image_size: int | None = None, placing: Placing = FP32, **hub: Any) -> Self:
        """Load a folder in the Hub's layout, or a Hub id; by default weights in fp32 on the CPU."""
        import transformers

        model = load_weights(getattr(transformers, cls.kind), folder, placing, **hub)
        hub = {name: value for name, value in hub.items() if name not in ("quantization_config", "dtype")}
        tokenizer, processor = load_tokenizer(folder, **hub), load_processor(folder, **hub)
        cls.resize(model, processor, image_size)
        return cls.from_components(model, tokenizer, processor, cls.read_card(folder))

    @classmethod
    def resize(cls, model: Any, processor: Any, image_size: int | None) -> None:
        """Give a model and its processor another image size (None: their own) for good; raises `UsageError`."""
        if image_size not in (None, PixelSettings.of(processor).size):
            raise UsageError(f"The image size of {cls.family} cannot be changed.", "Leave out --image-size.")

    def limit_image_tokens(self, most: int) -> None:
        """Let no image take more than `most` tokens; raises `UsageError` where their number is fixed."""
        raise UsageError(
            f"The number of an image's tokens is fixed in the family {self.family}.", "Leave out --image-tokens."
        )

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        """Python that prints the caption of photo.jpg with `transformers` alone, for the model card; empty: none.

        `search` are keywords of `generate`; with `encoder`, an encoder reads the prompt.
        """
        return ""

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of `vision`, `bridge` and `text`."""
        parts: dict[str, list[nn.Parameter]] = {"vision": [], "bridge": [], "text": []}
        for name, parameter in self.model.named_parameters():
            parts[self.part_of(name)].append(parameter)
        return parts

    def set_dropout(self, probability: float) -> None:
        """Set the dropout of the text part, in its layers and in its saved configuration."""
        for name in DROPOUT_OPTIONS:
            if hasattr(self.text_config, name):
                setattr(self.text_config, name, probability)
        for module in chain.from_iterable(self.model.get_submodule(name).modules() for name in self.text_modules):
            if isinstance(module, nn.Dropout):
                module.p = probability
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = probability  # OPT's layers have a number instead of a module

    @classmethod
    def from_components(cls, model: Any, tokenizer: Any, processor: Any, card: Mapping[str, Any] | None = None) -> Self:
        """A backbone of its components, with the prompt and the generation options of `card` (captune.json)."""
        saved = card or {}
        if not set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens):
            # transformers makes an empty one where the files are missing.
            raise CaptuneError(
                "The model has no tokenizer: there is no tokenizer.json (or vocabulary) beside its weights.",
                "Save or download the model again, its tokenizer with it.",
            )
        contiguous_head(model)
        return cls(
            model,
            tokenizer,
            PixelSettings.of(processor),
            prompt=saved.get("prompt", ""),
            generation=saved.get("generation", {}),
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
        if self.lora is not None:
            card["lora"] = asdict(self.lora)
        if self.lora is not None and self.adapter_base is not None:
            save_adapter(self, folder, self.adapter_base)
            self._save_processor(folder)
            card[BASE] = asdict(self.adapter_base)
        else:
            self._save_whole(folder, shared)
        write_json(folder / CARD, card)
        # safetensors makes its files for their owner alone: whoever may read the others (a container's user) may these.
        mode = (folder / CARD).stat().st_mode
        for weights in folder.rglob("*.safetensors"):
            weights.chmod(mode)

    def _save_whole(self, folder: Path, shared: Shared | None) -> None:
        """Write the model with its adapters added to its weights, and beside it the adapters alone."""
        frozen = self.frozen_weights()
        whole = self if self.lora is None else replace(self, model=merged(self.model), lora=None)
        if shared is not None and self.placed and frozen:
            save_apart(whole.model, frozen, folder, whole._save_model, shared)
        else:
            whole._save_model(folder)
        readable_by_earlier(folder)
        if self.lora is not None:
            save_adapter(self, folder / ADAPTER)

    def _save_processor(self, folder: Path) -> None:
        """Write what prepares texts and images."""
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def read_settings(self, folder: Path) -> None:
        """Take the prompt, the search and what prepares images from a folder that holds adapters of this model."""
        card = self.read_card(folder)
        self.prompt, self.generation = card.get("prompt", ""), card.get("generation", {})

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

    def image_features(self, images: Tensor | np.ndarray | Sequence[Tensor]) -> Tensor:
        """What captions attend to: the memory of images (images, 3, size, size), uint8.

        Or that of cached features (images, length, width), bf16 stored as uint16. Images come in a list where their
        sizes differ.
        """
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(images)
        assert isinstance(images, Tensor), "this family's images are squares"
        if images.dtype == torch.uint16:
            return images.to(self.device).view(torch.bfloat16).to(self.compute_dtype)
        values = self.pixels.normalise(images.to(self.device))
        return self.encode(values.to(next(self.model.parameters()).dtype))

    def stored_features(self, memory: Any) -> list[np.ndarray]:
        """The memory of images as `image_features` takes it when it was cached: uint16, an array an image."""
        return list(memory.to(torch.bfloat16).view(torch.uint16).cpu().numpy())

    @property
    def feature_settings(self) -> str:
        """What the memory of an image depends on beside weights and `pixels`; empty: nothing."""
        return ""

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
        """Token ids of a text, without those that begin and end a caption."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []

    @property
    def codec(self) -> TextCodec:
        """How prompts, references and captions are tokens."""
        prompt, start, end = self.prompt_for(""), self.bos_token_id, self.eos_token_id
        return TextCodec(self.tokenize, self.decode, start, end, self.max_length, prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def prompt_for(self, question: str, prompt: str | None = None) -> str:
        """The model's prompt, or another one, with a question in its place, of an image of which nothing is known."""
        return prompt_for(self.prompt, question, prompt)

    def encode_reference(
        self, reference: str, max_tokens: int, question: str = "", *, prompt: str | None = None
    ) -> Encoded:
        """Start, prompt (None: the model's own, with a question), at most `max_tokens` tokens of the reference, end."""
        return self.codec.reference(reference, self.prompt_for(question) if prompt is None else prompt, max_tokens)

    def check_number_type(self, dtype: torch.dtype) -> None:  # noqa: B027 - most run in any
        """Raise `UsageError` for a type to compute in that the model cannot run in."""

    @property
    def compute_dtype(self) -> torch.dtype:
        """The number type in which layers run now: autocast's, or that of the weights."""
        if torch.is_autocast_enabled(self.device.type):
            return torch.get_autocast_dtype(self.device.type)
        return next(self.model.parameters()).dtype

    def generate_kwargs(self, options: GenerationOptions, temperature: float) -> dict[str, Any]:
        """The options of a search as keywords of `generate` of `transformers`."""
        return {
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "suppress_tokens": list(self.suppressed_tokens) or None,
            **transformers_kwargs(options, temperature),
        }

    def set_generation_config(self, config: Any) -> None:
        """Put the saved generation options where plain `transformers` reads them."""
        defaults = GenerationOptions(**self.generation)
        config.eos_token_id, config.pad_token_id = self.eos_token_id, self.pad_token_id
        config.num_beams, config.max_new_tokens = defaults.num_beams, defaults.max_new_tokens
        config.no_repeat_ngram_size = defaults.no_repeat_ngram_size
        config.repetition_penalty = defaults.repetition_penalty
        if defaults.num_beams > 1:
            config.length_penalty = defaults.length_penalty

    def fused_features(
        self, vision: nn.Module, pixel_values: Tensor, build: Callable[[], VisionEncoder | None]
    ) -> Tensor:
        """Features by the vision encoder that `build` fuses; by `vision` while it learns, or where there is none."""
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in vision.parameters())
        encoder = None if learns or not self.fused_vision else self.fused("vision", vision, build)
        if encoder is None:
            return vision(pixel_values=pixel_values).last_hidden_state
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return encoder(pixel_values)

    def clear_fused(self) -> None:
        """Drop the fused layers: the model's own have changed."""
        self._fused.clear()

    def fused(self, name: str, module: nn.Module, build: Callable[[], Fused]) -> Fused:
        """What `build` makes of a module's weights, built again only when one of them has changed.

        Fused optimizers do not count what they change: a few values of every weight are compared as well.
        """
        parameters = list(module.parameters())
        state = (self.compute_dtype, [(p.data_ptr(), p._version) for p in parameters])
        sample = torch.cat([p.detach().reshape(-1)[:: -(-p.numel() // 4)].float() for p in parameters])
        cached = self._fused.get(name)
        if cached is None or cached[0] != state or not torch.equal(cached[1], sample):
            self._fused.pop(name, None)
            self._fused[name] = cached = state, sample, build()
        return cached[2]


def _names_used(value: Any) -> tuple[str, ...]:
    """Names of attributes and globals in the code of a method or a property."""
    function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
    code = getattr(function, "__code__", None)
    return code.co_names if code is not None else ()
