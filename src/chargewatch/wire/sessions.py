"""Finished charging sessions: from a JSON list to checked records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from chargewatch.domain.columns import ValueKind
from chargewatch.domain.session import SESSION_COLUMNS, TOLD_COLUMNS, Session
from chargewatch.wire import fields
from chargewatch.wire.personal import names_a_vehicle_id, names_vehicle, without_vin
from chargewatch.wire.rejection import (
    PERSONAL_DATA,
    RejectedItem,
    Rejection,
    shown,
)
from chargewatch.wire.rfc3339 import moment, parse_time
from chargewatch.wire.topics import Topic

MAX_PERIODS = 1000
MAX_SIGNED = 1 << 17
_CURRENCY = re.compile("[A-Z]{3}")
_ENERGIES = tuple(c.name for c in SESSION_COLUMNS if c.kind == ValueKind.ENERGY)
_KEYS = frozenset(c.name for c in TOLD_COLUMNS if c.kind != ValueKind.SIGNED) | {"signed"}
_LATER = tuple(c.name for c in SESSION_COLUMNS if c.later)
_PERIOD_KEYS = frozenset({"from", "to", "energy_wh", "energy_price", "service_price"})
_SIGNED_KEYS = frozenset({"format", "data", "public_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord(Session):
    """One session as it is stored; `index` is its place in the message."""

    index: int
    connector: str
    ended_at_us: int
    content_hash: bytes


@dataclass(slots=True)
class Sessions:
    """The good sessions of one message and what was refused of it."""

    records: list[SessionRecord]
    rejections: list[Rejection]
    unknown_keys: int
    rounded: int = 0
    """Energies that had more than three decimals."""

    @property
    def may_nest(self) -> bool:
        """Whether lists or objects may be where this version knows none."""
        return bool(self.unknown_keys or self.rejections)

    def named(self, key: str) -> set[str]:
        """Return the connectors that sessions name."""
        return {getattr(record, key) for record in self.records}

    def session_names(self) -> set[str]:
        """Return the sessions that are named."""
        return {record.session for record in self.records}


def _label(value: Any, path: str) -> str:
    return fields.name(value, path, limit=fields.MAX_TEXT)


def _energy(value: Any, path: str) -> float:
    """Return an energy as it was told."""
    return fields.number(value, path, least=0.0, most=fields.MAX_ENERGY_WH)


def _percent(value: Any, path: str) -> float:
    return fields.number(value, path, least=0.0, most=100.0)


def _free_text(value: Any, path: str) -> str:
    return without_vin(fields.text_value(value, path, least=0))


def _discount(value: Any, path: str) -> str:
    discount = fields.decimal_text(value, path)
    if discount.startswith("-") and float(discount) < 0:
        raise fields.invalid(path, "is negative: what is taken off is told positive")
    return discount


def _vehicle(value: Any, path: str) -> str:
    vehicle = fields.text_value(value, path)
    if names_vehicle(vehicle):
        raise RejectedItem(
            PERSONAL_DATA, f"{path} is a plain VIN; send a keyed hash (it was not kept)"
        )
    return vehicle


def _currency(value: Any, path: str) -> str:
    currency = fields.text_value(value, path, least=0)
    if _CURRENCY.fullmatch(currency) is None:
        raise fields.invalid(path, f"is not three capital letters: {shown(currency)}")
    return currency


def _moment(value: Any, path: str) -> datetime:
    return moment(parse_time(value, path), path)


_CHECKS: Mapping[ValueKind, Callable[[Any, str], Any]] = {
    ValueKind.NAME: fields.name,
    ValueKind.LABEL: _label,
    ValueKind.PSEUDONYM: _vehicle,
    ValueKind.MOMENT: _moment,
    ValueKind.ENERGY: _energy,
    ValueKind.CAPACITY: _energy,
    ValueKind.PERCENT: _percent,
    ValueKind.CURRENCY: _currency,
    ValueKind.MONEY: fields.decimal_text,
    ValueKind.DISCOUNT: _discount,
    ValueKind.FREE_TEXT: _free_text,
}
"""What a value of each kind must be."""

_SPAN = ("started_at", "ended_at")
# In this order the first fault is told. The span, periods and the signed record come before.
_CHECKED = [
    (column.name, column.optional, _CHECKS[column.kind])
    for column in sorted(TOLD_COLUMNS, key=lambda column: column.later)
    if column.name not in _SPAN and column.kind not in (ValueKind.PERIODS, ValueKind.SIGNED)
]


def _values(item: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the checked values of a session by name."""
    told: dict[str, Any] = {}
    for name, optional, check in _CHECKED:
        value = item.get(name)
        if value is None:
            if optional:  # null says as much as a missing key
                told[name] = None
                continue
            value = fields.required(item, name, path)
        told[name] = check(value, f"{path}.{name}")
    return told


