"""Readings of connectors and of reference meters: from a JSON list to columns.

Two ways lead to the same columns: whole columns at once when everything is as expected, and item
by item when anything is odd (or the message is small). Only the second one words rejections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargewatch.wire import fields
from chargewatch.wire.payloads import CONTEXTS
from chargewatch.wire.rejection import INVALID_FIELD, RejectedItem, Rejection, shown
from chargewatch.wire.rfc3339 import parse_time, parse_times
from chargewatch.wire.topics import Topic

NAN = float("nan")
CONTEXT_INDEX = {name: index for index, name in enumerate(CONTEXTS)}
DEFAULT_CONTEXT = CONTEXT_INDEX["Sample.Periodic"]

_SMALL = 6  # below this many items the columns cost more than they save
_ABSENT: Any = object()  # nothing that JSON can say
_CONTEXT_OF: dict[Any, int] = {**CONTEXT_INDEX, _ABSENT: DEFAULT_CONTEXT}
_MEASURES = ("power_w", "voltage_v", "current_a", "soc_pct")
_REGISTER_KEYS = frozenset(
    {"connector", "at", "energy_wh", "power_w", "voltage_v", "current_a", "soc_pct"}
    | {"session", "context"}
)
_REFERENCE_KEYS = frozenset({"meter", "at", "energy_wh"})
_LEAST = np.array([0.0, -fields.MAX_REAL, -fields.MAX_REAL, -fields.MAX_REAL, 0.0])
_MOST = np.array([fields.MAX_ENERGY_WH, fields.MAX_REAL, fields.MAX_REAL, fields.MAX_REAL, 100.0])


@dataclass(slots=True)
class Columns:
    """The good readings of one message, in its order, and what was refused of it.

    values: rows energy_wh, power_w, voltage_v, current_a, soc_pct (registers) or energy_wh only
    (reference), shape (rows, n). index: place in the message; None when all n are in their place.
    sessions, contexts: None stands for "no session" and "Sample.Periodic" throughout.
    """

    names: list[str]
    at_us: NDArray[np.int64]
    values: NDArray[np.float64]
    sessions: list[str | None] | None = None
    contexts: list[int] | None = None
    index: NDArray[np.int64] | None = None
    unknown_keys: int = 0
    rejections: list[Rejection] = field(default_factory=list)

    def place(self, row: int) -> int:
        """Return the place in the message of a row of the columns."""
        return row if self.index is None else int(self.index[row])


class _OddError(Exception):
    """The fast way gives up; the exact one finds out why."""


def _texts(items: list[dict[str, Any]], key: str) -> list[str]:
    column = list(map(itemgetter(key), items))
    if set(map(type, column)) != {str}:
        raise _OddError
    return column


def _names(items: list[dict[str, Any]], key: str) -> list[str]:
    names = _texts(items, key)
    lengths = list(map(len, names))
    if min(lengths) < 1 or max(lengths) > fields.MAX_NAME or "\0" in "".join(names):
        raise _OddError
    return names


def _numbers(columns: Sequence[list[Any]]) -> NDArray[np.float64]:
    """Return the columns as an array, shape (columns, n), within their limits."""
    for column in columns:
        if not set(map(type, column)) <= {float, int}:
            raise _OddError
    values = np.array(columns, dtype=np.float64)
    height = len(columns)
    energy = values[0]
    inside = (np.fmin.reduce(values, axis=1) < _LEAST[:height]) | (
        np.fmax.reduce(values, axis=1) > _MOST[:height]
    )
    # A column without any value is all NaN; NaN compares false, so it counts as inside.
    if inside.any() or energy.max() >= fields.DECIMALS_LIMIT_WH:
        raise _OddError
    if not (np.rint(energy * 1000.0) / 1000.0 == energy).all():
        raise _OddError
    return values


def _fast_registers(items: list[dict[str, Any]]) -> Columns:
    measures = [[item.get(key, NAN) for item in items] for key in _MEASURES]
    values = _numbers([list(map(itemgetter("energy_wh"), items)), *measures])
    at_us = np.array(parse_times(_texts(items, "at")), dtype=np.int64)
    sessions: list[Any] = [item.get("session", _ABSENT) for item in items]
    named = set(sessions)
    absent_sessions = sessions.count(_ABSENT) if _ABSENT in named else 0
    named.discard(_ABSENT)
    for session in named:
        if type(session) is not str or len(session) > fields.MAX_TEXT or "\0" in session:
            raise _OddError
    given = [item.get("context", _ABSENT) for item in items]
    contexts = [_CONTEXT_OF[context] for context in given]
    known = 5 * len(items) - absent_sessions - given.count(_ABSENT)
    known += int(np.count_nonzero(values[1:] == values[1:]))
    return Columns(
        names=_names(items, "connector"),
        at_us=at_us,
        values=values,
        sessions=[None if s is _ABSENT or not s else s for s in sessions] if named else None,
        contexts=contexts if any(contexts) else None,
        unknown_keys=sum(map(len, items)) - known,
    )


def _fast_reference(items: list[dict[str, Any]]) -> Columns:
    return Columns(
        names=_names(items, "meter"),
        at_us=np.array(parse_times(_texts(items, "at")), dtype=np.int64),
        values=_numbers([list(map(itemgetter("energy_wh"), items))]),
        unknown_keys=sum(map(len, items)) - 3 * len(items),
    )


def _names_identity(item: dict[str, Any]) -> bool:
    return "station_id" in item or "operator_id" in item


_Row = tuple[str, int, list[float], str | None, int]


def _optional(item: dict[str, Any], key: str, path: str) -> float:
    if item.get(key) is None:  # null says as much as a missing key
        return NAN
    if key == "soc_pct":
        return fields.number(item[key], f"{path}.{key}", least=0.0, most=100.0)
    return fields.number(item[key], f"{path}.{key}")


def _instrument(item: Any, key: str, path: str, topic: Topic) -> tuple[str, int, float]:
    if type(item) is not dict:
        raise fields.invalid(path, f"is not an object: {shown(item)}")
    fields.own_identity(item, f"{path}.", topic.operator_id, topic.station_id)
    name = fields.text_value(
        fields.required(item, key, path), f"{path}.{key}", limit=fields.MAX_NAME
    )
    at_us = parse_time(fields.required(item, "at", path), f"{path}.at")
    energy = fields.energy_wh(fields.required(item, "energy_wh", path), f"{path}.energy_wh")
    return name, at_us, energy


def _register_row(item: Any, path: str, topic: Topic) -> _Row:
    name, at_us, energy = _instrument(item, "connector", path, topic)
    values = [energy, *(_optional(item, key, path) for key in _MEASURES)]
    session: str | None = None
    if item.get("session") is not None:
        session = fields.text_value(item["session"], f"{path}.session", least=0) or None
    context = DEFAULT_CONTEXT
    given = item.get("context")
    if given is not None:
        if type(given) is not str or given not in CONTEXT_INDEX:
            raise RejectedItem(INVALID_FIELD, f"{path}.context is unknown: {shown(given)}")
        context = CONTEXT_INDEX[given]
    return name, at_us, values, session, context


def _reference_row(item: Any, path: str, topic: Topic) -> _Row:
    name, at_us, energy = _instrument(item, "meter", path, topic)
    return name, at_us, [energy], None, 0


def _exact(
    items: list[Any],
    topic: Topic,
    read_row: Callable[[Any, str, Topic], _Row],
    known: frozenset[str],
) -> Columns:
    rows: list[_Row] = []
    places: list[int] = []
    rejections: list[Rejection] = []
    unknown = 0
    for place, item in enumerate(items):
        if type(item) is dict:
            unknown += len(item) - len(known & item.keys())
        try:
            rows.append(read_row(item, f"readings[{place}]", topic))
            places.append(place)
        except RejectedItem as exc:
            rejections.append(Rejection(place, exc.code, exc.detail))
    height = 5 if known is _REGISTER_KEYS else 1
    return Columns(
        names=[row[0] for row in rows],
        at_us=np.array([row[1] for row in rows], dtype=np.int64),
        values=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, height).T,
        sessions=[row[3] for row in rows] if any(row[3] for row in rows) else None,
        contexts=[row[4] for row in rows] if any(row[4] for row in rows) else None,
        index=np.array(places, dtype=np.int64) if rejections else None,
        unknown_keys=unknown,
        rejections=rejections,
    )


def read_registers(items: list[Any], topic: Topic) -> Columns:
    """Return the columns of a `registers` message's readings."""
    columns = _try_fast(items, _fast_registers)
    return columns or _exact(items, topic, _register_row, _REGISTER_KEYS)


def read_reference(items: list[Any], topic: Topic) -> Columns:
    """Return the columns of a `reference` message's readings."""
    columns = _try_fast(items, _fast_reference)
    return columns or _exact(items, topic, _reference_row, _REFERENCE_KEYS)


def _try_fast(items: list[Any], read: Callable[[list[dict[str, Any]]], Columns]) -> Columns | None:
    if len(items) < _SMALL or set(map(type, items)) != {dict}:
        return None
    try:
        columns = read(items)
    except (_OddError, RejectedItem, KeyError, TypeError, ValueError, OverflowError):
        return None
    if columns.unknown_keys and any(map(_names_identity, items)):
        return None
    return columns
