"""Readings of connectors and of reference meters: from a JSON list to columns.

Two ways lead to the same columns: whole columns at once when everything is as expected, and item
by item when anything is odd (or the message is small). Only the second one words rejections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargewatch.domain.identity import name_fault
from chargewatch.wire import fields
from chargewatch.wire.payloads import CONTEXTS
from chargewatch.wire.rejection import INVALID_FIELD, RejectedItem, Rejection, shown
from chargewatch.wire.rfc3339 import parse_time, parse_times
from chargewatch.wire.topics import Topic

NAN = float("nan")
CONTEXT_INDEX = {name: index for index, name in enumerate(CONTEXTS)}
DEFAULT_CONTEXT = CONTEXT_INDEX["Sample.Periodic"]

_SMALL = 6  # below this many items the columns cost more than they save
MEASURES = ("power_w", "voltage_v", "current_a", "soc_pct")
_REGISTER_KEYS = frozenset(
    {"connector", "at", "energy_wh", "power_w", "voltage_v", "current_a", "soc_pct"}
    | {"session", "context"}
)
_REFERENCE_KEYS = frozenset({"meter", "at", "energy_wh"})
_DEFAULTS = {**dict.fromkeys(MEASURES, NAN), "session": "", "context": "Sample.Periodic"}
_LEAST = np.array([0.0, -fields.MAX_REAL, -fields.MAX_REAL, -fields.MAX_REAL, 0.0])
_MOST = np.array([fields.MAX_ENERGY_WH, fields.MAX_REAL, fields.MAX_REAL, fields.MAX_REAL, 100.0])


@dataclass(slots=True)
class DecodedReadings:
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
    rounded: int = 0
    """Energies that had more than three decimals."""
    rejections: list[Rejection] = field(default_factory=list)
    may_nest: bool = False
    """Whether lists or objects may be where this version knows none."""

    def place(self, row: int) -> int:
        """Return the place in the message of a row of the columns."""
        return row if self.index is None else int(self.index[row])

    def named(self, key: str) -> set[str]:
        """Return the instruments that readings name, of the one key that names any."""
        del key
        return set(self.names)

    def session_names(self) -> set[str]:
        """Return the sessions that readings name."""
        return {session for session in self.sessions or () if session is not None}


class _OddError(Exception):
    """The fast way gives up; the exact one finds out why."""


def _table(items: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the items as columns; KeyError when they have not all the keys of the first."""
    keys = tuple(items[0])
    if len(keys) < 2 or set(map(len, items)) != {len(keys)}:
        raise KeyError
    # An item of as many keys that has all of the first's has no others: a KeyError tells.
    return dict(zip(keys, zip(*map(itemgetter(*keys), items), strict=True), strict=True))


def _unknown_columns(table: dict[str, tuple[Any, ...]], known: frozenset[str]) -> tuple[int, bool]:
    """Return how many unknown keys there are, and whether any holds a list or an object."""
    unknown = [column for key, column in table.items() if key not in known]
    if not unknown:
        return 0, False
    types = {kind for column in unknown for kind in set(map(type, column))}
    return len(unknown) * len(unknown[0]), dict in types or list in types


