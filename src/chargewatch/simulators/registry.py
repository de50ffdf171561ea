"""The registry file of a simulated city, in the form of the contract."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from chargewatch.domain.arrays import Floats
from chargewatch.domain.times import DAY_S
from chargewatch.simulators.billing import tariff_rows
from chargewatch.simulators.bills import signing_secret
from chargewatch.simulators.draws import Draws
from chargewatch.simulators.faults import Faults
from chargewatch.simulators.layout import SITE_TYPES, Layout
from chargewatch.simulators.ocmf import public_key_hex
from chargewatch.simulators.scenario import Scenario

AC_CURRENTS = {7_000.0: 32.0, 11_000.0: 48.0}
MANUFACTURERS = ("Haihe", "Jinmen", "Beichen", "Wuqing")


def registry_document(
    scenario: Scenario,
    draws: Draws,
    *,
    layout: Layout,
    faults: Faults,
    from_s: float,
    to_s: float,
    healthy_error: Floats,
) -> dict[str, Any]:
    """Return registry.json; ``healthy_error`` is the meters' error at ``from_s`` without faults.

    Times are epoch seconds. A verification states the healthy meter's error of its day: how the
    meter has aged since, and what was tampered with, it can't know.
    """
    unregistered = set(faults.of_kind("unregistered"))
    kept = [i for i in range(layout.connectors.size) if i not in unregistered]
    return {
        "version": 1,
        "operators": _operators(scenario),
        "stations": _stations(layout, to_s),
        "connectors": [_connector(layout, draws, i, to_s) for i in kept],
        "reference_meters": _meters(layout, to_s, unregistered),
        "verifications": _verifications(
            scenario, draws, (layout, faults, kept), (from_s, to_s, healthy_error)
        ),
        "tariffs": _tariffs(layout, from_s, ZoneInfo(scenario.time_zone)),
    }


def _day(epoch_s: float) -> date:
    return (datetime.fromtimestamp(epoch_s, UTC) + timedelta(hours=8)).date()


def operator_id(number: int) -> str:
    """Return an operator's identifier."""
    return f"OP{number + 1}"


def _operators(scenario: Scenario) -> list[dict[str, Any]]:
    return [
        {
            "operator_id": operator_id(k),
            "name": f"Operator {chr(65 + k % 26)}{k // 26 or ''} Charging",
            "credit_code": f"91120000MA{k + 1:08d}",
            "contact": f"metering{k + 1}@example.invalid",
        }
        for k in range(scenario.operators)
    ]


def _stations(layout: Layout, to_s: float) -> list[dict[str, Any]]:
    stations = layout.stations
    return [
        {
            "station_id": stations.name[k],
            "operator_id": operator_id(int(stations.operator[k])),
            "name": f"{SITE_TYPES[int(stations.site[k])].capitalize()} station {k + 1}",
            "district": stations.district[k],
            "longitude": float(stations.longitude[k]),
            "latitude": float(stations.latitude[k]),
            "address": f"Tianjin, district {stations.district[k]}, no. {k + 1}",
            "opened_on": str(_day(to_s - 1300 * DAY_S)),
        }
        for k in range(stations.size)
    ]


def _connector(layout: Layout, draws: Draws, i: int, to_s: float) -> dict[str, Any]:
    c = layout.connectors
    is_dc, rated = bool(c.is_dc[i]), float(c.rated_w[i])
    maker = MANUFACTURERS[int(c.model[i]) % len(MANUFACTURERS)]
    kind = "DC" if is_dc else "AC"
    return {
        "connector": c.name[i],
        "pile": c.pile[i],
        "station_id": layout.stations.name[int(c.station[i])],
        "current": kind,
        "accuracy_class": c.accuracy_class[i],
        "rated_power_w": rated,
        "min_current_a": 1.0 if is_dc else 0.5,
        "max_current_a": 250.0 if is_dc else AC_CURRENTS[rated],
        "model": f"{maker}-{kind}{rated / 1000:.0f}-{int(c.model[i])}",
        "manufacturer": maker,
        "serial": f"SN{i + 1:08d}",
        "resolution_wh": float(c.resolution_wh[i]),
        "cable_loss_compensated": bool(c.compensated[i]),
        "in_service_on": str(_day(to_s - 1200 * DAY_S)),
        "signing_key": public_key_hex(signing_secret(draws, layout, i)) if c.signs[i] else None,
    }


