"""Which images of a library are meant, and which captions have some words, in SQL."""

from __future__ import annotations

import posixpath
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from captune.core.errors import UsageError
from captune.core.options.library import NO_SPLIT, DraftFilterOptions, FilterOptions
from captune.core.text import unspaced_language
from captune.library.scan import encoded

_WORD = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
# FTS5 has no underscores either.
_SIGNS = re.compile(r"[\W_]+")
MAX_WORDS = 2000


@dataclass(frozen=True)
class Condition:
    """Conditions on an image `i` (and its caption `c`, where `of_captions`) with the values of their parameters."""

    clauses: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    of_captions: bool = False

    @property
    def sql(self) -> str:
        return " AND ".join(["i.gone IS NULL", *self.clauses])

    def also(self, clause: str, *values: Any) -> Condition:
        """These conditions and one more, on an image `i`, or on a caption `c` where captions are listed."""
        return replace(self, clauses=(*self.clauses, clause), values=(*self.values, *values))

    def among(self, images: Sequence[int]) -> Condition:
        """These conditions on no other images than these."""
        return self.also(f"i.id IN ({', '.join('?' * len(images))})", *images)


@dataclass
class _Clauses:
    clauses: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, clause: str, *values: Any) -> None:
        self.clauses.append(clause)
        self.values += [v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for v in values]


def condition_of(options: DraftFilterOptions) -> Condition:
    """The conditions that the options name."""
    images, captions = _Clauses(), _Clauses()
    under = "." if options.under is None else posixpath.normpath(options.under.strip("/") or ".")
    if under != ".":
        folder = encoded(under)
        images.add("(i.path >= CAST(? AS TEXT) AND i.path < CAST(? AS TEXT))", folder + b"/", folder + b"0")
    for tag in options.tag:
        images.add("EXISTS (SELECT 1 FROM keywords k WHERE k.image = i.id AND k.keyword = ?)", tag)
    if options.mark is not None:
        images.add("i.mark = ?", options.mark)
    if options.split is not None:
        images.add("i.split = ?", "" if options.split == NO_SPLIT else options.split)
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
        named = ["instr(' ' || c.flags || ' ', ' ' || ? || ' ')" for _ in options.flag]
        if "any" in options.flag:
            captions.add("c.flags != ''")
        else:
            captions.add(f"({' OR '.join(named)})", *options.flag)
    if options.confidence is not None:
        sign, number = re.findall(r"[<>=]+|[\d.]+", options.confidence)
        captions.add(f"c.confidence {sign} ?", float(number))
    if isinstance(options, FilterOptions) and options.language is not None:
        language = options.language.lower().replace("-", "_") + "_"
        noted = "substr(replace(lower(coalesce(c.language, 'und')), '-', '_') || '_', 1, ?) = ?"
        captions.add(noted, len(language), language)
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
        for minus, phrase, word in _WORD.findall(unicodedata.normalize("NFC", text)):
            plain = " ".join(_SIGNS.sub(" ", phrase or word).split())
            if plain:
                found[bool(minus)].append(f'"{plain}"' + ("*" if not phrase and word.endswith("*") else ""))
        return cls(*(tuple(dict.fromkeys(each)) for each in found))

    @property
    def query(self) -> str:
        """All of the wanted words, and none of the others."""
        return f"({' AND '.join(self.wanted)})" + "".join(f" NOT {each}" for each in self.unwanted)

    @property
    def condition(self) -> tuple[str, tuple[str, ...]]:
        """A condition on a caption `c`, with the values of its parameters; empty where no word was typed."""
        if self.wanted:
            return "c.id IN (SELECT rowid FROM words WHERE words MATCH ?)", (self.query,)
        if self.unwanted:
            return "c.id NOT IN (SELECT rowid FROM words WHERE words MATCH ?)", (" OR ".join(self.unwanted),)
        return "", ()

    def relaxed(self, connection: sqlite3.Connection) -> Iterator[Words]:
        """The same, then without words that no caption has, then with ever fewer: first without the commonest."""
        yield self
        known = {each: _captions_with(connection, each) for each in self.wanted}
        words = sorted((each for each in self.wanted if known[each]), key=lambda each: known[each])
        for count in range(min(len(words), len(self.wanted) - 1), 0, -1):
            yield Words(tuple(each for each in self.wanted if each in words[:count]), self.unwanted)


@dataclass(frozen=True)
class Signs:
    """What a person typed that has no words to look up: signs such as emoji, scripts without spaces. As it stands."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Signs:
        """`"a b"` is one, with its space; `-x` is not to be there. A star is nothing that is looked for."""
        found: tuple[list[str], list[str]] = ([], [])
        for minus, phrase, word in _WORD.findall(text):
            plain = phrase or word.rstrip("*")
            if plain:
                found[bool(minus)].append(plain)
        return cls(tuple(found[0]), tuple(found[1]))

    @property
    def condition(self) -> tuple[str, tuple[str, ...]]:
        """A condition on a caption `c`, with the values of its parameters; empty where nothing was typed."""
        clauses = [r"c.text LIKE ? ESCAPE '\'" for _ in self.wanted] + [
            r"c.text NOT LIKE ? ESCAPE '\'" for _ in self.unwanted
        ]
        return " AND ".join(clauses), tuple(f"%{_escaped(each)}%" for each in (*self.wanted, *self.unwanted))


def words_of(text: str) -> Words | Signs:
    """What a person typed; raises `UsageError` where it is too long."""
    if len(text) > MAX_WORDS:
        raise UsageError(f"{len(text):,} characters to look for: at most {MAX_WORDS:,} are.", "Take fewer words.")
    plain = text.encode("utf-8", "replace").decode()  # bytes of no UTF-8, as a terminal hands them on
    words = Words.of(plain)
    has_words = bool(words.wanted or words.unwanted)
    return words if has_words and unspaced_language(plain) is None else Signs.of(plain)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _captions_with(connection: sqlite3.Connection, word: str) -> int:
    """How many captions have a word, or the rarest word of a phrase; 1 for the beginning of some; 0: none."""
    if connection.execute("SELECT 1 FROM words WHERE words MATCH ? LIMIT 1", (word,)).fetchone() is None:
        return 0
    plain = unicodedata.normalize("NFD", word.strip('"').lower())
    terms = "".join(sign for sign in plain if not unicodedata.combining(sign)).split()
    rows = [connection.execute("SELECT doc FROM words_known WHERE term = ?", (term,)).fetchone() for term in terms]
    return min((row[0] for row in rows if row is not None), default=1)
