"""VQA accuracy: an answer is right if at least three people gave it, and partly right if fewer did.

Antol et al. 2015, *VQA: Visual Question Answering*: each nine of ten people's answers are compared
with the model's. Three equal answers make it right. The ten results are averaged.
"""

import re
from collections.abc import Sequence

import numpy as np

from captune.metrics.corpus import Corpus, MetricResult, averaged

AGREE = 3
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_WORDS)}}
_ARTICLES = {"a", "an", "the"}
# Signs inside numbers ("1,000", "2.5") and words ("don't") stay.
_SIGNS = re.compile(r"(?<!\d)[.,:;!?\"()\[\]{}/\\_<>@`~*&#|-]|[.,:;!?\"()\[\]{}/\\_<>@`~*&#|-](?!\d)")


def vqa_accuracy(corpus: Corpus) -> MetricResult:
    """Key `vqa_accuracy`, 0–1; the corpus score is the mean over questions.

    With fewer than four answers each of the others counts as much as three do, and with one
    answer it must be that.
    """
    each = [_score(answer, group) for answer, group in zip(corpus.hypotheses, corpus.references, strict=True)]
    return averaged({"vqa_accuracy": np.array(each)})


def plain_answer(text: str) -> str:
    """An answer without articles, signs and case, numbers to ten as digits."""
    words = _SIGNS.sub(" ", text.lower().replace("\n", " ")).split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)


def _score(answer: str, answers: Sequence[str]) -> float:
    given = plain_answer(answer)
    same = [plain_answer(other) == given for other in answers]
    if len(same) == 1:
        return float(same[0])
    agree, total = min(AGREE, len(same) - 1), sum(same)
    return float(np.mean([min(1.0, (total - one) / agree) for one in same]))
