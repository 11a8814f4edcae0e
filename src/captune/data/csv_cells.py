"""Cells of CSV that a spreadsheet would take for formulas: written with an apostrophe before, read back without it.

Excel, LibreOffice and others run what begins with one of these signs. In a spreadsheet an apostrophe in front says
"this is text". A text that has apostrophes before such a sign gets one more, so that reading gives back every text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# The header of the captions that captune writes.
OF_CAPTUNE = ("image", "caption", "confidence", "status", "error")
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_GUARDED = re.compile("'+[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def guarded(text: str) -> str:
    """A text as a cell."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text of a cell that captune wrote."""
    return cell[1:] if _GUARDED.match(cell) else cell


def unguarded_row(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row of `csv.DictReader` with its texts."""
    return {key: unguarded(value) if isinstance(value, str) else value for key, value in row.items()}
