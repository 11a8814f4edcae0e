"""Which images of a library changed lately, by whatever process."""

from __future__ import annotations

import sqlite3


def serial_of(connection: sqlite3.Connection) -> int:
    """The number of the last change; 0 before the first."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM touched").fetchone()[0])


def touched_since(connection: sqlite3.Connection, serial: int) -> list[int] | None:
    """Images that changed after the change of a number; None where that is not known (any more)."""
    first, last = connection.execute("SELECT min(id), max(id) FROM touched").fetchone()
    if serial > (last or 0) or (first is not None and serial < first - 1):
        return None
    rows = connection.execute("SELECT image FROM touched WHERE id > ? GROUP BY image ORDER BY max(id)", (serial,))
    return [row["image"] for row in rows]
