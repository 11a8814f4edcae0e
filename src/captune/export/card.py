"""The model card: what the Hub shows of a model, filled from its run, with code that captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from captune.core.model_names import hub_name
from captune.core.options import GenerationOptions
from captune.decoding.encoding import prompt_for
from captune.decoding.generate import normalized, transformers_kwargs
from captune.metrics import SPECS
from captune.models import FAMILIES

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

# What `generate` does by itself, in every version.
_PLAIN = {
    "min_new_tokens": None, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_return_sequences": 1,
    "do_sample": False, "length_penalty": 1.0, "early_stopping": False, "top_p": 1.0, "temperature": 1.0,
}  # fmt: skip


def card_code(family: str, repo: str, *, prompt: str, generation: Mapping[str, Any], encoder: bool) -> str:
    """Lines of Python that print the caption of photo.jpg; empty for a family that is not known here.

    `generation` are the options of the search (those that differ from the defaults are enough); with `encoder`, the
    language model of a BLIP-2 reads the prompt with an encoder.
    """
    options = normalized(GenerationOptions(**generation))
    chosen = transformers_kwargs(options, options.temperature)
    search = ", ".join(f"{name}={value!r}" for name, value in chosen.items() if value != _PLAIN.get(name, "none"))
    return _family(family).transformers_code(repo, prompt_for(prompt, ""), search, encoder=encoder)


def _family(name: str) -> type[Backbone]:
    """A model family; for one that is not installed, what holds for any."""
    if name in FAMILIES:
        return FAMILIES[name]
    from captune.models.backbone import Backbone

    return Backbone


# Versions of transformers with which tools/open-with opened folders of every family and found captune's captions.
OPENED_WITH = ("4.46.3", "4.57.6", "5.23.0")
# What a table of scores shows, in this order; × 100 but for those that have no upper end.
SHOWN = {
    name: SPECS[name].label
    for name in ("bleu_1", "bleu_4", "meteor", "rouge_l", "vqa_accuracy", "cider", "spice", "clip_score")
}
SHOWN["perplexity"] = "perplexity"


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of; what is empty is left out of it.

    `scores` and `intervals` are 0–1 (CIDEr-D and perplexity as they are); `samples` are
    (references, caption) of held-out images.
    """

    repo: str
    family: str
    base_model: str = ""
    license: str = ""
    data: str = ""
    data_license: str = ""
    language: str = "en"
    parameters: int = 0
    trained_parameters: int = 0
    epochs: float = 0.0
    steps: int = 0
    checkpoint: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""
    images: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    samples: Sequence[tuple[Sequence[str], str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    # Options of the search that was measured, else of the one the model was saved with.
    generation: Mapping[str, Any] = field(default_factory=dict)
    precision: str = ""
    # Of a BLIP-2: whether its language model reads the prompt with an encoder.
    encoder: bool = False


def card(facts: CardFacts) -> str:
    """README.md with its YAML head."""
    sections = [
        _head(facts),
        f"# {facts.repo.rpartition('/')[2]}",
        _about(facts),
        "## Use",
        _use(facts),
        *_measured(facts),
        *_training(facts),
        *_samples(facts),
        "## Limits",
        "It says what the captions it learned from say: names, text in images, exact counts and other languages are "
        "not to be expected, and prejudices of its training data are. Captions that matter to somebody should be read "
        "by a person first.",
        f"Made with captune {facts.versions.get('captune', '')}.".replace(" .", "."),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(facts: CardFacts) -> str:
    base, _ = hub_name(facts.base_model)
    known = {
        "license": facts.license,
        "base_model": base if base.count("/") == 1 else "",
        "library_name": "transformers",
        "pipeline_tag": _family(facts.family).task.tag,
        "language": facts.language,
        "tags": ["image-captioning", "captune", facts.family],
        "model-index": _index(facts),
    }
    return f"---\n{yaml.safe_dump({k: v for k, v in known.items() if v}, sort_keys=False, allow_unicode=True)}---"


def _index(facts: CardFacts) -> list[dict[str, Any]]:
    if not facts.scores:
        return []
    metrics = [
        {"type": name, "name": SHOWN[name], "value": round(float(facts.scores[name]), 4)}
        for name in SHOWN
        if name in facts.scores
    ]
    task = {"type": _family(facts.family).task.tag, "name": _family(facts.family).task.name}
    data = {"type": facts.data or "own", "name": facts.data or "own data", "split": facts.split}
    return [{"name": facts.repo.rpartition("/")[2], "results": [{"task": task, "dataset": data, "metrics": metrics}]}]


def _about(facts: CardFacts) -> str:
    base = f"`{facts.base_model}`" if facts.base_model else "a model of this family"
    grown = "trained from scratch" if facts.base_model.startswith("new:") else f"fine-tuned from {base}"
    lines = [
        f"{_family(facts.family).task.about} ({facts.family}), {grown}" + (f" on {facts.data}." if facts.data else ".")
    ]
    if facts.prompt:
        lines.append(f"It was trained behind the words “{facts.prompt}”, which the code below gives it.")
    unknown = "not stated here; those of the base model and of the data apply"
    lines.append(f"Licence: {facts.license or unknown}. Licence of the training data: {facts.data_license or unknown}.")
    return " ".join(lines)


def _use(facts: CardFacts) -> str:
    plain = card_code(facts.family, facts.repo, prompt=facts.prompt, generation=facts.generation, encoder=facts.encoder)
    shown = [f"```python\n{plain}\n```"] if plain else []
    if shown:
        shown.append(
            f"Tested with transformers {', '.join(OPENED_WITH)}; other versions may read the folder differently."
        )
    load = _family(facts.family).task.captune_code.format(repo=facts.repo)
    shown.append(
        "With [captune](https://github.com/captune/captune), folders, tables and confidence as well:\n\n"
        f"```python\nimport captune\n\nprint({load})\n```"
    )
    return "\n\n".join(shown)


def _measured(facts: CardFacts) -> list[str]:
    if not facts.scores:
        return []
    rows = ["| metric | score | 95 % interval |", "| --- | ---: | ---: |"]
    for name, label in SHOWN.items():
        if name not in facts.scores:
            continue
        times = SPECS[name].scale
        low_high = facts.intervals.get(name)
        between = " – ".join(f"{times * float(end):.1f}" for end in low_high) if low_high else ""
        rows.append(f"| {label} | {times * facts.scores[name]:.1f} | {between} |")
    rounded = facts.precision not in ("", "fp32", "float32")
    about = f"On {facts.images:,} images of the split `{facts.split}`" + (f" of {facts.data}" if facts.data else "")
    return [
        "## Scores",
        f"{about}; × 100, but for perplexity. The head of this file holds them as 0–1."
        + (f" Captioned in {facts.precision}; in fp32, as above, some captions differ." if rounded else ""),
        "\n".join(rows),
    ]


def _training(facts: CardFacts) -> list[str]:
    if not facts.steps:
        return []
    text = f"{facts.epochs:g} epochs, {facts.steps:,} steps; this is {facts.checkpoint}."
    if facts.parameters:
        text += f" {facts.trained_parameters:,} of {facts.parameters:,} parameters learned."
    options = json.dumps(facts.options, indent=2, ensure_ascii=False, default=str)
    return ["## Training", text, f"<details><summary>Settings</summary>\n\n```json\n{options}\n```\n\n</details>"]


def _samples(facts: CardFacts) -> list[str]:
    if not facts.samples:
        return []
    rows = ["| people wrote | the model says |", "| --- | --- |"]
    rows += [
        f"| {' · '.join(_cell(r) for r in references)} | {_cell(caption)} |" for references, caption in facts.samples
    ]
    return ["## Samples", "The first held-out images, not chosen ones.", "\n".join(rows)]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
