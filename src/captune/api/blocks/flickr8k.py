"""The ten blocks from Flickr8k to a captioner, and the demo of the notebook."""

from __future__ import annotations

import html
import io
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.api.blocks.pipeline import SCENES, Block, Cfg, Ctx, Result, Settings, block, read_settings
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError, missing_extra
from captune.core.files import read_json, write_json
from captune.core.model_names import is_new
from captune.core.options import DeviceOptions, GenerationOptions
from captune.core.options.verbs import Config
from captune.core.records import ImageRecord
from captune.core.runs import CONFIG, EVAL, TRAIN_METRICS, Run
from captune.datasets.prepared import SPLITS, read_prepared, read_split

if TYPE_CHECKING:
    from captune.core.records import Caption
    from captune.inference.captioner import Captioner
    from captune.models.backbone import Backbone


PREPARED = "prepared.json"


@block("01_setup_env")
def setup_env(cfg: Cfg, ctx: Ctx) -> Result:
    """`device`, `versions`; the whole `cfg` is checked here."""
    run_on = _train_config(read_settings(cfg)).run_on
    from captune.core.machine import versions
    from captune.models.loading.devices import choose_device

    return {"device": str(choose_device(run_on.device)), "versions": versions()}


@block("02_download_flickr8k")
def download_flickr8k(cfg: Cfg, ctx: Ctx) -> Result:
    """`folder`: where images and captions are, downloaded or drawn if they were not."""
    from captune.datasets.downloads import DOWNLOADS, download

    settings = read_settings(cfg)
    if settings.source == SCENES:
        from captune.datasets.scenes import write_flickr8k_folder

        drawn = write_flickr8k_folder(settings.work / SCENES, **settings.drawn, progress=settings.progress)
        return {"folder": str(drawn.path)}
    if settings.source in DOWNLOADS:
        return {"folder": str(download(settings.source, Path(settings.source), settings.progress))}
    return {"folder": settings.source}


def _prepared_before(cfg: Cfg) -> Result | None:
    settings = read_settings(cfg)
    mark = settings.work / PREPARED
    if not (mark.is_file() and (settings.data / SPLITS).is_file()):
        return None
    prepared = read_prepared(settings.data)
    if read_json(mark) != {"asked": _prepare_request(settings), "digest": prepared.digest}:
        return None
    counts = {name: asdict(count) for name, count in prepared.splits.items()}
    return {"folder": str(settings.data), "splits": prepared.summary, "counts": counts, "digest": prepared.digest}


@block("03_prepare_data", needs=["02_download_flickr8k"], recall=_prepared_before)
def prepare_data(cfg: Cfg, ctx: Ctx) -> Result:
    """`folder`, `splits` (what `splits.json` says), `counts` of each split, `digest`."""
    from captune.datasets.prepare import prepare

    settings = read_settings(cfg)
    source = ctx["02_download_flickr8k"]["folder"]
    made = prepare(source, settings.data, progress=settings.progress, **settings.prepare_options())
    write_json(settings.work / PREPARED, {"asked": _prepare_request(settings), "digest": made.digest})
    for note in made.notes:
        settings.progress.info(note)
    result = _prepared_before(cfg)
    assert result is not None, "what was just prepared as requested is there"
    return result


@block("04_load_datasets", needs=["03_prepare_data"], also=["04_load_ds"])
def load_datasets(cfg: Cfg, ctx: Ctx) -> Result:
    """Lists of `ImageRecord` by the name of the split: `train`, `val`, `test`."""
    prepared = read_prepared(ctx["03_prepare_data"]["folder"])
    return {name: read_split(prepared.folder, name) for name in prepared.splits}