def _period(item: Any, path: str) -> dict[str, Any]:
    if type(item) is not dict:
        raise fields.invalid(path, f"is not an object: {shown(item)}")
    start_us = parse_time(fields.required(item, "from", path), f"{path}.from")
    end_us = parse_time(fields.required(item, "to", path), f"{path}.to")
    if end_us < start_us:
        raise fields.invalid(f"{path}.to", "is before from")
    period = {
        "from": moment(start_us, f"{path}.from").isoformat(),
        "to": moment(end_us, f"{path}.to").isoformat(),
        "energy_wh": _energy(fields.required(item, "energy_wh", path), f"{path}.energy_wh"),
    }
    for key in ("energy_price", "service_price"):
        if item.get(key) is not None:
            period[key] = fields.decimal_text(item[key], f"{path}.{key}")
    return period


def _periods(item: dict[str, Any], path: str) -> list[dict[str, Any]] | None:
    given = item.get("periods")
    if given is None:
        return None
    if type(given) is not list or len(given) > MAX_PERIODS:
        raise fields.invalid(f"{path}.periods", f"is not a list of up to {MAX_PERIODS} periods")
    return [_period(period, f"{path}.periods[{n}]") for n, period in enumerate(given)]


def _signed(item: dict[str, Any], path: str) -> tuple[str | None, str | None, str | None]:
    if item.get("signed") is None:
        return None, None, None
    signed, path = item["signed"], f"{path}.signed"
    if type(signed) is not dict:
        raise fields.invalid(path, f"is not an object: {shown(signed)}")
    form = fields.text_value(fields.required(signed, "format", path), f"{path}.format")
    body = fields.text_value(
        fields.required(signed, "data", path), f"{path}.data", limit=MAX_SIGNED
    )
    if names_a_vehicle_id(body):
        raise RejectedItem(
            PERSONAL_DATA, f"{path}.data has a plain VIN as its identification (it was not kept)"
        )
    key = signed.get("public_key")
    if key is not None:
        key = fields.text_value(key, f"{path}.public_key", limit=MAX_SIGNED, least=0)
    return form, body, key


def _record(item: Any, index: int, topic: Topic) -> SessionRecord:
    path = f"sessions[{index}]"
    if type(item) is not dict:
        raise fields.invalid(path, f"is not an object: {shown(item)}")
    fields.own_identity(item, f"{path}.", topic.operator_id, topic.station_id)
    started_us = parse_time(fields.required(item, "started_at", path), f"{path}.started_at")
    ended_us = parse_time(fields.required(item, "ended_at", path), f"{path}.ended_at")
    if ended_us < started_us:
        raise fields.invalid(f"{path}.ended_at", "is before started_at")
    periods = _periods(item, path)
    signed_format, signed_data, signed_public_key = _signed(item, path)
    content = _values(item, path)
    content |= {
        "signed_format": signed_format,
        "signed_data": signed_data,
        "signed_public_key": signed_public_key,
    }
    content_hash = _hash(content, (started_us, ended_us), periods)
    content |= {
        key: fields.rounded_wh(content[key]) for key in _ENERGIES if content[key] is not None
    }
    for period in periods or ():
        period["energy_wh"] = fields.rounded_wh(period["energy_wh"])
    return SessionRecord(
        index=index,
        started_at=moment(started_us, f"{path}.started_at"),
        ended_at=moment(ended_us, f"{path}.ended_at"),
        ended_at_us=ended_us,
        periods=None if periods is None else orjson.dumps(periods).decode(),
        content_hash=content_hash,
        **content,
    )


def _hash(
    content: dict[str, Any],
    times_us: tuple[int, int],
    periods: list[dict[str, Any]] | None,
) -> bytes:
    """Return the hash that tells a session sent again from a changed one.

    It must stay the same from version to version: what the contract got later counts only when it
    is told, and energies count as they came.
    """
    canonical = {
        **content,
        "started_us": times_us[0],
        "ended_us": times_us[1],
        "periods": periods,
    }
    for name in _LATER:
        if canonical[name] is None:
            del canonical[name]
    return hashlib.sha256(orjson.dumps(canonical, option=orjson.OPT_SORT_KEYS)).digest()


def _rounded(item: dict[str, Any]) -> int:
    """Return how many energies of a session had more than three decimals."""
    told = [item[key] for key in _ENERGIES if item.get(key) is not None]
    told += [period["energy_wh"] for period in item.get("periods") or ()]
    return sum(energy != fields.rounded_wh(energy) for energy in told)


def _unknown_keys(item: Any) -> int:
    """Return how many keys of a session, its periods and its signed record are not known."""
    if type(item) is not dict:
        return 0
    count = len(item.keys() - _KEYS)
    periods, signed = item.get("periods"), item.get("signed")
    if type(signed) is dict:
        count += len(signed.keys() - _SIGNED_KEYS)
    if type(periods) is list:
        count += sum(len(p.keys() - _PERIOD_KEYS) for p in periods if type(p) is dict)
    return count


def read_sessions(items: list[Any], topic: Topic) -> Sessions:
    """Return the records of a `sessions` message."""
    result = Sessions([], [], 0)
    for index, item in enumerate(items):
        result.unknown_keys += _unknown_keys(item)
        try:
            result.records.append(_record(item, index, topic))
            result.rounded += _rounded(item)
        except RejectedItem as exc:
            result.rejections.append(Rejection(index, exc.code, exc.detail))
    return result
