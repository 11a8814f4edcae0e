"""captune's scores against pycocoevalcap's, image by image. Needs Java and `pip install 'captune[meteor]'`.

    python benchmarks/parity.py [--images 5000] [--strings 20000] [--seed 1]
    python benchmarks/parity.py --mixtures 24000 [--references captions.csv]

The second holds captions of other images, and halves of two captions joined, against the references given (default:
Flickr8k's): any file or folder that `captune prepare` reads. Ends with status 1 where a score or a token differs by
more than what is printed as allowed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from adversarial import strings
from captune.datasets.formats import read_source
from captune.datasets.merge import Problem
from captune.metrics.measure import measure
from captune.metrics.ptb_tokenizer import tokenize
from coco_captions import coco, coco_scores, coco_tokens, flickr8k, systems
from machine import machine, markdown

METRICS = ("bleu", "meteor", "rouge_l", "cider")
ALLOWED = 1e-9
# The Java wrapper ends a caption at these, and gives the rest to the next image.
LINE_ENDS = set("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--strings", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=10, help="Differing strings to print.")
    parser.add_argument("--mixtures", type=int, default=0, help="Measure this many mixtures of captions instead.")
    parser.add_argument("--references", help="Captions that mixtures are made of.")
    asked = parser.parse_args()
    print(machine("pycocoevalcap", "numpy"))
    if asked.mixtures:
        return mixture_parity(asked)
    references = flickr8k(asked.images)
    worst = 0.0
    rows = []
    for corpus, group in (("Flickr8k", references), ("COCO", coco())):
        for system, (hypotheses, against) in systems(group).items():
            found = differences(hypotheses, against)
            worst = max(worst, *found.values())
            rows.append((f"{corpus}: {system}", str(len(hypotheses)), *(f"{found[key]:.0e}" for key in COLUMNS)))
    print("\nLargest difference to pycocoevalcap on any image or the corpus\n")
    print(markdown(("captions", "images", *COLUMNS), rows))
    captions = [text for group in (references, coco()) for texts in group.values() for text in texts]
    real = token_differences([("real", text) for text in captions])
    print(f"\nTokens of {len(captions)} real captions: {len(real)} differ.")
    made = [(kind, text) for kind, text in strings(asked.strings, asked.seed) if not LINE_ENDS & set(text)]
    odd = token_differences(made)
    equal = 100 * (1 - len(odd) / len(made))
    print(f"Tokens of {len(made)} adversarial strings: {len(odd)} differ ({equal:.2f} % equal).")
    for kind, count in Counter(kind for kind, *_ in odd).most_common():
        print(f"  {count:4d} {kind}")
    show(odd, asked.show)
    hypotheses, against = neighbours([text for _, text in made], {row[1] for row in odd})
    found = differences(hypotheses, against, lone_tokens)
    worst = max(worst, *found.values())
    print(f"\nLargest difference on {len(hypotheses)} adversarial strings as captions, each with 3 references\n")
    print(markdown(COLUMNS, [tuple(f"{found[key]:.0e}" for key in COLUMNS)]))
    ok = worst <= ALLOWED and not real and len(odd) <= 0.001 * len(made)
    print(f"\n{'Equal' if ok else 'NOT equal'}: largest difference {worst:.1e} (allowed {ALLOWED:.0e}).")
    return 0 if ok else 1


def mixture_parity(asked: argparse.Namespace) -> int:
    """Tokens and scores of mixtures, as `main` for captions."""
    references = flickr8k() if asked.references is None else read_references(asked.references)
    hypotheses, against = mixtures(references, asked.mixtures, asked.seed)
    texts = dict.fromkeys([*hypotheses.values(), *(text for group in against.values() for text in group)])
    odd = token_differences([("mixture", text) for text in texts])
    print(f"\nTokens of {len(texts)} captions: {len(odd)} differ.")
    show(odd, asked.show)
    found = differences(hypotheses, against, lone_tokens)
    print(f"\nLargest difference on {len(hypotheses)} mixtures, each with the references of an image\n")
    print(markdown(COLUMNS, [tuple(f"{found[key]:.0e}" for key in COLUMNS)]))
    worst = max(found.values())
    ok = worst <= ALLOWED and not odd
    print(f"\n{'Equal' if ok else 'NOT equal'}: largest difference {worst:.1e} (allowed {ALLOWED:.0e}).")
    return 0 if ok else 1


def show(odd: Sequence[tuple[str, str, str, str]], most: int) -> None:
    """The shortest strings whose tokens differ."""
    for kind, text, ours, theirs in sorted(odd, key=lambda row: len(row[1]))[:most]:
        print(f"  {kind}: {text!r}\n    captune       {ours!r}\n    pycocoevalcap {theirs!r}")


COLUMNS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")


def differences(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokens: Callable[[Mapping[str, Sequence[str]]], dict[str, list[str]]] = coco_tokens,
) -> dict[str, float]:
    """Largest difference of each score to pycocoevalcap's, over images and the corpus."""
    mine = measure(hypotheses, references, METRICS, resamples=0)
    whole, each = coco_scores(tokens({key: [text] for key, text in hypotheses.items()}), tokens(references))
    found = {key: abs(mine.scores[key] - whole[key]) for key in COLUMNS}
    for image, scores in each.items():
        for key in COLUMNS:
            found[key] = max(found[key], abs(mine.per_image[image][key] - scores[key]))
    return found