@block("05_build_processor_and_collator", needs=["04_load_datasets"], also=["05_build_proc_collator"])
def build_processor_and_collator(cfg: Cfg, ctx: Ctx) -> Result:
    """`tokenizer`, `pixels` (size, mean, std), `processor`, `encode` and `collate`.

    `processor(image)` gives the pixels (3, size, size) of 0–255, which the model normalises itself, `encode(record)`
    pixels and tokens of all its references, `collate([encode(record), ...])` a training batch.
    """
    from captune.images.batches import read_pixels
    from captune.inference.batches import clean_reference, collate
    from captune.inference.prompting import prompts_of_records

    data = _train_config(read_settings(cfg)).data
    backbone = _backbone(cfg, ctx)
    backbone.model.to("meta")  # ctx lives as long as the notebook; the weights need not

    def processor(image: Any) -> Any:
        return read_pixels(image, backbone.pixels)

    def encode(record: ImageRecord) -> tuple[Any, list[Any]]:
        texts = [clean_reference(r) for r in record.references] if data.clean_captions else record.references
        (prompt,) = prompts_of_records(backbone, [record])
        encoded = [backbone.encode_reference(text, data.max_caption_tokens, prompt=prompt) for text in texts]
        return processor(record.image), encoded

    return {
        "tokenizer": backbone.tokenizer,
        "pixels": backbone.pixels,
        "processor": processor,
        "encode": encode,
        "collate": lambda encoded: collate(encoded, backbone.pad_token_id),
    }


@block("06_build_model", needs=["04_load_datasets"])
def build_model(cfg: Cfg, ctx: Ctx) -> Result:
    """What training begins with.

    `model`, `family`, `precision`, `parameters`, `trained_parameters`, and both for each part.
    """
    from captune.models.loading.devices import choose_device, choose_precision

    backbone = _backbone(cfg, ctx)
    run_on = _train_config(read_settings(cfg)).run_on
    device, width = choose_device(run_on.device), backbone.vision_hidden_size
    precision = choose_precision(run_on.precision, device, width, training=True)
    parts = {
        name: {"parameters": sum(p.numel() for p in part), "trained": sum(p.numel() for p in part if p.requires_grad)}
        for name, part in backbone.parts().items()
    }
    return {
        "model": read_settings(cfg).model,
        "family": backbone.family,
        "precision": str(precision).removeprefix("torch."),
        "parameters": sum(part["parameters"] for part in parts.values()),
        "trained_parameters": sum(part["trained"] for part in parts.values()),
        "parts": parts,
    }


def _trained_before(cfg: Cfg) -> Result | None:
    settings = read_settings(cfg)
    run = Run(settings.run_folder)
    if not Run.is_run(run.path):
        return None
    _check_same(run, settings)
    if not run.manifest()["finished"]:
        return None
    return _trained(run.path, run.checkpoint().path)


@block("07_train", needs=["03_prepare_data"], recall=_trained_before)
def train_model(cfg: Cfg, ctx: Ctx) -> Result:
    """`run`, `best` (its best checkpoint), `metrics` in short; a run that was stopped goes on where it was."""
    from captune.training.resuming import FREE_TO_CHANGE
    from captune.training.train import train

    settings = read_settings(cfg)
    options = settings.of("train")
    if Run.is_run(settings.run_folder):  # it has the same settings, else `recall` had raised
        free = {name: value for name, value in options.items() if name in FREE_TO_CHANGE}
        result = train(out=settings.run_folder, resume=True, progress=settings.progress, **free)
    else:
        result = train(
            ctx["03_prepare_data"]["folder"],
            settings.model,
            settings.run_folder,
            preset=settings.preset,
            progress=settings.progress,
            **options,
        )
    return _trained(result.run, result.best)


