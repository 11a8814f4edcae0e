"""Caption metrics against pycocoevalcap on the same captions, in turn, in one process.

    python benchmarks/bench_metrics.py [--images 5000] [--repeats 3]

The other side needs Java and `pip install 'captune[meteor]'`. Times are CPU seconds with
Java's; what ours remembers of words is forgotten before each of its runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import Bench
from captune.metrics import METRICS, ptb_tokenizer
from captune.metrics.corpus import Corpus
from captune.metrics.measure import measure
from captune.metrics.reward import CiderReward
from captune.metrics.significance import compare
from coco_captions import coco_scores, coco_tokens, flickr8k, systems
from machine import Paired, paired, wall_seconds


def main() -> None:
    bench = Bench("metrics", __doc__, "pycocoevalcap", ("captune", "numpy", "pycocoevalcap"), repeats=3)
    bench.parser.add_argument("--images", type=int, default=5000)
    asked = bench.begin()
    hypotheses, references = systems(flickr8k(asked.images))["the next image"]
    print(f"{len(hypotheses)} images, {sum(map(len, references.values()))} references, one core, CPU seconds\n")
    theirs = coco_tokens({k: [h] for k, h in hypotheses.items()}), coco_tokens(references)

    def fresh() -> Corpus:
        return Corpus(tuple(hypotheses), tuple(hypotheses.values()), tuple(map(tuple, references.values())))

    def tokenised() -> Corpus:
        ptb_tokenizer._plain.cache_clear()
        corpus = fresh()
        corpus.tokens  # noqa: B018 - a cached property
        return corpus

    def whole(corpus: Corpus) -> None:
        for name in ("bleu", "rouge_l", "cider"):
            METRICS[name](corpus)

    def coco_whole() -> None:
        tokens = coco_tokens({k: [h] for k, h in hypotheses.items()}), coco_tokens(references)
        coco_scores(*tokens, meteor=False)

    ready = tokenised()
    bench.row("tokens, BLEU, ROUGE-L, CIDEr-D", paired(coco_whole, lambda: whole(tokenised()), asked.repeats))
    bench.row(
        "BLEU, ROUGE-L, CIDEr-D on tokens",
        paired(lambda: coco_scores(*theirs, meteor=False), lambda: whole(again(ready)), asked.repeats),
    )
    bench.row(
        "METEOR on tokens", paired(lambda: coco_meteor(*theirs), lambda: METRICS["meteor"](again(ready)), asked.repeats)
    )
    bench.row("reward of 320 captions", rewarded(references, asked.repeats))
    first = measure(hypotheses, references, resamples=0)
    second = measure({k: group[0] for k, group in references.items()}, references, resamples=0)
    seconds = min(wall_seconds(lambda: compare(first, second)) for _ in range(3))
    print(f"\n1,000 paired resamples of {', '.join(compare(first, second, 10))}: {seconds:.2f} s")
    bench.end()


def again(corpus: Corpus) -> Corpus:
    """The same corpus with its tokens, but without n-gram counts."""
    copy = Corpus(corpus.ids, corpus.hypotheses, corpus.references)
    copy.__dict__.update(sentences=corpus.sentences, tokens=corpus.tokens)
    return copy


def coco_meteor(hypotheses: Any, references: Any) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    scorer.compute_score(references, hypotheses)
    del scorer  # ends Java, whose time then counts


def rewarded(references: dict[str, list[str]], repeats: int) -> Paired:
    """One step of self-critical training: 5 sampled captions for each of 64 images, CIDEr-D with known frequencies.

    The other side counts document frequencies among the step's own references, which is less work than ours saves.
    """
    from pycocoevalcap.cider.cider import Cider

    chance = np.random.default_rng(0)
    keys = list(references)[:64]
    tokens = coco_tokens({key: references[key] for key in keys})
    sampled = [tokens[keys[chance.integers(64)]][0] for _ in range(320)]
    images = np.repeat(np.arange(64), 5)
    reward = CiderReward({key: tokens[key] for key in keys})
    gts = {n: tokens[keys[image]] for n, image in enumerate(images)}
    res = {n: [caption] for n, caption in enumerate(sampled)}

    def many(way: Any) -> Any:
        return lambda: [way() for _ in range(10)]  # CPU clocks are coarse

    return paired(
        many(lambda: Cider().compute_score(gts, res)),
        many(lambda: reward(sampled, [keys[image] for image in images])),
        repeats,
    )


if __name__ == "__main__":
    main()
