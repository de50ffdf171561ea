"""Checks of single values of the wire; each raises RejectedItem that names the path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chargewatch.domain.identity import name_fault
from chargewatch.wire.rejection import FOREIGN_IDENTITY, INVALID_FIELD, RejectedItem, shown

MAX_ENERGY_WH = float(2**53)
"""A register beyond this can't be told from its neighbours in a double, Wh."""

DECIMALS_LIMIT_WH = 9.0e12
"""Above this a double has no third decimal that could be rounded, Wh."""

MAX_REAL = 3.4e38
"""What a PostgreSQL real holds."""

MAX_SEQ = 2**53
"""Integers above this are not the same in every JSON reader."""

MAX_NAME = 64
MAX_TEXT = 255

_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?")


def invalid(path: str, what: str) -> RejectedItem:
    """Return the rejection of a field."""
    return RejectedItem(INVALID_FIELD, f"{path} {what}")


def required(item: Mapping[str, Any], key: str, path: str) -> Any:
    """Return a value that must be there."""
    try:
        return item[key]
    except KeyError:
        raise invalid(f"{path}.{key}", "is missing") from None


def text_value(value: object, path: str, *, limit: int = MAX_TEXT, least: int = 1) -> str:
    """Return a string of `least` to `limit` characters that PostgreSQL can store."""
    if type(value) is not str:
        raise invalid(path, f"is not a string: {shown(value)}")
    if not least <= len(value) <= limit:
        raise invalid(path, f"has {len(value)} characters, {least} to {limit} are allowed")
    if "\0" in value:
        raise invalid(path, "has a NUL character")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise invalid(path, "has half a character (a lone surrogate)")
    return value


def name(value: object, path: str, *, limit: int = MAX_NAME, least: int = 1) -> str:
    """Return a name that can't be taken for another one."""
    text = text_value(value, path, limit=limit, least=least)
    fault = name_fault(text)
    if fault is not None:
        raise invalid(path, f"{fault}: {shown(text)}")
    return text


def number(value: object, path: str, *, least: float = -MAX_REAL, most: float = MAX_REAL) -> float:
    """Return a number between two limits; a boolean is none."""
    if type(value) is not float and type(value) is not int:
        raise invalid(path, f"is not a number: {shown(value)}")
    if not least <= value <= most:
        raise invalid(path, f"is {shown(value)}, not within {least:g} to {most:g}")
    return float(value)


def energy_wh(value: object, path: str) -> float:
    """Return an energy: a number >= 0, rounded to 0.001 Wh."""
    return rounded_wh(number(value, path, least=0.0, most=MAX_ENERGY_WH))


def rounded_wh(value: float) -> float:
    """Return an energy >= 0 rounded to 0.001 Wh."""
    return abs(round(value * 1000.0) / 1000.0) if value < DECIMALS_LIMIT_WH else value


def decimal_text(value: object, path: str) -> str:
    """Return a decimal string such as "24.34"."""
    if type(value) is not str or _DECIMAL.fullmatch(value) is None:
        raise invalid(path, f"is not a decimal string: {shown(value)}")
    return value


def whole_number(value: object, path: str, *, least: int, most: int = MAX_SEQ) -> int:
    """Return an integer between two limits."""
    if type(value) is not int:
        raise invalid(path, f"is not an integer: {shown(value)}")
    if not least <= value <= most:
        raise invalid(path, f"is {shown(value)}, not within {least} to {most}")
    return value


def own_identity(item: Mapping[str, Any], path: str, operator_id: str, station_id: str) -> None:
    """Raise foreign_identity when an item names another operator or station than its topic."""
    for key, own in (("operator_id", operator_id), ("station_id", station_id)):
        if item.get(key) is not None and item[key] != own:
            named = f"{path}{key}"
            raise RejectedItem(
                FOREIGN_IDENTITY, f"{named} is {shown(item[key])}, the topic says {own}"
            )
