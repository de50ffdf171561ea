"""JSON that says nothing twice and holds no number that isn't one."""

from __future__ import annotations

import json
from typing import Any

from chargewatch.errors import ChargewatchError

MAX_NUMBER_LENGTH = 40


class JsonTextError(ChargewatchError):
    """JSON that can be read in two ways, or holds what no number is."""


def decoder() -> json.JSONDecoder:
    """Return a decoder that raises JsonTextError for double keys, NaN and endless numbers."""
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float, parse_int=_int
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise JsonTextError(f"the key {twice[:60]!r} stands there twice")
    return found


def _constant(text: str) -> float:
    raise JsonTextError(f"{text} is not a number")


def _float(text: str) -> float:
    number = float(text) if len(text) <= MAX_NUMBER_LENGTH else float("nan")
    if number - number != 0:
        raise JsonTextError(f"{text[:MAX_NUMBER_LENGTH]} is not a finite number of ordinary length")
    return number


def _int(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise JsonTextError(f"{text[:20]}... is a number of {len(text)} digits")
    return int(text)
