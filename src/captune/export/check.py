"""An export against its model: the same images, the same captions, or a reason to refuse it."""

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite

import numpy as np
import torch

from captune.core.errors import CaptuneError
from captune.core.exported import MEMORY
from captune.core.options import GenerationOptions
from captune.core.progress import Progress, track
from captune.core.records import Caption, ImageRecord
from captune.inference.runtime import ExportedModel
from captune.inference.runtime.decoder import empty_cache
from captune.inference.torch_model import TorchModel
from captune.models.backbone import Backbone

BATCH = 8
# Tokens that are read behind a caption when logits are compared.
EXTRA_TOKENS = 8
# The largest difference over the largest value that fp32 may show. Trained models were within 1e-5; attention that
# random weights have driven to extremes turns 1e-7 into 1e-3.
MEMORY_TOLERANCE, LOGITS_TOLERANCE = 1e-3, 5e-3
# Captions that differ, of each search, in the report.
EXAMPLES = 3
METRICS = ("bleu", "rouge_l", "cider")


@dataclass(frozen=True)
class CaptionPairs:
    """Captions of the same images by a model and by its export.

    `ratio` is how many times as fast the export was, the median over batches.
    """

    by_model: tuple[Caption, ...]
    by_export: tuple[Caption, ...]
    ratio: float

    @property
    def identical(self) -> float:
        """The share of images with the same caption, token by token."""
        return 1 - len(self.different) / len(self.by_model)

    @property
    def different(self) -> list[int]:
        """The numbers of the images whose captions differ."""
        return [n for n, (a, b) in enumerate(zip(self.by_model, self.by_export, strict=True)) if a.tokens != b.tokens]


def caption_both(
    backbone: Backbone, export: ExportedModel, batches: Iterable[np.ndarray], options: GenerationOptions
) -> CaptionPairs:
    """The best caption of each image of batches (images, 3, size, size), uint8, by both, batch by batch in turn."""
    by_model: list[Caption] = []
    by_export: list[Caption] = []
    ratios = []
    for pixels in batches:
        started = time.perf_counter()
        by_model += (captions[0] for captions in TorchModel(backbone).generate(pixels, options))
        between = time.perf_counter()
        by_export += (captions[0] for captions in export.generate(pixels, options))
        ratios.append((between - started) / (time.perf_counter() - between))
    return CaptionPairs(tuple(by_model), tuple(by_export), statistics.median(ratios))


def distances(
    backbone: Backbone, export: ExportedModel, pixels: np.ndarray, caption: Sequence[int]
) -> tuple[float, float]:
    """How far an export's memory and its logits along a caption are from its model's.

    Both as the largest difference over the largest value. `pixels` (1, 3, size, size), uint8; `caption` are tokens
    without start and prompt, behind which some more are read: a caption may be empty. Both read them over the model's
    memory, so that each graph is compared by itself.
    """
    decoder = backbone.text_decoder()
    assert decoder is not None, "what is exported has a decoder"
    prefix = backbone.codec.prefix(None, GenerationOptions(max_new_tokens=1))
    more = (31 * n % len(backbone.tokenizer) for n in range(EXTRA_TOKENS))
    tokens = np.array([[*prefix, *caption, *more][: backbone.max_length]])
    positions = np.arange(tokens.shape[1])
    mask = np.triu(np.full((1, 1, len(positions), len(positions)), -np.inf, np.float32), 1)
    with torch.inference_mode():
        features = backbone.image_features(torch.from_numpy(pixels))
        image_kv = decoder.prefill(features)
        cache = decoder.new_cache(1, len(positions), features)
        inputs = [torch.from_numpy(each) for each in (tokens, positions, mask)]
        logits = decoder.logits(decoder.step(inputs[0], inputs[1], image_kv, cache, inputs[2])).numpy()
    memory = {
        f"{MEMORY}_{kind}_{layer}": each.numpy()
        for layer, pair in enumerate(image_kv)
        for kind, each in zip(("keys", "values"), pair, strict=True)
    }
    by_export = export.memory(pixels)
    outputs = export.text(tokens=tokens, positions=positions, mask=mask, **memory, **empty_cache(memory))
    memory_distance = max(_distance(by_model, by_export[name]) for name, by_model in memory.items())
    return memory_distance, _distance(logits, outputs["logits"])


