"""METEOR's alignment of a caption and a reference: words and phrases that say the same.

Denkowski & Lavie 2014. Every exact word, stem, synonym and paraphrase is a candidate; a beam
search over the reference takes those that cover most words in fewest chunks. Where the
definition leaves a choice it is made as the published scores were made, weights that are
rounded down included.
"""

from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from captune.metrics.meteor.data import function_words, synonym_sets
from captune.metrics.meteor.paraphrases import Phrases
from captune.metrics.meteor.stemmer import stem

EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
BEAM = 40
# (stage, first reference word, reference words, first caption word, caption words)
Match = tuple[int, int, int, int, int]


class Sentence:
    """A caption or reference with what its alignments look at."""

    def __init__(self, tokens: tuple[str, ...], phrases: Phrases) -> None:
        self.tokens = tokens
        self.stems = [stem(token) for token in tokens]
        self.synonyms = [synonym_sets(token) for token in tokens]
        functions = function_words()
        self.is_function = [token in functions for token in tokens]
        self.sources, self.phrase_places = phrases.sources, phrases.places

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each word stands."""
        return _places(self.tokens)

    @cached_property
    def stem_places(self) -> dict[str, list[int]]:
        return _places(self.stems)

    @cached_property
    def all_synonyms(self) -> frozenset[str]:
        return frozenset().union(*self.synonyms)


def _places(words: tuple[str, ...] | list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        found.setdefault(word, []).append(place)
    return found


def candidates(caption: Sentence, reference: Sentence) -> list[list[Match]]:
    """All matches that begin at each word of the reference."""
    caption_tokens, places = caption.tokens, caption.places
    found: list[list[Match]] = [
        [(EXACT, start, 1, place, 1) for place in places.get(word, ())] for start, word in enumerate(reference.tokens)
    ]
    if caption_tokens == reference.tokens:
        return found
    stem_places, all_synonyms = caption.stem_places, caption.all_synonyms
    for start, (word, stemmed, sets) in enumerate(
        zip(reference.tokens, reference.stems, reference.synonyms, strict=True)
    ):
        for place in stem_places.get(stemmed, ()):
            if caption_tokens[place] != word:
                found[start].append((STEM, start, 1, place, 1))
        shared = sets & all_synonyms
        if shared:
            for place, meanings in enumerate(caption.synonyms):
                if caption_tokens[place] != word and not meanings.isdisjoint(shared):
                    found[start].append((SYNONYM, start, 1, place, 1))
    for start, length, targets in reference.sources:
        for place, words in _phrases(targets, caption):
            found[start].append((PARAPHRASE, start, length, place, words))
    for place, words, targets in caption.sources:
        for start, length in _phrases(targets, reference):
            found[start].append((PARAPHRASE, start, length, place, words))
    return found


def _phrases(targets: dict[int, int], sentence: Sentence) -> list[tuple[int, int]]:
    """Where paraphrases stand in a sentence, in the order of the table."""
    places = sentence.phrase_places
    shared = targets.keys() & places.keys()
    if not shared:
        return []
    ordered = sorted(shared, key=targets.__getitem__) if len(shared) > 1 else shared
    return [place for number in ordered for place in places[number]]


@dataclass(frozen=True)
class Alignment:
    """The matches that were taken, by the words of the reference, and how many chunks they make."""

    matches: tuple[Match, ...]
    chunks: int


# rank, next caption word of the open chunk (-1: none is open), reference words done, caption words used (bits),
# matches taken (nested pairs)
_Path = tuple[int, int, int, int, object]
_RANK = itemgetter(0)


def align(caption: Sentence, reference: Sentence) -> Alignment:
    """The alignment that METEOR scores.

    Paths are ordered by weighted words matched (most first), chunks, then distance; a rank
    is all three in one number, the least is best. A chunk counts when it closes.
    """
    found = candidates(caption, reference)
    fixed = _certain(found, len(reference.tokens), len(caption.tokens))
    chunk = 1 + sum(abs(place - start) for here in found for _, start, _, place, _ in here)
    word = chunk * (len(reference.tokens) + 2)
    paths: list[_Path] = [(0, -1, 0, 0, None)]
    for start, here in enumerate(found):
        if not here:
            paths = [
                path if path[2] > start or path[1] < 0 else (path[0] + chunk, -1, path[2], path[3], path[4])
                for path in paths
            ]
            paths.sort(key=_RANK)
            continue
        moves = [_move(match, word) for match in here]
        following: list[_Path] = []
        for path in paths:
            rank, place, done, used, chain = path
            if done > start:
                following.append(path)
                continue
            closed = rank + chunk if place >= 0 else rank
            distance = 0
            for gain, first, after, done_then, mask, apart, match in moves:
                if fixed[start]:
                    distance = apart
                elif used & mask:
                    continue
                following.append(
                    (
                        (rank if first == place else closed) + gain + distance,
                        after,
                        done_then,
                        used | mask,
                        (chain, match),
                    )
                )
                # The distance of a match that may be left out counts for those after it, as published.
                distance += apart
            if not fixed[start]:
                following.append((closed + distance, -1, done, used, chain))
        following.sort(key=_RANK)
        paths = following[:BEAM]
    # At the end of the reference every open chunk is over.
    ends = [(path[0] + chunk if path[1] >= 0 else path[0], path[4]) for path in paths]
    rank, chain = min(ends, key=_RANK)
    taken: list[Match] = []
    while chain is not None:
        chain, match = chain  # type: ignore[misc]
        taken.append(match)
    return Alignment(tuple(reversed(taken)), rank % word // chunk)


def _move(match: Match, word: int) -> tuple[int, int, int, int, int, int, Match]:
    """What a match does to a path: rank, its caption words (first, the one after), reference words, bits, distance."""
    stage, start, length, place, words = match
    weight = 1 if stage == EXACT else 0.5
    gain = -word * (int(weight * length) + int(weight * words))
    return gain, place, place + words, start + length, ((1 << words) - 1) << place, abs(place - start), match


def _certain(found: list[list[Match]], reference_words: int, caption_words: int) -> list[bool]:
    """Which starts have one candidate alone, whose words no other candidate covers."""
    in_reference, in_caption = [0] * reference_words, [0] * caption_words
    for here in found:
        for _, start, length, place, words in here:
            for word in range(start, start + length):
                in_reference[word] += 1
            for word in range(place, place + words):
                in_caption[word] += 1
    certain = [False] * reference_words
    for start, here in enumerate(found):
        if len(here) == 1:
            _, _, length, place, words = here[0]
            certain[start] = max(in_reference[start : start + length]) == max(in_caption[place : place + words]) == 1
    return certain