@block("08_eval_bleu", needs=["03_prepare_data", "07_train"])
def eval_bleu(cfg: Cfg, ctx: Ctx) -> Result:
    """Scores of the model before (`base`) and after (`tuned`), `difference`, `images`, and the `file` they are in.

    `BLEU_base`, `BLEU_finetuned` and their `delta` are sacrebleu's, 0–100; None where that was not measured.
    """
    from captune.evaluation.evaluate import evaluate

    settings = read_settings(cfg)
    tuned = ctx["07_train"]["run"]
    measured = evaluate(
        tuned,
        ctx["03_prepare_data"]["folder"],
        split=settings.eval_split,
        against=settings.base,
        preset=settings.preset,
        progress=settings.progress,
        **settings.of("evaluate"),
    )
    report = measured.reports[tuned]
    bleu = [scores.get("sacrebleu") for scores in (measured.reports[settings.base].scores, report.scores)]
    before, after = (None if score is None else 100 * score for score in bleu)
    return {
        "BLEU_base": before,
        "BLEU_finetuned": after,
        "delta": None if before is None or after is None else after - before,
        "base": measured.reports[settings.base].scores,
        "tuned": report.scores,
        "difference": measured.differences().get(settings.base, {}),
        "images": report.images,
        "references": report.references,
        "models": {"base": settings.base, "tuned": tuned},
        "captions": {
            name: {id: caption.text for id, caption in measured.captions[model].items()}
            for name, model in (("base", settings.base), ("tuned", tuned))
        },
        "file": str(Path(tuned) / EVAL),
    }


@block("09_infer_core", needs=["07_train"])
def infer_core(cfg: Cfg, ctx: Ctx) -> Result:
    """`caption_image_core(image, **generation)` gives the caption as text; `captioner` is what it calls."""
    from captune.inference.captioner import Captioner

    options = read_settings(cfg).of("train")
    own = {**GenerationOptions.model_fields, **DeviceOptions.model_fields}
    captioner = Captioner.load(ctx["07_train"]["run"], **{name: options[name] for name in own if name in options})

    def caption_image_core(image: Any, **generation: Any) -> str:
        """The caption of a path, bytes or a PIL image; options as those of `captune caption`."""
        return captioner(image, **generation).text

    return {"caption_image_core": caption_image_core, "captioner": captioner}


@block("10_demo_widgets", needs=["09_infer_core"])
def demo_widgets(cfg: Cfg, ctx: Ctx) -> Result:
    """`widget` to caption an image and see its attention maps, with its `parts`; None without ipywidgets."""
    try:
        return build_demo(ctx["09_infer_core"]["captioner"])
    except CaptuneError as error:
        read_settings(cfg).progress.warn(str(error))
        return {"widget": None, "note": str(error)}


PIPELINE: tuple[Block, ...] = (
    setup_env,
    download_flickr8k,
    prepare_data,
    load_datasets,
    build_processor_and_collator,
    build_model,
    train_model,
    eval_bleu,
    infer_core,
    demo_widgets,
)
"""The ten blocks in order."""


def _prepare_request(settings: Settings) -> dict[str, Any]:
    scenes = settings.drawn if settings.source == SCENES else None
    return {"source": settings.source, "scenes": scenes, "options": json.loads(json.dumps(settings.prepare_options()))}


def _train_config(settings: Settings) -> Config:
    return resolve("train", preset=settings.preset, flags=settings.of("train"), environment=os.environ).values


def _backbone(cfg: Cfg, ctx: Ctx) -> Backbone:
    from captune.training.build import build_backbone

    settings, splits = read_settings(cfg), ctx["04_load_datasets"]
    if "train" not in splits:
        raise CaptuneError(f"The data has no split 'train'; it has {', '.join(splits)}.", "See cfg['split'].")
    return build_backbone(settings.model, splits["train"], _train_config(settings), new=is_new(settings.model))


def _trained(run: Path, best: Path) -> Result:
    """What a finished run comes to in `ctx`: its figures without the tables that `train_metrics.json` has as well."""
    metrics = read_json(run / TRAIN_METRICS)
    short = {name: value for name, value in metrics.items() if not isinstance(value, dict | list)}
    perplexity = short.get("eval_perplexity")
    if perplexity is None and short.get("eval_loss") is not None:
        perplexity = math.exp(short["eval_loss"])
    named = {"final_train_loss": short.get("train_loss"), "perplexity": perplexity}
    return {"run": str(run), "best": str(best), "metrics": {**named, **short}}