def _meters(layout: Layout, to_s: float, unregistered: set[int]) -> list[dict[str, Any]]:
    m = layout.meters
    rows = []
    for j in range(m.size):
        connector = int(m.connector[j])
        if connector in unregistered:
            continue
        rows.append(
            {
                "meter": m.name[j],
                "station_id": layout.stations.name[int(m.station[j])],
                "scope": "station" if connector < 0 else "connector",
                "connectors": [] if connector < 0 else [layout.connectors.name[connector]],
                "current": "DC" if m.is_dc[j] else "AC",
                "relative_uncertainty": 2 * float(m.standard_uncertainty[j]),
                "coverage_factor": 2,
                "resolution_wh": float(m.resolution_wh[j]),
                "certificate": f"CAL-{m.name[j]}",
                "calibrated_on": str(_day(to_s - 200 * DAY_S)),
                "valid_until": str(_day(to_s + 165 * DAY_S)),
            }
        )
    return rows


def _verifications(
    scenario: Scenario,
    draws: Draws,
    who: tuple[Layout, Faults, list[int]],
    when: tuple[float, float, Floats],
) -> list[dict[str, Any]]:
    layout, faults, kept = who
    from_s, to_s, error = when
    n = np.arange(layout.connectors.size)
    address = (layout.connectors.station, n - layout.stations.first[layout.connectors.station])
    states = draws.uniform("states error", *address) < scenario.anchor_share
    age_days = 40 + 950 * draws.uniform("verification age", *address)
    again = faults.of_kind("cheat_unless_verified")
    for i, fault in again.items():
        # Verified once more within the history, by a load that its meter knows.
        states[i], age_days[i] = True, min(fault["verified_days"], (to_s - from_s) / DAY_S)
    u = 0.0008
    aged = layout.connectors.aging * (to_s - age_days * DAY_S - from_s)
    stated = np.round(error + aged + u * draws.normal("verification", *address), 5)
    expired = faults.of_kind("expired")
    unverified = set(faults.of_kind("unverified"))
    rows = []
    for i in kept:
        if i in unverified:
            continue
        verified = _day(to_s - age_days[i] * DAY_S)
        until = verified + timedelta(days=3 * 365)
        if i in expired:
            until = _day(max(to_s - expired[i]["begin_days"] * DAY_S, from_s + 1 * DAY_S))
            verified = until - timedelta(days=3 * 365)
        row: dict[str, Any] = {
            "connector": layout.connectors.name[i],
            "verified_on": str(verified),
            "valid_until": str(until),
            "result": "pass",
            "relative_error": None,
            "expanded_uncertainty": None,
            "coverage_factor": None,
            "certificate": f"JV-{i + 1:07d}",
            "institute": "Municipal metrology institute",
        }
        if states[i]:
            row |= {
                "relative_error": float(stated[i]),
                "expanded_uncertainty": 2 * u,
                "coverage_factor": 2,
            }
        rows.append(row)
    return rows


def _tariffs(layout: Layout, from_s: float, zone: ZoneInfo) -> list[dict[str, Any]]:
    first = datetime.combine(_day(from_s - 60 * DAY_S), time(), tzinfo=zone)
    valid_from = first.isoformat()
    stations = layout.stations
    return [
        {
            "operator_id": operator_id(int(stations.operator[k])),
            "station_id": stations.name[k],
            "valid_from": valid_from,
            "periods": tariff_rows(int(stations.plan[k])),
        }
        for k in range(stations.size)
    ]
