"""Columns of records that are written down once: `domain.session` and `domain.assessment`.

A record is a dataclass; a field that is a column carries a `Column` in its annotation. Tables,
SELECT lists, arrays, Parquet files, exports and the API's models are made from these columns, by
what kind of value each holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints


class Form(Enum):
    """How a value is held; tables, arrays, files and the API have a type for each."""

    TEXT = "text"
    TIME = "time, to the microsecond"
    REAL = "number of 64 bits"
    SHORT_REAL = "number of 32 bits"
    DECIMAL = "decimal number, exactly; a text outside of the database"
    COUNT = "integer of 32 bits"
    DOCUMENT = "JSON"


class ValueKind(Enum):
    """What a value means, and the form it is held in."""

    NAME = "an instrument's name, 1 to 64 characters", Form.TEXT
    LABEL = "a name that somebody else gave, 1 to 255 characters", Form.TEXT
    PSEUDONYM = "what stands for a vehicle, never a plain VIN", Form.TEXT
    MOMENT = "a time", Form.TIME
    ENERGY = "energy that a register or bill tells, Wh, to 0.001", Form.REAL
    CAPACITY = "energy that a vehicle tells, Wh", Form.REAL
    PERCENT = "0 to 100", Form.SHORT_REAL
    CURRENCY = "three capital letters", Form.TEXT
    MONEY = "money as it was told", Form.DECIMAL
    DISCOUNT = "money as it was told, never negative", Form.DECIMAL
    PERIODS = "parts of a session at one price", Form.DOCUMENT
    FREE_TEXT = "a text, up to 255 characters", Form.TEXT
    SIGNED = "part of a record that the meter signed", Form.TEXT
    FINDING = "a number that was estimated; NaN: not known", Form.REAL
    WORD = "a member of a StrEnum", Form.TEXT
    TEXT = "a text of our own", Form.TEXT
    REASONS = "codes with values of domain.reason, as it encodes them", Form.TEXT
    COUNT = "how many", Form.COUNT
    DOCUMENT = "an object or list of our own", Form.DOCUMENT

    def __init__(self, _meaning: str, form: Form) -> None:
        self.form = form


@dataclass(frozen=True)
class Column:
    """One column of a record; its field tells the name, and whether it may be None."""

    kind: ValueKind
    name: str = ""
    optional: bool = False
    default: str | None = None  # what a table puts where a row doesn't tell it


C = TypeVar("C", bound=Column)


def columns_of(record: type[Any], carried: type[C]) -> tuple[C, ...]:
    """Return the columns that a record's fields carry, in the order of the fields."""
    found = []
    for name, hint in get_type_hints(record, include_extras=True).items():
        for column in getattr(hint, "__metadata__", ()):
            if isinstance(column, carried):
                optional = NoneType in get_args(get_args(hint)[0])
                found.append(replace(column, name=name, optional=optional))
    return tuple(found)
