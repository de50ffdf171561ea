"""Columns of the national ledger: their headings and what stands there when nothing is known.

They are data (ledger_columns.json) with their source and how sure it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class LedgerColumn:
    """One column of the national ledger.

    Attributes:
        key: what it is called here.
        headings: what files call it; the first one is written.
        en: the heading for people who read English.
        default: by kind of current, what is written when nothing else is known.
    """

    key: str
    headings: Sequence[str]
    en: str
    default: Mapping[str, Any]

    @property
    def heading(self) -> str:
        """What an exported ledger calls it."""
        return self.headings[0]


@cache
def _document() -> Mapping[str, Any]:
    text = files("chargewatch.wire.registry").joinpath("ledger_columns.json").read_text("utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found


LEDGER_NAMES: Sequence[str] = tuple(_document()["names"])
"""What a sheet or file of the ledger may be called, beside `ledger`."""


@cache
def ledger_columns() -> Sequence[LedgerColumn]:
    """Return the columns in the order in which an export has them."""
    return tuple(
        LedgerColumn(row["key"], tuple(row["headings"]), row["en"], row.get("default", {}))
        for row in _document()["columns"]
    )


def ledger_headings() -> Mapping[str, Sequence[str]]:
    """Return what files call each column, by its key."""
    return {column.key: (*column.headings, column.en) for column in ledger_columns()}


def ledger_default(key: str, current: str | None) -> Any:
    """Return what stands in a column of an instrument of which the ledger says nothing."""
    by_current = next(column.default for column in ledger_columns() if column.key == key)
    return by_current.get(current or "")
