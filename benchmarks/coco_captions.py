"""Real captions for benchmarks, systems made of them, and the COCO caption code to hold ours against."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("CAPTUNE_TEST_DATA", Path(__file__).parents[2] / "shared/data"))
Hypotheses = dict[str, str]
References = dict[str, list[str]]


def flickr8k(images: int = 0) -> References:
    """References of the first `images` Flickr8k images (0: all); ends the program where they are absent."""
    path = DATA / "flickr8k/captions.txt"
    if not path.is_file():
        sys.exit(f"There is no {path}: set CAPTUNE_TEST_DATA to a folder with flickr8k/captions.txt.")
    found: References = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["image"], []).append(row["caption"])
    return dict(list(found.items())[: images or None])


def coco() -> References:
    """References of the COCO images at hand."""
    told = json.loads((DATA / "coco/captions_val2017_60.json").read_text(encoding="utf-8"))
    found: References = {}
    for annotation in told["annotations"]:
        found.setdefault(str(annotation["image_id"]), []).append(annotation["caption"])
    return found


def systems(references: Mapping[str, Sequence[str]]) -> dict[str, tuple[Hypotheses, References]]:
    """Three very different captioners: a person, one who looks at the next image, and one who garbles."""
    ids = list(references)
    person = {i: references[i][0] for i in ids}, {i: list(references[i][1:]) or list(references[i]) for i in ids}
    next_picture = {i: references[ids[(n + 1) % len(ids)]][0] for n, i in enumerate(ids)}
    garbled = {i: _garbled(references[i], random.Random(i)) for i in ids}
    everything = {i: list(references[i]) for i in ids}
    return {"a person": person, "the next image": (next_picture, everything), "garbled": (garbled, everything)}


def _garbled(references: Sequence[str], chance: random.Random) -> str:
    """Words of two references: some dropped, some said twice, some out of place."""
    words = chance.choice(references).split() + chance.choice(references).split()[:4]
    words = [word for word in words if chance.random() > 0.2]
    for _ in range(2):
        if len(words) > 1:
            words.insert(chance.randrange(len(words)), words.pop(chance.randrange(len(words))))
    return " ".join(words + words[: chance.choice((0, 0, 0, 3))])


def coco_tokens(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Tokens by pycocoevalcap's PTBTokenizer (Java)."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({key: [{"caption": text} for text in group] for key, group in captions.items()})


def coco_scores(
    hypotheses: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]], *, meteor: bool = True
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Corpus and per-image scores by pycocoevalcap, of tokens, keyed as captune's."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scorers: list[tuple[Any, list[str]]] = [
        (Bleu(4), ["bleu_1", "bleu_2", "bleu_3", "bleu_4"]),
        (Rouge(), ["rouge_l"]),
        (Cider(), ["cider"]),
    ]
    if meteor:
        from pycocoevalcap.meteor.meteor import Meteor

        scorers.append((Meteor(), ["meteor"]))
    whole: dict[str, float] = {}
    each: dict[str, dict[str, float]] = {key: {} for key in references}
    for scorer, names in scorers:
        with contextlib.redirect_stdout(io.StringIO()):
            corpus, images = scorer.compute_score(references, hypotheses)
        if len(names) == 1:
            corpus, images = [corpus], [images]
        for name, score, values in zip(names, corpus, images, strict=True):
            whole[name] = float(score)
            for key, value in zip(references, values, strict=True):
                each[key][name] = float(value)
    return whole, each
