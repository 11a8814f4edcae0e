"""The verbs: what each is, which options it takes, and where its function is. Loads nothing but names."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

START, WORK, LOOK = "Start here", "The main job", "Look back"
NO_MORE_PRINTED = "Captions printed so far stand."
NOT_WRITTEN = "Nothing was written."
_CAPTIONING = ("GenerationOptions", "TranslationOptions", "DeviceOptions", "EndpointOptions")
_TRAINING = (
    "DataOptions", "ModelOptions", "TrainOptions", "EvalOptions",
    "GenerationOptions", "DeviceOptions", "OutsideOptions",
)  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """A verb as a command, a Python function and a configuration.

    `options` names the groups of options that it takes: classes of `captune.core.options`, or `module:Class`.
    `function` (`module:name`) is what `import captune` offers under the name; empty for none. `presets`: whether it
    takes `--preset`. `when_stopped` says what Ctrl-C leaves behind. `command` (`module:app`) is the command, by
    default `app` of `captune.cli.verbs.NAME`.
    """

    name: str
    panel: str
    help: str
    options: tuple[str, ...] = ()
    function: str = ""
    presets: bool = False
    when_stopped: str = "Nothing was changed."
    command: str = ""

    def load_command(self) -> Any:
        """The typer application of the command."""
        return load(self.command or f"captune.cli.verbs.{self.name}:app")


def load(target: str) -> Any:
    """What `module:name` means, or the module alone."""
    module, _, name = target.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, name) if name else loaded


class Verbs(Mapping[str, Verb]):
    """Verbs by name; other packages add theirs by entry points of the group `captune.verbs` that name a `Verb`."""

    def __init__(self, *own: Verb) -> None:
        self.own = {verb.name: verb for verb in own}
        self._all: dict[str, Verb] | None = None

    def _with_others(self) -> dict[str, Verb]:
        if self._all is None:
            from importlib.metadata import entry_points

            others = {entry.name: load(entry.value) for entry in entry_points(group="captune.verbs")}
            self._all = {**self.own, **{name: verb for name, verb in others.items() if name not in self.own}}
        return self._all

    def __getitem__(self, name: str) -> Verb:
        return self.own[name] if name in self.own else self._with_others()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._with_others())

    def __len__(self) -> int:
        return len(self._with_others())


# Name, panel and help; options and function; what Ctrl-C leaves.
# fmt: off
VERBS = Verbs(
    Verb("demo", START, "All steps on built-in scenes: no network, no downloads, about three minutes.",
         function="captune.api.demo:demo",
         when_stopped="What is finished stays in the demo's folder; the same command goes on with it."),
    Verb("doctor", START, "Check Python, packages, devices, disk, a model and the logins.",
         function="captune.api.doctor:doctor"),
    Verb("prepare", WORK, "Turn a dataset into verified splits.",
         ("PrepareOptions", "OutsideOptions"), "captune.datasets.prepare:prepare",
         when_stopped="No split was written; run the same command to start over."),
    Verb("train", WORK, "Fine-tune a model, or train one from scratch.",
         _TRAINING, "captune.training.train:train", presets=True,
         when_stopped="Whole checkpoints are kept; the same command with --resume goes on from the last."),
    Verb("tune", WORK, "Search for good training options.",
         (*_TRAINING, "TuneOptions"), "captune.training.tune:tune", presets=True,
         when_stopped="Finished trials are kept; the same command goes on with the search."),
    Verb("learn", WORK, "Teach a model what people corrected in a library, and test it against what it was.",
         (*_TRAINING, "MeasureOptions", "LibraryOptions"), "captune.library.learn:learn", presets=True,
         when_stopped="Whole checkpoints are kept; the same command goes on with the round."),
    Verb("evaluate", WORK, "Caption a split and score it; several models side by side.",
         ("EvalOptions", "MeasureOptions", "GenerationOptions", "DeviceOptions", "EndpointOptions", "OutsideOptions"),
         "captune.evaluation.evaluate:evaluate", presets=True,
         when_stopped="Reports that were finished are kept; run the same command to measure again."),
    Verb("score", WORK, "Score captions of other programs against references.",
         ("ScoreOptions", "MeasureOptions", "OutsideOptions"), "captune.evaluation.score:score", presets=True),
    Verb("caption", WORK, "Caption images, folders of images, or a list on stdin.",
         ("CaptionOptions", "JobOptions", "PromptOptions", "WordingOptions", "StructureOptions", *_CAPTIONING,
          "TableOptions"),
         "captune.api.caption:caption",
         when_stopped=f"{NO_MORE_PRINTED[:-1]}; a job in a folder or a file goes on with the same command."),
    Verb("video", WORK, "Caption the scenes of films: times, JSON, subtitles.",
         ("VideoOptions", *_CAPTIONING), "captune.video.video:video",
         when_stopped=NO_MORE_PRINTED),
    Verb("webcam", WORK, "Caption the images of a camera, every few seconds.",
         ("WebcamOptions", *_CAPTIONING), "captune.video.webcam:webcam",
         when_stopped=NO_MORE_PRINTED),
    Verb("alt", WORK, "Find images without alternative text in HTML and Markdown, and write texts as a patch.",
         ("AltOptions", *_CAPTIONING), "captune.api.alt:alt", when_stopped=NOT_WRITTEN),
    Verb("inspect", WORK, "Show every step of one caption: pixels, tokens, probabilities, time.",
         ("GenerationOptions", "DeviceOptions"), "captune.inference.inspect:inspect"),
    Verb("review", WORK, "List the captions that are most likely wrong, from files of captune caption.",
         ("ReviewOptions", "TableOptions"), "captune.evaluation.review:review"),
    Verb("match", WORK, "How well texts fit images; the best images for a text, the best texts for an image.",
         ("MatchOptions", "WhereOptions", "TableOptions"), "captune.inference.match:match"),
    Verb("tag", WORK, "Keywords of images: labels that a matcher finds in them, or that captions mention.",
         ("TagOptions", "GenerationOptions", "DeviceOptions", "EndpointOptions"), "captune.api.tag:tag",
         when_stopped="Keywords written so far stand; the same command begins again."),
    Verb("ask", WORK, "Ask a question about images.",
         _CAPTIONING, "captune.api.caption:ask"),
    Verb("embed", WORK, "Vectors of images, in the space that texts share.",
         ("WhereOptions",), "captune.inference.match:embed"),
    Verb("capfilt", WORK, "Clean noisy image-text pairs: a captioner writes, a matcher filters.",
         ("CapFiltOptions", "GenerationOptions", "DeviceOptions", "EndpointOptions", "OutsideOptions"),
         "captune.api.capfilt:capfilt",
         when_stopped="Nothing was kept."),
    Verb("serve", WORK, "Caption images over HTTP: REST, and the APIs of OpenAI and Ollama.",
         ("ServeOptions", "WordingOptions", *_CAPTIONING),
         when_stopped="Nothing was being served."),
    Verb("app", WORK, "A page in the browser that captions images.",
         ("AppOptions", "TranslationOptions", "DeviceOptions", "EndpointOptions"), when_stopped="The page is closed."),
    Verb("export", WORK, "Write a model as ONNX or OpenVINO files that caption without torch.",
         ("ExportOptions", "OutsideOptions"), "captune.export.export:export", when_stopped=NOT_WRITTEN),
    Verb("convert", WORK, "Make a model folder from a weights file (weights.pt).",
         function="captune.export.convert:convert", when_stopped=NOT_WRITTEN),
    Verb("push", WORK, "Upload a model to the Hugging Face Hub with a model card.",
         ("PushOptions",), "captune.export.push:push", when_stopped="Nothing was published."),
    Verb("report", LOOK, "Page, Markdown and figures of an evaluation.",
         ("ReportOptions", "OutsideOptions"), "captune.evaluation.report:report"),
    Verb("compare", LOOK, "Evaluated runs side by side, with paired tests.",
         ("MeasureOptions",), "captune.evaluation.compare:compare", presets=True),
    Verb("search", LOOK, "Find images of a library by words, keywords, dates, flags.",
         ("SearchOptions", "FilterOptions", "LibraryOptions", "WhereOptions"), "captune.library.library:search"),
    Verb("edit", LOOK, "A page on which people correct the captions of a library.",
         ("EditOptions", "LibraryOptions", "TableOptions", *_CAPTIONING), when_stopped="All that was saved stands."),
    Verb("library", LOOK, "A folder of images with a memory: images, captions, keywords."),
    Verb("runs", LOOK, "List, show and compare training runs.",
         function="captune.training.runs"),
    Verb("models", LOOK, "Model families that captune knows."),
)
# fmt: on
# `captune library caption`.
CAPTION_LIBRARY = Verb(
    "caption",
    LOOK,
    "A model captions images of a library: drafts.",
    ("DraftFilterOptions", "DraftOptions", "PromptOptions", "WordingOptions", *_CAPTIONING),
    when_stopped="Drafts so far stand; the same command goes on.",
)
# `captune library write`.
WRITE_LIBRARY = Verb(
    "write",
    LOOK,
    "Captions of a library into or beside its images.",
    ("WriteOptions", "FilterOptions"),
    when_stopped="What was written stands; the same command goes on.",
)
# `captune library export`.
EXPORT_LIBRARY = Verb(
    "export",
    LOOK,
    "A library, or its captions for other trainers, as a file.",
    ("TableFormatOptions", "FilterOptions"),
    when_stopped=NOT_WRITTEN,
)