def lone_tokens(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """pycocoevalcap's tokens, with a plain caption after each.

    Its tokens depend on the caption that follows ("No." before one that starts with a number), ours do not.
    """
    padded = coco_tokens(
        {key: [part for text in group for part in (text, "The end")] for key, group in captions.items()}
    )
    return {key: group[::2] for key, group in padded.items()}


def token_differences(captions: Sequence[tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    """Kind, string, our tokens and theirs, where the two differ."""
    theirs = lone_tokens({str(n): [text] for n, (_, text) in enumerate(captions)})
    pairs = ((kind, text, tokenize(text), theirs[str(n)][0]) for n, (kind, text) in enumerate(captions))
    return [row for row in pairs if row[2] != row[3]]


def read_references(source: str) -> dict[str, list[str]]:
    """References by image of anything that `captune prepare` reads; rows that cannot be used are left out."""
    problems: list[Problem] = []
    _, records = read_source(source, problems=problems)
    found = {record.id: list(record.references) for record in records}
    print(f"{source}: {len(found)} images, {len(problems)} rows left out.")
    return found


def mixtures(
    references: Mapping[str, Sequence[str]], number: int, seed: int
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Hypotheses by name and the references that each is held against: those of an image drawn by chance.

    Every second hypothesis is a caption of an image, that or another; the others begin as one and end as another.
    """
    chance = random.Random(seed)
    groups = [list(group) for group in references.values()]
    hypotheses: dict[str, str] = {}
    against: dict[str, list[str]] = {}
    for n in range(number):
        first, second = (chance.choice(chance.choice(groups)).split() for _ in range(2))
        if n % 2:
            first, second = first[: len(first) // 2], second[len(second) // 2 :]
            hypotheses[str(n)] = " ".join([*first, *second])
        else:
            hypotheses[str(n)] = " ".join(first)
        against[str(n)] = chance.choice(groups)
    return hypotheses, against


def neighbours(texts: Sequence[str], left_out: set[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Every string as a caption; the two before it, and half of each, are its references.

    Strings whose tokens differ would show that difference again in every score: they are left out.
    """
    halves = [f"{a[: len(a) // 2]} {b[len(b) // 2 :]}" for a, b in pairwise(texts)]
    left_out = left_out | {row[1] for row in token_differences([("half", text) for text in halves])}
    hypotheses: dict[str, str] = {}
    references: dict[str, list[str]] = {}
    for n in range(2, len(texts)):
        group = [texts[n - 1], texts[n - 2], halves[n - 1]]
        if not left_out.intersection([texts[n], *group]):
            hypotheses[str(n)], references[str(n)] = texts[n], group
    return hypotheses, references


if __name__ == "__main__":
    sys.exit(main())
