"""What somebody may have meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from captune.core.aliases import ALIASES, ANSWERS, FORMER, VERBS_ELSEWHERE, canonical, plain
from captune.core.environment import OF_COMPOSE, OWN, VARIABLES

# More names than this are a wall of text: only the nearest are shown then.
LISTED = 30
# A suggestion has at least this similarity; those as near as the best within MARGIN stand beside it.
LEAST, MARGIN, MOST = 0.6, 0.08, 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'Did you mean …? Known: …' for an unknown name."""
    names = sorted(known)
    near = nearest(name, names)
    listed = f"Known: {', '.join(names) if names else 'none'}."
    if not near:
        return listed
    return question(near) if len(names) > LISTED else f"{question(near)} {listed}"


def question(names: Iterable[str]) -> str:
    """'Did you mean 'a' or 'b'?'"""
    return "Did you mean " + " or ".join(f"'{one}'" for one in names) + "?"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The names that look most like `name`, the nearest first: slips of the keyboard, parts and beginnings of names."""
    scored = sorted(((similarity(name, one), one) for one in known), key=lambda pair: (-pair[0], pair[1]))
    return [one for score, one in scored[:MOST] if score >= LEAST and score >= scored[0][0] - MARGIN]


def similarity(given: str, name: str) -> float:
    """How likely `name` was meant by `given`, 0–1; case and the kind of dash do not count."""
    a, b = plain(given), plain(name)
    if a.replace("_", "") == b.replace("_", ""):
        return 1.0
    words_a, words_b = set(a.split("_")), set(b.split("_"))
    part = 0.0
    if min(len(a), len(b)) >= 3 and (a.startswith(b) or b.startswith(a)):
        part = 0.75
    if words_a and words_b and (words_a < words_b or words_b < words_a) and max(map(len, words_a & words_b)) >= 3:
        part = max(part, 0.7)
    longest = max(len(a), len(b))
    changes = edits(a, b)
    # One slip in a short name, one more for every four letters: `lr` is not `lora`.
    near = 1 - changes / longest if changes <= max(1, longest // 4) or changes / longest <= 0.34 else 0.0
    return max(near if longest > 2 else 0.0, part + 0.2 * min(len(a), len(b)) / longest if part else 0.0)


def edits(a: str, b: str) -> int:
    """Letters added, left out, changed or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[j] = min(row[j], earlier[j - 2] + 1)
    return row[-1]


def about_option(name: str, known: Iterable[str], *, verb: str = "") -> str:
    """What to do about an option that is not among `known`: captune's way, its name here, other verbs, the nearest.

    `known` are names or flags, and suggested as they are.
    """
    given, shown = plain(name), {plain(one): one for one in known}
    answer = ANSWERS.get(given) or ANSWERS.get(given.removeprefix("no_"))
    if answer:
        return answer
    here = ALIASES.get(given, ())
    texts = []
    elsewhere = _takers(here or (given,), besides=verb)
    if elsewhere:
        option, verbs = elsewhere
        called = f"--{option.replace('_', '-')}"
        texts.append(f"{called} is an option of {', '.join(f'captune {one}' for one in verbs)}.")
    elif here:
        texts.append(f"captune calls it '{here[0]}'.")
    # A slip in another tool's name is a slip in captune's.
    others = {other: own for other in ALIASES if (own := canonical(other, shown)) and other not in shown}
    near = dict.fromkeys(shown[others.get(one, one)] for one in nearest(given, [*shown, *others]))
    if near and not here:
        texts.append(question(near))
    listed = did_you_mean(given, shown.values()) if len(shown) <= LISTED else "The command's --help lists its options."
    return " ".join(texts) or listed


def about_verb(name: str, verbs: Iterable[str]) -> str:
    """What to do about a verb that does not exist: captune's name for it, or the nearest."""
    verbs = list(verbs)
    here = VERBS_ELSEWHERE.get(plain(name))
    return f"captune calls it '{here}'." if here in verbs else did_you_mean(name, verbs)


def about_variables(environment: Mapping[str, str]) -> list[str]:
    """What is wrong with variables that look like one of captune's and are none: nothing would come of them."""
    known = {one.name for one in VARIABLES} | set(OF_COMPOSE)
    strange = [name for name, value in environment.items() if name.startswith(OWN) and value and name not in known]
    if not strange:
        return []
    from captune.core.config import leaves
    from captune.core.verb_options import CONFIGS

    options = {name for config in CONFIGS.values() for name in (*leaves(config), *FORMER)}
    known |= {f"{OWN}{name.upper()}" for name in options}
    stems = {name.removeprefix(OWN).lower() for name in known if name.startswith(OWN)}
    found = []
    for name in sorted(set(strange) - known):
        own = canonical(name.removeprefix(OWN), options)
        near = [own] if own else nearest(name.removeprefix(OWN), stems)
        if near:  # others are somebody's own
            meant = question(f"{OWN}{one.upper()}" for one in near)
            found.append(f"The environment variable {name} is not read. {meant}")
    return found


def _takers(options: Iterable[str], besides: str) -> tuple[str, list[str]] | None:
    """The first of the options that some verb takes, with those verbs."""
    from captune.core.config import leaves
    from captune.core.verb_options import CONFIGS

    for option in options:
        verbs = [verb for verb, config in CONFIGS.items() if verb != besides and option in leaves(config)]
        if verbs:
            return option, verbs
    return None
