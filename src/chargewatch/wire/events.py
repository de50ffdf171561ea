"""Declared changes at instruments: from a JSON list to checked records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chargewatch.wire import fields
from chargewatch.wire.payloads import EVENT_KINDS
from chargewatch.wire.personal import without_vin
from chargewatch.wire.rejection import RejectedItem, Rejection, shown
from chargewatch.wire.rfc3339 import moment, parse_time
from chargewatch.wire.topics import Topic

MAX_DETAIL = 1000
_KEYS = frozenset({"connector", "meter", "at", "kind", "detail", "serial", "start_wh", "stop_wh"})


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One declared change; `index` is its place in the message.

    connector, meter: at most one of them is told; neither: the station.
    """

    index: int
    connector: str | None
    meter: str | None
    at: datetime
    at_us: int
    kind: str
    detail: str | None
    serial: str | None
    start_wh: float | None
    stop_wh: float | None


@dataclass(slots=True)
class Events:
    """The good events of one message and what was refused of it."""

    records: list[EventRecord]
    rejections: list[Rejection]
    unknown_keys: int = 0
    rounded: int = 0
    """Energies that had more than three decimals."""

    @property
    def may_nest(self) -> bool:
        """Whether lists or objects may be where this version knows none."""
        return bool(self.unknown_keys or self.rejections)

    def named(self, key: str) -> set[str]:
        """Return the connectors, or reference meters, that events name."""
        return {name for record in self.records if (name := getattr(record, key)) is not None}

    def session_names(self) -> set[str]:
        """Return no sessions."""
        return set()


def _name(item: dict[str, Any], key: str, path: str) -> str | None:
    return None if item.get(key) is None else fields.name(item[key], f"{path}.{key}")


def _text(item: dict[str, Any], key: str, path: str, *, limit: int) -> str | None:
    if item.get(key) is None:
        return None
    return fields.text_value(item[key], f"{path}.{key}", limit=limit, least=0)


def _energy(item: dict[str, Any], key: str, path: str) -> float | None:
    return None if item.get(key) is None else fields.energy_wh(item[key], f"{path}.{key}")


def _record(item: Any, index: int, topic: Topic) -> EventRecord:
    path = f"events[{index}]"
    if type(item) is not dict:
        raise fields.invalid(path, f"is not an object: {shown(item)}")
    fields.own_identity(item, f"{path}.", topic.operator_id, topic.station_id)
    connector, meter = _name(item, "connector", path), _name(item, "meter", path)
    if connector is not None and meter is not None:
        raise fields.invalid(path, "names a connector and a meter: send one event for each")
    at_us = parse_time(fields.required(item, "at", path), f"{path}.at")
    kind = fields.required(item, "kind", path)
    if type(kind) is not str or kind not in EVENT_KINDS:
        raise fields.invalid(f"{path}.kind", f"is unknown: {shown(kind)}")
    detail = _text(item, "detail", path, limit=MAX_DETAIL)
    return EventRecord(
        index=index,
        connector=connector,
        meter=meter,
        at=moment(at_us, f"{path}.at"),
        at_us=at_us,
        kind=kind,
        detail=None if detail is None else without_vin(detail),
        serial=_text(item, "serial", path, limit=fields.MAX_TEXT),
        start_wh=_energy(item, "start_wh", path),
        stop_wh=_energy(item, "stop_wh", path),
    )


def read_events(items: list[Any], topic: Topic) -> Events:
    """Return the records of an `events` message."""
    result = Events([], [])
    for index, item in enumerate(items):
        if type(item) is dict:
            result.unknown_keys += len(item.keys() - _KEYS)
        try:
            record = _record(item, index, topic)
        except RejectedItem as exc:
            result.rejections.append(Rejection(index, exc.code, exc.detail))
            continue
        result.records.append(record)
        for key in ("start_wh", "stop_wh"):
            told = getattr(record, key)
            result.rounded += told is not None and told != item[key]
    return result