def _mixed_table(items: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return registers as columns when items differ in what they tell."""
    table = {key: tuple(map(itemgetter(key), items)) for key in ("connector", "at", "energy_wh")}
    for key, absent in _DEFAULTS.items():
        table[key] = tuple([item.get(key, absent) for item in items])
    return table


def _texts(column: tuple[Any, ...], *, least: int, most: int) -> set[str]:
    """Return the distinct texts of a column, checked."""
    distinct = set(column)
    if set(map(type, distinct)) != {str}:
        raise _OddError
    lengths = list(map(len, distinct))
    if min(lengths) < least or max(lengths) > most:
        raise _OddError
    text = "".join(distinct)
    plain = text.isascii() and text.isprintable() and " " not in text
    if not plain and any(map(name_fault, distinct)):
        raise _OddError
    return distinct


def _times(column: tuple[Any, ...]) -> NDArray[np.int64]:
    distinct = set(column)
    if set(map(type, distinct)) != {str}:
        raise _OddError
    if 2 * len(distinct) > len(column):
        return np.array(parse_times(column), dtype=np.int64)
    # The connectors of a station are read together: few times, many readings.
    order = list(distinct)
    known = dict(zip(order, parse_times(order), strict=True))
    return np.array(list(map(known.__getitem__, column)), dtype=np.int64)


def _numbers(
    columns: Sequence[tuple[Any, ...]], rows: Sequence[int]
) -> tuple[NDArray[np.float64], int]:
    """Return the columns, checked against the limits of their rows, and how many were rounded.

    The first column is the energy, whose limits are those of row 0.
    """
    if not set(map(type, chain.from_iterable(columns))) <= {float, int}:
        raise _OddError
    values = np.array(columns, dtype=np.float64)
    limits = list(rows)
    # NaN stands for an absent value; it compares false, so a column without values is inside.
    outside = np.fmin.reduce(values, axis=1) < _LEAST[limits]
    outside |= np.fmax.reduce(values, axis=1) > _MOST[limits]
    if outside.any():
        raise _OddError
    energy = values[0]
    if energy.max() >= fields.DECIMALS_LIMIT_WH:
        raise _OddError
    told = np.rint(energy * 1000.0) / 1000.0
    rounded = int(np.count_nonzero(told != energy))
    values[0] = told + 0.0  # no negative zero
    return values, rounded


def _fast_registers(items: list[dict[str, Any]]) -> DecodedReadings:
    try:
        table = _table(items)
        unknown_keys, may_nest = _unknown_columns(table, _REGISTER_KEYS)
    except KeyError:
        table = _mixed_table(items)
        unknown_keys = sum(len(item.keys() - _REGISTER_KEYS) for item in items)
        may_nest = unknown_keys > 0
    names = table["connector"]
    _texts(names, least=1, most=fields.MAX_NAME)
    given = [n for n, key in enumerate(MEASURES, start=1) if key in table]
    numbers, rounded = _numbers(
        [table["energy_wh"], *(table[MEASURES[n - 1]] for n in given)], [0, *given]
    )
    values = np.full((1 + len(MEASURES), len(items)), NAN)
    values[[0, *given]] = numbers
    sessions: list[str | None] | None = None
    if "session" in table:
        distinct = _texts(table["session"], least=0, most=fields.MAX_TEXT)
        sessions = list(table["session"])
        if "" in distinct:
            sessions = [session or None for session in sessions] if len(distinct) > 1 else None
    contexts: list[int] | None = None
    if "context" in table:
        named = {CONTEXT_INDEX[context] for context in set(table["context"])}
        if named != {DEFAULT_CONTEXT}:
            contexts = list(map(CONTEXT_INDEX.__getitem__, table["context"]))
    return DecodedReadings(
        names=list(names),
        at_us=_times(table["at"]),
        values=values,
        sessions=sessions,
        contexts=contexts,
        unknown_keys=unknown_keys,
        rounded=rounded,
        may_nest=may_nest,
    )


def _fast_reference(items: list[dict[str, Any]]) -> DecodedReadings:
    table = _table(items)
    _texts(table["meter"], least=1, most=fields.MAX_NAME)
    unknown_keys, may_nest = _unknown_columns(table, _REFERENCE_KEYS)
    numbers, rounded = _numbers([table["energy_wh"]], [0])
    return DecodedReadings(
        names=list(table["meter"]),
        at_us=_times(table["at"]),
        values=numbers,
        unknown_keys=unknown_keys,
        rounded=rounded,
        may_nest=may_nest,
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
    name = fields.name(fields.required(item, key, path), f"{path}.{key}")
    at_us = parse_time(fields.required(item, "at", path), f"{path}.at")
    energy = fields.energy_wh(fields.required(item, "energy_wh", path), f"{path}.energy_wh")
    return name, at_us, energy


def _register_row(item: Any, path: str, topic: Topic) -> _Row:
    name, at_us, energy = _instrument(item, "connector", path, topic)
    values = [energy, *(_optional(item, key, path) for key in MEASURES)]
    session: str | None = None
    if item.get("session") is not None:
        session = (
            fields.name(item["session"], f"{path}.session", limit=fields.MAX_TEXT, least=0) or None
        )
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
) -> DecodedReadings:
    rows: list[_Row] = []
    places: list[int] = []
    rejections: list[Rejection] = []
    unknown = rounded = 0
    for place, item in enumerate(items):
        if type(item) is dict:
            unknown += len(item) - len(known & item.keys())
        try:
            row = read_row(item, f"readings[{place}]", topic)
            rows.append(row)
            places.append(place)
            rounded += row[2][0] != item["energy_wh"]
        except RejectedItem as exc:
            rejections.append(Rejection(place, exc.code, exc.detail))
    height = 5 if known is _REGISTER_KEYS else 1
    return DecodedReadings(
        names=[row[0] for row in rows],
        at_us=np.array([row[1] for row in rows], dtype=np.int64),
        values=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, height).T,
        sessions=[row[3] for row in rows] if any(row[3] for row in rows) else None,
        contexts=[row[4] for row in rows] if any(row[4] for row in rows) else None,
        index=np.array(places, dtype=np.int64) if rejections else None,
        unknown_keys=unknown,
        rounded=rounded,
        rejections=rejections,
        may_nest=bool(unknown or rejections),
    )


def read_registers(items: list[Any], topic: Topic) -> DecodedReadings:
    """Return the columns of a `registers` message's readings."""
    columns = _try_fast(items, _fast_registers)
    return columns or _exact(items, topic, _register_row, _REGISTER_KEYS)


def read_reference(items: list[Any], topic: Topic) -> DecodedReadings:
    """Return the columns of a `reference` message's readings."""
    columns = _try_fast(items, _fast_reference)
    return columns or _exact(items, topic, _reference_row, _REFERENCE_KEYS)


def _try_fast(
    items: list[Any], read: Callable[[list[dict[str, Any]]], DecodedReadings]
) -> DecodedReadings | None:
    if len(items) < _SMALL or set(map(type, items)) != {dict}:
        return None
    try:
        columns = read(items)
    except (_OddError, RejectedItem, KeyError, TypeError, ValueError, OverflowError):
        return None
    if columns.unknown_keys and any(map(_names_identity, items)):
        return None
    return columns