def _check_same(run: Run, settings: Settings) -> None:
    """Raise `UsageError` where the run in the work folder is not the training that `cfg` asks for."""
    from captune.training.resuming import FREE_TO_CHANGE

    manifest = run.manifest()
    began = resolve("train", file=run.path / CONFIG).values.model_dump()
    requested = _train_config(settings).model_dump()
    differing = [
        f"{name} {began[section][name]} → {value}"
        for section, options in requested.items()
        if section not in ("eval", "generation")  # how captions are searched and measured does not shape weights
        for name, value in options.items()
        if name not in FREE_TO_CHANGE and began[section][name] != value
        if (name, value) != ("best_metric", "auto")  # a run holds what that stood for
    ]
    if manifest["model"] != settings.model:
        differing.append(f"model {manifest['model']} → {settings.model}")
    if (settings.data / SPLITS).is_file() and read_prepared(settings.data).digest != manifest["data_digest"]:
        differing.append(f"other data in {settings.data}")
    if differing:
        raise UsageError(
            f"The run {run.path} was trained with other settings: {'; '.join(differing)}.",
            f"For another training give it a name of its own, cfg['run'] = '{run.path.name}-2', "
            "or delete the folder; otherwise set the settings back.",
        )


DEFAULTS = GenerationOptions()
SMALL = "384px"


def build_demo(captioner: Captioner) -> dict[str, Any]:
    """An ipywidgets box around a captioner.

    Returns `widget`, the box, and `parts`: `upload`, `beams`, `length`, `looked` (show what the
    model attends to for each word), `button`, `picture` and `output`, for driving it from code. Raises
    `CaptuneError` where ipywidgets is not installed.
    """
    try:
        import ipywidgets
    except ImportError:
        raise missing_extra("ipywidgets", "notebook", "The demo in the notebook") from None
    parts: dict[str, Any] = {
        "upload": ipywidgets.FileUpload(accept="image/*", multiple=False, description="Picture"),
        "beams": ipywidgets.IntSlider(DEFAULTS.num_beams, 1, 10, description="Beams"),
        "length": ipywidgets.IntSlider(24, 1, 60, description="Longest"),
        "looked": ipywidgets.Checkbox(False, description="Show where the model looked"),
        "button": ipywidgets.Button(description="Caption", button_style="primary"),
        "picture": ipywidgets.Image(layout={"max_width": SMALL, "display": "none"}),
        "output": ipywidgets.HTML(),
    }

    def show(_: object) -> None:
        chosen = parts["upload"].value
        if not chosen:
            parts["output"].value = "Choose an image first."
            return
        content = bytes(chosen[0]["content"])
        parts["output"].value = "…"
        try:
            options = {"num_beams": parts["beams"].value, "max_new_tokens": parts["length"].value}
            caption = captioner(content, **options)
            shown = _sheet(captioner, content, caption, options) if parts["looked"].value else content
        except CaptuneError as error:
            parts["picture"].layout.display = "none"
            parts["output"].value = html.escape(str(error))
            return
        parts["picture"].value = shown
        parts["picture"].layout.max_width = "100%" if parts["looked"].value else SMALL
        parts["picture"].layout.display = ""
        parts["output"].value = f"<b>{html.escape(caption.text)}</b> {caption.confidence:.0%} confidence"

    parts["button"].on_click(show)
    parts["upload"].observe(show, names="value")
    parts["looked"].observe(show, names="value")
    return {"widget": ipywidgets.VBox(list(parts.values())), "parts": parts}


def _sheet(captioner: Captioner, content: bytes, caption: Caption, options: dict[str, Any]) -> bytes:
    """The attention maps of a caption as PNG."""
    file = io.BytesIO()
    captioner.explain(content, caption, **options).overlay().save(file, "PNG")
    return file.getvalue()
