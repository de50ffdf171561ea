"""Finished charging sessions: from a JSON list to checked records."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

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
_KEYS = frozenset(
    {"session", "connector", "vehicle", "started_at", "ended_at", "start_wh", "stop_wh"}
    | {"billed_wh", "currency", "energy_fee", "service_fee", "other_fee", "discount", "total_fee"}
    | {"periods"}
    | {"soc_start_pct", "soc_stop_pct", "battery_capacity_wh", "bms_energy_wh"}
    | {"stop_reason", "signed"}
)
_ENERGIES = ("start_wh", "stop_wh", "billed_wh")
_PERIOD_KEYS = frozenset({"from", "to", "energy_wh", "energy_price", "service_price"})
_SIGNED_KEYS = frozenset({"format", "data", "public_key"})


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session as it is stored; `index` is its place in the message."""

    index: int
    session: str
    connector: str
    vehicle: str | None
    started_at: datetime
    ended_at: datetime
    ended_at_us: int
    start_wh: float
    stop_wh: float
    billed_wh: float
    currency: str | None
    energy_fee: str | None
    service_fee: str | None
    other_fee: str | None
    discount: str | None
    total_fee: str | None
    periods: str | None
    soc_start_pct: float | None
    soc_stop_pct: float | None
    battery_capacity_wh: float | None
    bms_energy_wh: float | None
    stop_reason: str | None
    signed_format: str | None
    signed_data: str | None
    signed_public_key: str | None
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


def _number(item: dict[str, Any], key: str, path: str, *, most: float) -> float | None:
    if item.get(key) is None:  # null says as much as a missing key
        return None
    return fields.number(item[key], f"{path}.{key}", least=0.0, most=most)


def _text(item: dict[str, Any], key: str, path: str, *, limit: int, least: int = 0) -> str | None:
    if item.get(key) is None:  # null says as much as a missing key
        return None
    return fields.text_value(item[key], f"{path}.{key}", limit=limit, least=least)


def _free_text(item: dict[str, Any], key: str, path: str) -> str | None:
    text = _text(item, key, path, limit=fields.MAX_TEXT)
    return None if text is None else without_vin(text)


def _money(item: dict[str, Any], key: str, path: str) -> str | None:
    return fields.decimal_text(item[key], f"{path}.{key}") if item.get(key) is not None else None


def _discount(item: dict[str, Any], path: str) -> str | None:
    discount = _money(item, "discount", path)
    if discount is not None and discount.startswith("-") and float(discount) < 0:
        raise fields.invalid(f"{path}.discount", "is negative: what is taken off is told positive")
    return discount


def _energy(item: dict[str, Any], key: str, path: str) -> float:
    """Return an energy as it was told."""
    value = fields.required(item, key, path)
    return fields.number(value, f"{path}.{key}", least=0.0, most=fields.MAX_ENERGY_WH)


def _vehicle(item: dict[str, Any], path: str) -> str | None:
    vehicle = _text(item, "vehicle", path, limit=fields.MAX_TEXT, least=1)
    if vehicle is not None and names_vehicle(vehicle):
        raise RejectedItem(
            PERSONAL_DATA, f"{path}.vehicle is a plain VIN; send a keyed hash (it was not kept)"
        )
    return vehicle


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
        "energy_wh": _energy(item, "energy_wh", path),
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
    return form, body, _text(signed, "public_key", path, limit=MAX_SIGNED)


def _currency(item: dict[str, Any], path: str) -> str | None:
    currency = _text(item, "currency", path, limit=fields.MAX_TEXT)
    if currency is not None and _CURRENCY.fullmatch(currency) is None:
        raise fields.invalid(f"{path}.currency", f"is not three capital letters: {shown(currency)}")
    return currency


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
    content: dict[str, Any] = {
        "session": fields.name(
            fields.required(item, "session", path), f"{path}.session", limit=fields.MAX_TEXT
        ),
        "connector": fields.name(fields.required(item, "connector", path), f"{path}.connector"),
        "vehicle": _vehicle(item, path),
        "start_wh": _energy(item, "start_wh", path),
        "stop_wh": _energy(item, "stop_wh", path),
        "billed_wh": _energy(item, "billed_wh", path),
        "currency": _currency(item, path),
        "energy_fee": _money(item, "energy_fee", path),
        "service_fee": _money(item, "service_fee", path),
        "total_fee": _money(item, "total_fee", path),
        "soc_start_pct": _number(item, "soc_start_pct", path, most=100.0),
        "soc_stop_pct": _number(item, "soc_stop_pct", path, most=100.0),
        "battery_capacity_wh": _number(
            item, "battery_capacity_wh", path, most=fields.MAX_ENERGY_WH
        ),
        "bms_energy_wh": _number(item, "bms_energy_wh", path, most=fields.MAX_ENERGY_WH),
        "stop_reason": _free_text(item, "stop_reason", path),
        "signed_format": signed_format,
        "signed_data": signed_data,
        "signed_public_key": signed_public_key,
    }
    added = {"other_fee": _money(item, "other_fee", path), "discount": _discount(item, path)}
    content_hash = _hash(content, added, (started_us, ended_us), periods)
    content |= {key: fields.rounded_wh(content[key]) for key in _ENERGIES}
    for period in periods or ():
        period["energy_wh"] = fields.rounded_wh(period["energy_wh"])
    return SessionRecord(
        index=index,
        started_at=moment(started_us, f"{path}.started_at"),
        ended_at=moment(ended_us, f"{path}.ended_at"),
        ended_at_us=ended_us,
        periods=None if periods is None else orjson.dumps(periods).decode(),
        content_hash=content_hash,
        **(content | added),
    )


def _hash(
    content: dict[str, Any],
    added: dict[str, Any],
    times_us: tuple[int, int],
    periods: list[dict[str, Any]] | None,
) -> bytes:
    """Return the hash that tells a session sent again from a changed one.

    It must stay the same from version to version: what the contract got later counts only when it
    is told, and energies count as they came.
    """
    canonical = {
        **content,
        **{key: value for key, value in added.items() if value is not None},
        "started_us": times_us[0],
        "ended_us": times_us[1],
        "periods": periods,
    }
    return hashlib.sha256(orjson.dumps(canonical, option=orjson.OPT_SORT_KEYS)).digest()


def _rounded(item: dict[str, Any]) -> int:
    """Return how many energies of a session had more than three decimals."""
    told = [item[key] for key in _ENERGIES]
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
