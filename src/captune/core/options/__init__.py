"""Every option, declared once.

A field here is the flag of the command line, the check of its value, the keyword of the
Python function, the key of the configuration file, the environment variable and the row
in the docs. `captune.core.config` resolves them; `captune.cli.flags` draws the flags.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from captune.core.options.endpoint import EndpointOptions as EndpointOptions
from captune.core.options.library import DraftFilterOptions as DraftFilterOptions
from captune.core.options.library import DraftOptions as DraftOptions
from captune.core.options.library import EditOptions as EditOptions
from captune.core.options.library import FilterOptions as FilterOptions
from captune.core.options.library import LibraryOptions as LibraryOptions
from captune.core.options.library import SearchOptions as SearchOptions
from captune.core.options.library import TableFormatOptions as TableFormatOptions
from captune.core.options.library import WriteOptions as WriteOptions
from captune.core.options.option import Language as Language
from captune.core.options.option import Options as Options
from captune.core.options.option import OutsideOptions as OutsideOptions
from captune.core.options.option import TableOptions as TableOptions
from captune.core.options.option import option
from captune.core.options.outputs import ExportOptions as ExportOptions
from captune.core.options.outputs import JobOptions as JobOptions
from captune.core.options.outputs import VideoOptions as VideoOptions
from captune.core.options.outputs import WebcamOptions as WebcamOptions
from captune.core.options.pages import AltOptions as AltOptions
from captune.core.options.prompts import PromptOptions as PromptOptions
from captune.core.options.serve import ServeOptions as ServeOptions
from captune.core.options.structure import StructureOptions as StructureOptions
from captune.core.options.tag import TagOptions as TagOptions
from captune.core.options.training import PARTS as PARTS
from captune.core.options.training import DataOptions as DataOptions
from captune.core.options.training import ModelOptions as ModelOptions
from captune.core.options.training import TrainOptions as TrainOptions
from captune.core.options.wording import WordingOptions as WordingOptions

Device = Annotated[str, Field(pattern=r"^(auto|all|cpu|mps|cuda(:\d+)?)$")]
# transformers' own values are taken as well.
EarlyStopping = Annotated[
    Literal["on", "off", "never"], BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value))
]
# What captions, what answers, and what matches, where no model is named.
DEFAULT_MODEL = "Salesforce/blip-image-captioning-base"
DEFAULT_VQA_MODEL = "Salesforce/blip-vqa-base"
DEFAULT_MATCHER = "Salesforce/blip-itm-base-coco"
Precision = Literal["auto", "fp32", "bf16", "fp16"]
MOST_NEW_TOKENS = 512


class WhereOptions(Options, section="run_on", panel="Device"):
    """Where a model runs."""

    device: Device = option(
        "auto",
        "auto, cpu, cuda, cuda:N, mps or all; auto: the fastest that is available; all: the layers of a "
        "vision-language model over all cards.",
        env="DEVICE",
    )


class DeviceOptions(WhereOptions):
    """Where and how a model runs."""

    precision: Precision = option(
        "auto",
        "auto, fp32, bf16 or fp16; auto: bf16 on cards from Ampere on, fp16 on older ones; on CPUs "
        "bf16 for models that are faster in it, else fp32.",
    )
    quantize: Literal["none", "8bit", "4bit"] = option(
        "none", "Load the weights in 8 or 4 bits (BLIP-2, vision-language models; on NVIDIA cards, with bitsandbytes)."
    )
    preprocessing: Literal["exact", "fast"] = option(
        "exact",
        "Preprocessing of images: exact: the pixels of transformers' image processor; "
        "fast: nearly the same pixels from JPEG files, in less time.",
    )
    image_tokens: int | None = option(
        None,
        "Most tokens that an image takes in a vision-language model; fewer are faster, more show small things. Saved "
        "with a run. Default: as saved, for published models that take images of any size at most 1280.",
        ge=1,
        le=65536,
    )
    threads: int = option(0, "CPU threads of the model; 0: one per core.", ge=0, le=1024)
    decoder: Literal["auto", "transformers"] = option(
        "auto", "auto: captune's own search if the model's family has one; transformers: its generate."
    )


class GenerationOptions(Options, section="generation", panel="Caption search"):
    """How a caption is searched for. The defaults are the same everywhere."""

    num_beams: int = option(3, "Beams of the search; 1 is greedy.", ge=1, le=64)
    max_new_tokens: int = option(30, "Longest caption, in tokens without the prompt.", ge=1, le=MOST_NEW_TOKENS)
    min_new_tokens: int = option(0, "Shortest caption, in tokens without the prompt.", ge=0, le=MOST_NEW_TOKENS)
    length_penalty: float = option(
        1.0, "Above 0 beam search prefers longer captions, below 0 shorter ones.", ge=-10, le=10
    )
    repetition_penalty: float = option(1.0, "Above 1.0 tokens that occurred before become less likely.", ge=0.01, le=10)
    no_repeat_ngram_size: int = option(0, "No sequence of this many tokens occurs twice; 0: off.", ge=0, le=20)
    early_stopping: EarlyStopping = option(
        "off",
        "When the beam search of an image stops: on: as soon as enough captions have ended; off: when a better one is "
        "unlikely; never: when it is impossible.",
    )
    sample: bool = option(
        False,
        "Sample tokens instead of searching for the most likely caption; --temperature, --top-k or --top-p turn it on.",
    )
    temperature: float = option(
        1.0, "Sampling temperature: below 1.0 safer, above 1.0 more varied; turns --sample on.", gt=0, le=10
    )
    top_k: int = option(50, "Sample from this many most likely tokens; 0: all; turns --sample on.", ge=0)
    top_p: float = option(
        1.0, "Sample from the most likely tokens with this total probability; turns --sample on.", gt=0, le=1
    )
    sample_seed: int | None = option(None, "Makes sampling repeatable.", ge=0, le=2**64 - 1)
    num_captions: int = option(1, "Captions per image: the best of at least as many beams, or samples.", ge=1, le=64)
    variations: int = option(0, "Instead: captions per image, sampled with rising temperature.", ge=0, le=10)
    prompt: str | None = option(
        None,
        "Prompt that the caption continues (it is in the output only with --prompt-in-caption); of a vision-language "
        "model the message that the caption answers. Fields such as {names} or {exif.Model} are filled for each image, "
        "[ of {names}] is left out where there are none. Default: the model's prompt.",
        max_length=4000,
    )
    prompt_in_caption: bool = option(False, "Begin each caption with the prompt that it continues.")
    system_prompt: str | None = option(
        None, "System message before the prompt of a vision-language model. Default: the model's.", max_length=4000
    )
    prefill: str | None = option(
        None,
        "Words that every caption of a vision-language model begins with, such as 'A photo of'. Default: the model's.",
        max_length=4000,
    )


class PrepareOptions(Options, section="prepare", panel="Source and splits"):
    """How a source becomes splits."""

    format: str | None = option(None, "Format of the source; default: detected.")
    split: tuple[str, ...] = option(
        ("auto",),
        "Ratios (80/10/10), an official split (flickr8k, karpathy), split files (train=FILE val=FILE test=FILE), "
        "or auto: the splits of the source, else 80/10/10.",
    )
    seed: int = option(42, "Seed of a split by ratios.", ge=0)
    on_bad: Literal["fail", "skip"] = option("fail", "What to do with images that cannot be read.")
    images: str | None = option(None, "Folder, .zip or .tar of the images, if they are not beside the captions.")
    max_pixels: int = option(100_000_000, "Images with more pixels than this are bad images.", ge=1)
    duplicates: bool = option(True, "Search for near-duplicate images in different splits.")
    workers: int = option(0, "Processes that open images; 0: one per core.", ge=0)


class MeasureOptions(Options, section="measure", panel="Metrics"):
    """How captions are held against references."""

    metrics: tuple[str, ...] = option(
        ("auto",), "Metrics by name; auto: bleu, meteor (where its data is installed), rouge_l, cider, sacrebleu."
    )
    document_frequencies: str = option(
        "own", "Document frequencies of CIDEr: own (of the scored references), a run, or a saved file."
    )
    clip_model: str = option("openai/clip-vit-base-patch32", "CLIP model of clip_score: a Hub id or a folder.")
    spice_jars: str | None = option(
        None, "Folder with spice-1.0.jar and Stanford CoreNLP 3.6, for the metric spice.", env="CAPTUNE_SPICE_HOME"
    )
    resamples: int = option(1000, "Resamples for intervals and tests; 0: none.", ge=0, le=100_000)


class EvalOptions(Options, section="eval", panel="Evaluation"):
    """What is measured."""

    limit_images: int = option(0, "Evaluate this many images of the split; 0: all.", ge=0)
    limit_references: int = option(0, "References per image to compare with; 0: all.", ge=0)
    perplexity: bool = option(True, "Measure the perplexity of the references too.")
    eval_batch_size: int = option(16, "Images per batch.", ge=1)
    explain: int = option(0, "Images with attention maps of the first model in the report; 0: none.", ge=0, le=200)
    shown_captions: int = option(4, "Images whose captions and references are printed; 0: none.", ge=0)
    draw_report: bool = option(True, "Write report.html, report.md and figures beside the scores.")


class ReportOptions(Options, section="report", panel="Report"):
    """What a report of an evaluation shows."""

    title: str | None = option(None, "Heading of the report; default: the models and the split.")
    thumbnails: int = option(
        1000, "Images with a thumbnail; if there are more, only the best and worst have one; 0: none.", ge=0
    )
    figures: bool = option(True, "Draw figures as PNG files beside the report.")


class PushOptions(Options, section="push", panel="On the Hub"):
    """How a model is put on the Hub."""

    private: bool = option(False, "Make a new repository private.", env="HF_PRIVATE")
    license: str = option("", "Licence of the model, as the Hub names it (mit, apache-2.0); default: the base model's.")
    data_license: str = option("", "Licence of the training images and references, for the model card.")


class CaptionOptions(Options, section="caption", panel="Images and captions"):
    """How images come in and captions go out."""

    format: str = option(
        "text",
        "text, json, jsonl, csv, xml, txt, parquet, sidecar, coco, imagefolder, kohya, tar or xmp. Default: what the "
        "ending of --out says; in a folder jsonl; else text.",
    )
    in_place: bool = option(False, "With --format xmp: write captions into the images themselves, not into copies.")
    sidecar_suffix: Literal[".txt", ".caption"] = option(".txt", "Ending of the files of --format sidecar.")
    existing: Literal["keep", "replace", "append", "prepend"] = option(
        "keep",
        "Existing texts that captune did not write (sidecars, alt text, rows of a file): keep or "
        "replace them, or append or prepend the caption.",
    )
    provenance: Literal["auto", "on", "off"] = option(
        "auto",
        "Note who wrote the captions in each row and in XMP: the model with its digest, the prompt's digest, the day; "
        "auto: in jobs and in images.",
    )
    own_words: bool = option(
        False, "Note in the provenance what the model wrote, before thinking, translation and wording changed it."
    )
    batch_size: int = option(8, "Images per batch.", ge=1, env="BATCH_SIZE")
    workers: int = option(0, "Threads (in a job: processes) that open images; 0: one per core.", ge=0)
    recursive: bool = option(True, "Read subfolders too.")
    max_pixels: int = option(100_000_000, "Images with more pixels than this are refused.", ge=1)


class TranslationOptions(Options, section="translation", panel="Language"):
    """The language captions come in."""

    language: Language | None = option(
        None, "Translate captions into this language: de, fr, es …; default: no translation."
    )
    translator: str | None = option(
        None,
        "Translation model: Marian, M2M100 or T5 (MADLAD-400), a folder or a Hub id. "
        "Default: Helsinki-NLP/opus-mt-en-LANGUAGE.",
    )


class TuneOptions(Options, section="tune", panel="Search"):
    """How good training options are searched for."""

    trials: int = option(20, "Trainings in all, including those of earlier calls.", ge=1)
    goal: Literal["cider", "meteor", "bleu_4", "rouge_l", "loss"] = option(
        "cider", "Score by which trials are compared."
    )
    random_trials: int = option(5, "Random trials before the search uses their results.", ge=1)
    prune: bool = option(True, "Stop trials early that are worse than the median of the others.")
    search_seed: int = option(42, "Seed of the search.", ge=0)


class ScoreOptions(Options, section="score", panel="Captions and references"):
    """What to do with captions and references that do not fit together."""

    on_mismatch: Literal["fail", "skip"] = option(
        "fail", "Images without a caption, without references, or with several captions: stop, or leave them out."
    )


class MatchOptions(Options, section="match", panel="Pairs"):
    """How images and texts are brought together."""

    find: Literal["all", "pictures", "texts"] = option(
        "all", "all: every pair; pictures: the best images for each text; texts: the best texts for each image."
    )
    best: int = option(5, "Number of results (with --find pictures or texts).", ge=1)
    candidates: int = option(32, "BLIP: number of nearest by vector that are sorted by probability.", ge=1)


class ReviewOptions(Options, section="review", panel="List"):
    """Which captions a review lists."""

    limit: int = option(20, "Captions to list, the least certain first; 0: all.", ge=0)
    flagged: bool = option(False, "List only captions with a flag.")
    same: int = option(3, "A caption on this many images is flagged as the same; 0: never.", ge=0)


class AppOptions(Options, section="app", panel="Page"):
    """Where the page is."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: all addresses of this machine.")
    port: int = option(8501, "Port to listen on.", ge=1, le=65535)
    open_browser: bool = option(False, "Open the page in this machine's browser.")
    languages: tuple[Language, ...] = option((), "Languages to choose from, such as de, fr, es.")
    max_upload_mb: int = option(50, "Largest accepted image, in MB.", ge=1)


class CapFiltOptions(Options, section="capfilt", panel="Filter"):
    """What texts stay."""

    keep_above: float = option(
        0.5, "Lowest probability of a kept text that it is true of its image; a CLIP has none.", ge=0, le=1
    )
    keep_cosine: float | None = option(
        None,
        "Lowest cosine of the vectors of a kept text and its image; a matcher that is a CLIP needs it.",
        ge=-1,
        le=1,
    )
