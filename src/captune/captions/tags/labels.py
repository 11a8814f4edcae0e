"""The vocabulary of keywords: a file with a label on each line."""

from dataclasses import dataclass
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.datasets.tables.text import check_file, numbered
from captune.images.metadata.keywords import comparable

PLACE = "{label}"
TEMPLATE = f"a photo of {PLACE}"
_EXAMPLE = "Write a label on each line, synonyms behind it: dog, puppy, hound"


@dataclass(frozen=True)
class Label:
    """A keyword, and all names of what it means, itself the first."""

    keyword: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """Labels in the order of their file, and the prompts in which a matcher reads their names."""

    labels: tuple[Label, ...]
    templates: tuple[str, ...] = (TEMPLATE,)

    def prompts(self, name: str) -> list[str]:
        """A name in every template."""
        return [template.replace(PLACE, name) for template in self.templates]


def read_labels(path: str) -> Labels:
    """The labels of a file: `dog, puppy` on each line; one with `{label}` is a template.

    A line that begins with `# ` is passed over. A label that stands twice has the synonyms of both.
    Raises `CaptuneError` for a file without labels.
    """
    check_file(Path(path))
    names: dict[str, list[str]] = {}
    templates: list[str] = []
    for number, line in numbered(Path(path)):
        if line.startswith("# "):
            continue
        if PLACE in line:
            templates.append(line.strip())
            continue
        parts = [" ".join(part.split()) for part in line.split(",")]
        if not parts[0]:
            raise CaptuneError(f"{path}, line {number}: no label stands before the comma.", _EXAMPLE)
        names.setdefault(comparable(parts[0]), []).extend(filter(None, parts))
    if not names:
        raise CaptuneError(f"{path} has no labels.", _EXAMPLE)
    labels = tuple(Label(found[0], tuple(dict.fromkeys(found))) for found in names.values())
    return Labels(labels, tuple(templates) or (TEMPLATE,))
