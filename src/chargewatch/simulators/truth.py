"""truth.json: every meter's error, every fault, every signal that must be raised."""

from __future__ import annotations

from typing import Any

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.faults import Fault
from chargewatch.simulators.history import History
from chargewatch.simulators.stream import PacketStream
from chargewatch.simulators.wire_form import time_texts


def present_error(city: History, stream: PacketStream, t_s: float) -> Floats:
    """Return each meter's energy-weighted error with its lasting part as of t_s, shape (n,).

    The part that depends on load, temperature and situation is the mean over the energy really
    delivered; t_s is simulation time. Without energy it is the error of a usual load.
    """
    ledger = stream.ledger
    rows = np.arange(city.layout.connectors.size)
    usual = np.where(city.layout.connectors.is_dc, 0.5, 0.9)
    unused = city.meters.load_error(rows, usual, np.full(rows.size, 20.0))
    by_load = np.divide(ledger.load_error_wh, ledger.true_wh, out=unused, where=ledger.true_wh > 0)
    lasting = city.meters.lasting_error(rows, np.full(rows.size, t_s))
    return np.asarray(lasting + by_load + ledger.cheats.mean_error())


def truth_document(city: History, stream: PacketStream) -> dict[str, Any]:
    """Return truth.json of a history that was generated to its end."""
    begin_s, end_s = city.from_s - city.origin_s, city.to_s - city.origin_s
    now, before = present_error(city, stream, end_s), present_error(city, stream, begin_s)
    published = stream.published
    connectors = []
    for i, name in enumerate(city.layout.connectors.name):
        faults = city.faults.of_connector.get(i, [])
        signals, allowed = _signals(city, stream, i)
        connectors.append(
            {
                "connector": name,
                "relative_error": round(float(now[i]), 6),
                "changes": _changes(city, stream, i, (float(before[i]), begin_s, end_s)),
                "signals": sorted(signals),
                "allowed_signals": sorted(allowed - signals),
                "faults": [f.kind.name for f in faults],
                "mpe": float(city.layout.connectors.mpe[i]),
                "is_dc": bool(city.layout.connectors.is_dc[i]),
                "station_id": city.layout.stations.name[int(city.layout.connectors.station[i])],
                "sessions": int(published.connector_sessions[i]),
                "session_wh": round(float(published.session_wh[i]), 3),
                "billed_wh": round(float(published.billed_wh[i]), 3),
                **situation_row(stream, i),
            }
        )
    return {
        "version": 1,
        "from": city.time_text(city.from_s),
        "to": city.time_text(city.to_s),
        "scenario": city.scenario.name,
        "seed": city.seed,
        "connectors": connectors,
        "stations": _stations(city),
        "faults": _faults(city),
        "messages": {
            "published": published.messages,
            "distinct_readings": published.readings + published.reference_readings,
            "connector_readings": published.readings,
            "reference_readings": published.reference_readings,
            "sessions": published.sessions,
        },
    }


def situation_row(stream: PacketStream, i: int) -> dict[str, Any]:
    """Return where a meter is wrong, if only in a situation, and by how much in and out of it."""
    cheat = stream.ledger.cheats.of_connector.get(i)
    if cheat is None:
        return {}
    split = cheat.split

    def share(error_wh: float, true_wh: float) -> float | None:
        return round(error_wh / true_wh, 6) if true_wh > 0 else None

    true_wh = split.inside_wh + split.outside_wh
    error_wh = split.inside_error_wh + split.outside_error_wh
    return {
        "situation": {
            **cheat.situation.told(),
            "error_inside": share(split.inside_error_wh, split.inside_wh),
            "error_outside": share(split.outside_error_wh, split.outside_wh),
            "energy_share_inside": share(split.inside_wh, true_wh),
            "energy_weighted_error": share(error_wh, true_wh),
        }
    }


