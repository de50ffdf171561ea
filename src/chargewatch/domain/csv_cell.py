"""One cell of a CSV file that a spreadsheet may open."""

from __future__ import annotations

from datetime import datetime
from typing import Any

_CONTROL = ("\t", "\r", "\n")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def csv_cell(value: Any) -> Any:
    """Return what a CSV file holds of a value: no text of it is a formula for a spreadsheet.

    Numbers stay numbers, negative ones too; what is not known is empty. A text that begins like a
    formula, also behind blanks, gets an apostrophe in front: names come from whoever sends.
    """
    if value is None or value != value:  # NaN is unlike itself
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and (value[:1] in _CONTROL or value.strip()[:1] in _FORMULA):
        return "'" + value
    return value
