"""Which images of a library are meant, and which captions have some words, in SQL."""

from __future__ import annotations

import math
import posixpath
import re
import sqlite3
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from captune.core.errors import UsageError
from captune.core.options.library import NO_SPLIT, DraftFilterOptions, FilterOptions
from captune.core.text import unspaced_language
from captune.library.database import encoded

_WORD = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
# At most so many images are looked up. What one of them costs, and a row that is compared with them, against a row that
# is read, as measured.
_FEW = 50_000
_LOOKED_UP, _COMPARED = 0.4, 0.2
# What persons wrote or judged, as the index `captions_of_persons` has it.
_PERSONS = "n.current AND (n.written_by = 'person' OR n.status != 'draft')"
# FTS5 has no underscores either.
_SIGNS = re.compile(r"[\W_]+")
MAX_WORDS = 2000


@dataclass(frozen=True)
class Lookup:
    """Rows `n` of a table that an index finds, with the values of the parameters: images, or what images have."""

    table: str
    clause: str
    values: tuple[Any, ...]

    @property
    def images(self) -> str:
        """A query for the numbers of the images."""
        return (
            f"SELECT {'n.id' if self.table == 'images' else 'n.image'} AS image FROM {self.table} n WHERE {self.clause}"
        )

    @property
    def captions(self) -> str:
        """A query for the numbers of their captions, or of those that are meant."""
        if self.table == "captions":
            return f"SELECT n.id FROM captions n WHERE {self.clause}"
        return f"SELECT k.id FROM ({self.images}) n CROSS JOIN captions k USING (image)"


@dataclass(frozen=True)
class Condition:
    """Conditions on an image `i` (and its caption `c`, where `of_captions`) with the values of their parameters."""

    clauses: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    of_captions: bool = False
    # Queries by an index for the images of which one of the conditions is true, perhaps with some others.
    lookups: tuple[Lookup, ...] = ()

    @property
    def sql(self) -> str:
        return " AND ".join(["i.gone IS NULL", *self.clauses])

    def lookup(self, connection: sqlite3.Connection, rows: float, wanted: float) -> Lookup | None:
        """The lookup with the fewest images; None where going through `rows` until `wanted` are found is less work."""
        best, few = None, _FEW + 1
        for each in self.lookups:
            query = f"SELECT count(*) FROM (SELECT 1 FROM ({each.images}) LIMIT {few})"
            (count,) = connection.execute(query, each.values).fetchone()
            best, few = (each, count) if count < few else (best, few)
        if best is None:
            return None
        (images,) = connection.execute("SELECT max(id) FROM images").fetchone()
        work = _LOOKED_UP * few + (0 if math.isinf(rows) else _COMPARED * rows)
        return best if work < min(rows, wanted * (images or 0) / max(1, few)) else None

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
    lookups: list[Lookup] = field(default_factory=list)

    def add(self, clause: str, *values: Any) -> None:
        self.clauses.append(clause)
        self.values += map(_plain, values)

    def look_up(self, table: str, clause: str, *values: Any) -> None:
        self.lookups.append(Lookup(table, clause, tuple(map(_plain, values))))


def _plain(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def condition_of(options: DraftFilterOptions) -> Condition:
    """The conditions that the options name."""
    images, captions = _Clauses(), _Clauses()
    under = "." if options.under is None else posixpath.normpath(options.under.strip("/") or ".")
    if under != ".":
        folder = encoded(under)
        inside = "path >= CAST(? AS TEXT) AND {0}.path < CAST(? AS TEXT)"
        images.add(f"(i.{inside.format('i')})", folder + b"/", folder + b"0")
        images.look_up("images", f"n.gone IS NULL AND n.{inside.format('n')}", folder + b"/", folder + b"0")
    for tag in options.tag:
        images.add("EXISTS (SELECT 1 FROM keywords k WHERE k.image = i.id AND k.keyword = ?)", tag)
        images.look_up("keywords", "n.keyword = ?", tag)
    if options.mark is not None:
        images.add("i.mark = ?", options.mark)
        images.look_up("images", "n.mark = ?", options.mark)
    if options.split is not None:
        split = "" if options.split == NO_SPLIT else options.split
        images.add("i.split = ?", split)
        images.look_up("images", "n.gone IS NULL AND n.split = ?", split)
    if options.taken is not None:
        first, dots, last = options.taken.partition("..")
        images.add("i.taken >= ?", first)
        if not dots or last:
            images.add("substr(i.taken, 1, ?) <= ?", len(last or first), last or first)
        end = chr(sys.maxunicode)
        images.look_up("images", "n.taken >= ? AND n.taken <= ?", first, (last if dots else first) + end)
    if options.without_caption:
        images.add("EXISTS (SELECT 1 FROM without_caption n WHERE n.image = i.id)")
        images.look_up("without_caption", "TRUE")
    if options.status is not None:
        captions.add("c.status = ?", options.status)
        if options.status != "draft":
            captions.look_up("captions", _PERSONS)
    if options.by in ("person", "model"):
        captions.add("c.written_by = ?", options.by)
        if options.by == "person":
            captions.look_up("captions", _PERSONS)
    elif options.by is not None:
        captions.add("c.written_by = 'model' AND c.model = ?", options.by)
    if options.flag:
        named = ["instr(' ' || c.flags || ' ', ' ' || ? || ' ')" for _ in options.flag]
        if "any" in options.flag:
            captions.add("c.flags != ''")
        else:
            captions.add(f"({' OR '.join(named)})", *options.flag)
        captions.look_up("captions", "n.current AND n.flags != ''")
    if options.confidence is not None:
        sign, number = re.findall(r"[<>=]+|[\d.]+", options.confidence)
        captions.add(f"c.confidence {sign} ?", float(number))
    if isinstance(options, FilterOptions) and options.language is not None:
        language = options.language.lower().replace("-", "_") + "_"
        noted = "substr(replace(lower(coalesce(c.language, 'und')), '-', '_') || '_', 1, ?) = ?"
        captions.add(noted, len(language), language)
    return Condition(
        (*images.clauses, *captions.clauses), (*images.values, *captions.values),
        bool(captions.clauses), (*images.lookups, *captions.lookups),
    )  # fmt: skip


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

    def most(self, connection: sqlite3.Connection) -> float:
        """At most so many captions have all the words; infinite where only beginnings of words are known."""
        whole = [each for each in self.wanted if not each.endswith("*")]
        return min((_captions_with(connection, each) for each in whole), default=math.inf)

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