COUNTED = {
    "rollover",
    "reset",
    "jump",
    "unit",
    "loss_billing",
    "fee",
    "billed",
    "forged",
    "replayed",
    "conflict",
    "tou_clock",
    "withheld",
    "zero_baseline",
}
"""Faults whose effects are counted one by one; those of the others follow from energy sold."""
STUCK_WH = 1_000.0
"""Energy that must have flowed past a stuck register before that is proof."""


def _signals(city: History, stream: PacketStream, i: int) -> tuple[set[str], set[str]]:
    """Return the signals a connector must raise, and those it may raise."""
    must: set[str] = set()
    may: set[str] = set()
    for fault in city.faults.of_connector.get(i, []):
        name = fault.kind.name
        if name in COUNTED:
            struck = city.faults.struck[name, i] >= LEAST_STRIKES.get(name, 1)
        elif name == "stuck":
            struck = float(stream.ledger.stuck_wh[i]) >= STUCK_WH
        elif name in {"leak", "silent", "unregistered"}:
            struck = True
        else:
            struck = int(stream.published.connector_sessions[i]) >= LEAST_SESSIONS
        may.update(fault.kind.allowed, fault.kind.signals)
        if struck:
            must.update(fault.kind.signals)
    station = int(city.layout.connectors.station[i])
    for fault in city.faults.of_station.get(station, []):
        # A silent or lossy gateway shows on its connectors, too.
        may.update(fault.kind.allowed, fault.kind.signals)
    return must, may


LEAST_SESSIONS = 4
"""Sessions that a connector must have sold before a fault of all its sessions is asked for."""
LEAST_STRIKES = {"loss_billing": 5, "tou_clock": 3}
"""A constant ratio is one only over several sessions."""


def _station_struck(city: History, fault: Fault) -> bool:
    return fault.kind.name != "missing" or city.faults.struck["missing", fault.target] > 0


def _changes(
    city: History, stream: PacketStream, i: int, known: tuple[float, float, float]
) -> list[dict[str, Any]]:
    before, begin_s, end_s = known
    meters = city.meters
    times = [begin_s]
    if begin_s < meters.step_at[i] < end_s:
        times.append(float(meters.step_at[i]))
    if meters.drift_rate[i]:
        days = np.arange(max(begin_s, float(meters.drift_from[i])), end_s, 7 * DAY_S)
        times += [float(t) for t in days if t > begin_s]
    rows = np.full(len(times), i)
    at = np.array(times)
    lasting = meters.lasting_error(rows, at)
    errors = before + lasting - lasting[0]
    texts = time_texts(city.origin_s + at)
    return [
        {"at": text, "relative_error": round(float(error), 6)}
        for text, error in zip(texts, errors, strict=True)
    ]


def _stations(city: History) -> list[dict[str, Any]]:
    stations = city.layout.stations
    with_reference = set(city.layout.meters.station[city.layout.meters.connector < 0].tolist())
    rows = []
    for k, name in enumerate(stations.name):
        faults = city.faults.of_station.get(k, [])
        signals = {s for f in faults for s in f.kind.signals if _station_struck(city, f)}
        allowed = {s for f in faults for s in (*f.kind.signals, *f.kind.allowed)}
        rows.append(
            {
                "station_id": name,
                "reference_meter": k in with_reference,
                "signals": sorted(signals),
                "allowed_signals": sorted(allowed - signals),
                "faults": [f.kind.name for f in faults],
            }
        )
    return rows


def _faults(city: History) -> list[dict[str, Any]]:
    names = {
        "connector": city.layout.connectors.name,
        "station": city.layout.stations.name,
    }
    return [
        {
            "fault": fault.kind.name,
            "on": fault.kind.on,
            "target": names[fault.kind.on][fault.target],
            "parameters": dict(fault.parameters),
            "signals": list(fault.kind.signals),
            "allowed_signals": list(fault.kind.allowed),
        }
        for fault in city.faults.all
    ]
