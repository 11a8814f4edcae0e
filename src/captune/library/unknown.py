"""Why a search finds nothing: conditions that name what a library does not have, and what it has instead."""

from __future__ import annotations

import sqlite3

from captune.core.errors import nearest, question
from captune.core.options.library import FilterOptions
from captune.library.listing import keyword_counts, mark_counts, printable
from captune.library.query import condition_of

_SEVERAL = ("tag", "flag")
_SHOWN = 10
_OF_CAPTIONS = "FROM captions c JOIN images i ON i.id = c.image WHERE c.current AND i.gone IS NULL"


def unknown_names(connection: sqlite3.Connection, options: FilterOptions) -> list[str]:
    """A sentence for each condition that is true of no image at all; reads every caption."""
    found = []
    for name, values in _named(options).items():
        for value in values:
            alone = condition_of(FilterOptions.model_validate({name: (value,) if name in _SEVERAL else value}))
            if not connection.execute(_any(alone.sql, of_captions=alone.of_captions), alone.values).fetchone():
                known = [printable(str(each)) for each in _known(connection, name)]
                near = nearest(value, known)
                there = question(near) if near else f"Known: {_first(known)}."
                found.append(f"--{name} {value}: no image has it. {there}")
    return found


def _first(names: list[str]) -> str:
    """The first of the names; 'none' where there is none."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more


def _named(options: FilterOptions) -> dict[str, tuple[str, ...]]:
    values = {"tag": options.tag, "flag": tuple(each for each in options.flag if each != "any")}
    return values | {
        name: (value,)
        for name in ("mark", "by", "language", "under", "split")
        if (value := getattr(options, name)) is not None
    }


def _any(condition: str, *, of_captions: bool) -> str:
    join = "JOIN captions c ON c.image = i.id AND c.current" if of_captions else ""
    return f"SELECT 1 FROM images i {join} WHERE {condition} LIMIT 1"


def _known(connection: sqlite3.Connection, name: str) -> list[str]:
    if name == "tag":
        return [keyword for keyword, _ in keyword_counts(connection)]
    if name == "mark":
        return list(mark_counts(connection))
    queries = {
        "by": f"SELECT DISTINCT iif(c.written_by = 'person', 'person', c.model) {_OF_CAPTIONS}",
        "language": f"SELECT DISTINCT coalesce(c.language, 'und') {_OF_CAPTIONS}",
        "flag": f"SELECT DISTINCT c.flags {_OF_CAPTIONS}",
        "split": "SELECT DISTINCT split FROM images WHERE gone IS NULL",
        "under": "SELECT DISTINCT substr(path, 1, instr(path, '/') - 1) FROM images WHERE gone IS NULL",
    }
    rows = [row[0] for row in connection.execute(queries[name]) if row[0]]
    return sorted({each for row in rows for each in (row.split() if name == "flag" else [row])})
