"""Which image of the references a caption belongs to: the same id or name, or one that can only be the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from captune.core.errors import CaptuneError
from captune.data.formats.places import is_image_name
from captune.data.formats.rows import plain_id
from captune.data.results import Results

_Label = Callable[[Results, str], Iterable[str]]


def pair_images(captions: Results, references: Results) -> tuple[dict[str, str], str]:
    """The references' id of each image of the captions, and how they were matched ("" by equal names or ids).

    Of the ways to match, the one that finds most images is taken, of equal ones the strictest; a way by which two
    images of a file become one is none. Images that have no partner are left as they are. Raises `CaptuneError`
    where ids match but the file names beside them contradict.
    """
    wanted = [*captions.texts, *(key for key in captions.failed if key not in captions.texts)]
    there = list(dict.fromkeys((*references.texts, *references.rejected)))
    best: dict[str, str] = {}
    how = ""
    for name, label in _WAYS:
        found = _matches(captions, wanted, references, there, label)
        if len(found) > len(best):
            best, how = found, name
    if not how and any(key != partner for key, partner in best.items()):
        how = "file name"
    _check_names(captions, references, best)
    return best, how


def _matches(
    captions: Results, wanted: list[str], references: Results, there: list[str], label: _Label
) -> dict[str, str]:
    """Pairs by equal labels; none at all where a label is that of two images of one file."""
    owners: dict[str, str] = {}
    for key in there:
        for word in set(label(references, key)):
            if owners.setdefault(word, key) != key:
                return {}
    found: dict[str, str] = {}
    for key in wanted:
        partners = {owners[word] for word in label(captions, key) if word in owners}
        if len(partners) == 1:
            found[key] = partners.pop()
    return found if len(set(found.values())) == len(found) else {}


def _check_names(captions: Results, references: Results, found: dict[str, str]) -> None:
    for key, partner in found.items():
        one, other = captions.names.get(key), references.names.get(partner)
        if one is None or other is None or not (is_image_name(one) and is_image_name(other)):
            continue
        if stem(one) != stem(other):
            raise CaptuneError(
                f"{captions.source} and {references.source} give image {partner} different files: {one} and {other}.",
                "Are the ids row numbers? Leave that column out, so that images are matched by their file names.",
            )


def stem(name: str) -> str:
    """The file name alone, without the ending of an image, in lower case."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return (base.rpartition(".")[0] if is_image_name(base) else base).lower()


def _names(found: Results, key: str) -> Iterator[str]:
    yield found.names.get(key, key)


def _ids(found: Results, key: str) -> Iterator[str]:
    yield key


def _numbers(found: Results, key: str) -> Iterator[str]:
    number = plain_id(key)
    if number is not None:
        yield number


def _files(found: Results, key: str) -> Iterator[str]:
    yield found.names.get(key, key).replace("\\", "/").rpartition("/")[2]


def _stems(found: Results, key: str) -> Iterator[str]:
    yield stem(found.names.get(key, key))


def _numbers_of_stems(found: Results, key: str) -> Iterator[str]:
    for name in (key, found.names.get(key, key)):
        number = plain_id(stem(name))
        if number is not None:
            yield number


_WAYS: tuple[tuple[str, _Label], ...] = (
    ("", _names),
    ("", _ids),
    ("id, as a number", _numbers),
    ("file name", _files),
    ("file name without its ending", _stems),
    ("the number in the file name", _numbers_of_stems),
)
