"""Which images of a library are meant, and which captions have some words, in SQL."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from captune.core.options.library import FilterOptions
from captune.core.text import unspaced_language
from captune.library.scan import encoded

_WORD = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
_SIGNS = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class Condition:
    """Conditions on an image `i` (and its caption `c`, where `of_captions`) with the values of their parameters."""

    clauses: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    of_captions: bool = False

    @property
    def sql(self) -> str:
        return " AND ".join(["i.gone IS NULL", *self.clauses])


@dataclass
class _Clauses:
    clauses: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, clause: str, *values: Any) -> None:
        self.clauses.append(clause)
        self.values += values


def condition_of(options: FilterOptions) -> Condition:
    """The conditions that the options name."""
    images, captions = _Clauses(), _Clauses()
    if options.under is not None:
        folder = encoded(options.under.strip("/"))
        images.add("(i.path >= CAST(? AS TEXT) AND i.path < CAST(? AS TEXT))", folder + b"/", folder + b"0")
    for tag in options.tag:
        images.add("EXISTS (SELECT 1 FROM keywords k WHERE k.image = i.id AND k.keyword = ?)", tag)
    if options.mark is not None:
        images.add("i.mark = ?", options.mark)
    if options.taken is not None:
        first, dots, last = options.taken.partition("..")
        images.add("i.taken >= ?", first)
        if not dots or last:
            images.add("substr(i.taken, 1, ?) <= ?", len(last or first), last or first)
    if options.without_caption:
        images.add("NOT EXISTS (SELECT 1 FROM captions n WHERE n.image = i.id AND n.current)")
    if options.status is not None:
        captions.add("c.status = ?", options.status)
    if options.by in ("person", "model"):
        captions.add("c.written_by = ?", options.by)
    elif options.by is not None:
        captions.add("c.written_by = 'model' AND c.model = ?", options.by)
    if options.flag:
        named = ["' ' || c.flags || ' ' LIKE '% ' || ? || ' %'" for _ in options.flag]
        if "any" in options.flag:
            captions.add("c.flags != ''")
        else:
            captions.add(f"({' OR '.join(named)})", *options.flag)
    if options.confidence is not None:
        sign, number = re.findall(r"[<>=]+|[\d.]+", options.confidence)
        captions.add(f"c.confidence {sign} ?", float(number))
    return Condition((*images.clauses, *captions.clauses), (*images.values, *captions.values), bool(captions.clauses))


@dataclass(frozen=True)
class Words:
    """What a person typed: `wanted` words, beginnings and phrases as FTS5 has them, and `unwanted` ones."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Words:
        """`"two dogs"` is a phrase, `dog*` the beginning of a word, `-cat` a word that is not there."""
        found: tuple[list[str], list[str]] = ([], [])
        for minus, phrase, word in _WORD.findall(text):
            plain = " ".join(_SIGNS.sub(" ", phrase or word).split())
            if plain:
                found[bool(minus)].append(f'"{plain}"' + ("*" if not phrase and word.endswith("*") else ""))
        return cls(tuple(found[0]), tuple(found[1]))

    @property
    def query(self) -> str:
        """All of the wanted words, and none of the others."""
        return f"({' AND '.join(self.wanted)})" + "".join(f" NOT {each}" for each in self.unwanted)

    def relaxed(self, connection: sqlite3.Connection) -> Iterator[Words]:
        """The same, then with ever fewer of the words: first without the one that most captions have."""
        known = {each: _captions_with(connection, each) for each in self.wanted}
        words = sorted(self.wanted, key=lambda each: known[each])
        for count in range(len(words), 0, -1):
            yield Words(tuple(each for each in self.wanted if each in words[:count]), self.unwanted)


def _captions_with(connection: sqlite3.Connection, word: str) -> int:
    """How many captions have a word, or the rarest word of a phrase; 0 for the beginning of one."""
    plain = unicodedata.normalize("NFKD", word.strip('"').casefold())
    terms = "".join(sign for sign in plain if not unicodedata.combining(sign)).split()
    rows = [connection.execute("SELECT doc FROM words_known WHERE term = ?", (term,)).fetchone() for term in terms]
    return min((row[0] for row in rows if row is not None), default=0)


def is_unspaced(text: str) -> bool:
    """Whether words of the text do not stand apart, as in Chinese, Japanese or Thai: it is looked for as it is."""
    return unspaced_language(text) is not None