def _distance(by_model: np.ndarray, by_export: np.ndarray) -> float:
    """Infinite where a shape differs or a number is not finite."""
    if by_model.shape != by_export.shape or not np.isfinite(by_export).all():
        return float("inf")
    return float(np.abs(by_model - by_export).max() / max(1e-12, np.abs(by_model).max()))


@dataclass(frozen=True)
class SearchCheck:
    """A search by model and export: the share of images with the same caption, and how many times as fast it was."""

    name: str
    beams: int
    identical: float
    speed: float
    differences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Check:
    """How an export compares: `memory` and `logits` as the largest difference over the largest value, and captions."""

    pictures: int
    source: str
    memory: float
    logits: float
    searches: tuple[SearchCheck, ...]

    @property
    def identical(self) -> float:
        """The smallest share of images with the same caption, over the searches."""
        return min(search.identical for search in self.searches)


def check(
    backbone: Backbone,
    export: ExportedModel,
    pixels: Sequence[np.ndarray],
    *,
    source: str,
    min_identical: float | None,
    progress: Progress,
) -> Check:
    """Compare memory, logits and captions (greedy and with the model's beams) on pixels (3, size, size) of images.

    Raises `CaptuneError` where an int8 export gives fewer than `min_identical` of the model's captions, or one in fp32
    (None) differs in anything.
    """
    searches: list[SearchCheck] = []
    tokens: Sequence[Sequence[int]] = ()
    for name, options in searches_of(backbone):
        batches = track(batched(pixels), progress, f"Checking {name}", -(-len(pixels) // BATCH))
        both = caption_both(backbone, export, batches, options)
        if not searches:
            tokens = [caption.tokens for caption in both.by_model]
        compare_tokenizers(backbone, export, (caption.tokens for caption in (*both.by_model, *both.by_export)))
        differences = tuple((both.by_model[n].text, both.by_export[n].text) for n in both.different[:EXAMPLES])
        searches.append(SearchCheck(name, options.num_beams, both.identical, both.ratio, differences))
    pairs = zip(pixels, tokens, strict=True)
    measured = [
        distances(backbone, export, one[None], caption)
        for one, caption in track(pairs, progress, "Checking numbers", len(pixels))
    ]
    memory, logits = (max(each) for each in zip(*measured, strict=True))
    result = Check(len(pixels), source, memory, logits, tuple(searches))
    if min_identical is None:
        refuse_other(result)
    else:
        refuse_few(result, min_identical)
    return result


def searches_of(backbone: Backbone) -> list[tuple[str, GenerationOptions]]:
    """Greedy, and a search with beams: the model's own options, without sampling."""
    changed = {"sample": False, "variations": 0, "num_captions": 1, "prompt": None}
    own = GenerationOptions(**{**backbone.generation, **changed})
    own = own.model_copy(update={"max_new_tokens": min(own.max_new_tokens, backbone.codec.token_budget())})
    beams = own.num_beams if own.num_beams > 1 else GenerationOptions().num_beams
    return [
        ("greedy", own.model_copy(update={"num_beams": 1})),
        (f"{beams} beams", own.model_copy(update={"num_beams": beams})),
    ]


def refuse_other(result: Check) -> None:
    """Raise `CaptuneError` where an fp32 export does not give its model's captions, memory and logits."""
    hint = "Update onnx, onnxscript and onnxruntime; if it stays so, please report it with the model's name."
    changed = [search for search in result.searches if search.identical < 1]
    if changed:
        original, exported = changed[0].differences[0]
        share = f"{1 - changed[0].identical:.0%} of {result.pictures} images"
        raise CaptuneError(
            f"The export was not written: by {changed[0].name} it says something else on {share}, "
            f"for example “{exported}” instead of “{original}”. "
            f"Its scores are off by {result.logits:.1e} of the largest.",
            hint,
        )
    if result.memory > MEMORY_TOLERANCE or result.logits > LOGITS_TOLERANCE:
        raise CaptuneError(
            f"The export was not written: what it sees is off by {result.memory:.1e} of the largest value, its scores "
            f"by {result.logits:.1e} (at most {MEMORY_TOLERANCE:.0e} and {LOGITS_TOLERANCE:.0e}).",
            hint,
        )


def refuse_few(result: Check, min_identical: float) -> None:
    """Raise `CaptuneError` where an int8 export changes more captions than allowed, or gives no finite numbers."""
    worst = min(result.searches, key=lambda search: search.identical)
    if worst.identical < min_identical or not isfinite(result.memory + result.logits):
        raise CaptuneError(
            f"The export was not written: by {worst.name} it says the same as its model on {worst.identical:.0%} of "
            f"{result.pictures} images, less than {min_identical:.0%}.",
            "Export without --int8; or accept it with a smaller --min-identical, after looking at --data's scores.",
        )


def compare_tokenizers(backbone: Backbone, export: ExportedModel, captions: Iterable[Sequence[int]]) -> None:
    """Raise `CaptuneError` where the exported tokenizer reads or writes another text than the model's."""
    for tokens in captions:
        text = backbone.decode(tokens)
        if export.codec.decode(tokens) != text or export.codec.encode(text) != backbone.tokenize(text):
            raise CaptuneError(
                f"The export was not written: its tokenizer makes “{export.codec.decode(tokens)}” of “{text}”.",
                "Update tokenizers and transformers; if it stays so, please report it with the model's name.",
            )


def batched(pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pixels (3, size, size) as batches (images, 3, size, size)."""
    waiting = iter(pixels)
    while batch := list(islice(waiting, BATCH)):
        yield np.stack(batch)


@dataclass(frozen=True)
class Changed:
    """A score of the model and of the export, 0–1 (CIDEr-D as it is).

    `difference` is the export's minus the model's; `low` and `high` bound its paired bootstrap's 95 % interval and
    `p` is the randomisation test's, all None where nothing was resampled.
    """

    model: float
    export: float
    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Score:
    """A split captioned by both: the share of unchanged captions, how many times as fast, and every score."""

    data: str
    split: str
    pictures: int
    search: str
    identical: float
    speed: float
    scores: dict[str, Changed]


def score(
    backbone: Backbone,
    export: ExportedModel,
    records: Sequence[ImageRecord],
    *,
    data: str,
    split: str,
    resamples: int,
    progress: Progress,
) -> Score:
    """Caption the records' images with the model's beams by both, and measure both on the references."""
    from captune.metrics.measure import measure
    from captune.metrics.report import MetricReport
    from captune.metrics.significance import compare

    name, options = searches_of(backbone)[-1]
    batches = track(
        batched(_pixels(backbone, records)), progress, f"Captioning {split} ({name})", -(-len(records) // BATCH)
    )
    both = caption_both(backbone, export, batches, options)
    references = {record.id: record.references for record in records}

    def measured(captions: Sequence[Caption]) -> MetricReport:
        texts = (caption.text for caption in captions)
        return measure(dict(zip(references, texts, strict=True)), references, METRICS, resamples=0)

    by_model, by_export = measured(both.by_model), measured(both.by_export)
    differences = compare(by_export, by_model, resamples) if resamples else {}
    changes = {}
    for key, value in by_model.scores.items():
        change = differences.get(key)
        bounds = (change.low, change.high, change.p_randomisation) if change else (None, None, None)
        changes[key] = Changed(value, by_export.scores[key], by_export.scores[key] - value, *bounds)
    return Score(data, split, len(records), name, both.identical, both.ratio, changes)


def _pixels(backbone: Backbone, records: Sequence[ImageRecord]) -> Iterator[np.ndarray]:
    from captune.images.batches import stream_pixels

    for _, pixels in stream_pixels(((record.id, record.image) for record in records), backbone.pixels):
        if isinstance(pixels, CaptuneError):
            raise pixels
        yield pixels
