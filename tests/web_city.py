"""A small city in a database, with every state that pages must show."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.domain.reason import encode, reason
from chargewatch.simulators.ocmf import Reading, ocmf_record, public_key_hex
from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.storage.pile_index import driver_of, rebuild
from credit_city import seed_credit
from web_money import seed_money

STATIONS = 12
PILES_PER_STATION = 10
RUNS = 14
DISTRICTS = ("120101", "120102", "120103", "120104", "120116", "120115")
NAMES = ("和平路", "河东", "河西 Mall", "南开大学", "滨海", "宝坻")
QUARTER = timedelta(minutes=15)


def tier_of(number: int) -> str:
    """Return the tier of the nth connector: 6 red, 6 orange, 12 yellow, 12 grey, 84 green."""
    return {
        0: "red",
        20: "red",
        1: "orange",
        21: "orange",
        2: "yellow",
        3: "yellow",
        22: "yellow",
        23: "yellow",
        4: "grey",
        5: "grey",
        24: "grey",
        25: "grey",
    }.get(number % 40, "green")


def _error_of(number: int) -> float:
    tier = tier_of(number)
    if tier == "grey":
        return math.nan
    wobble = ((number * 37) % 19 - 9) / 9
    size = {"red": 0.034, "orange": 0.021, "yellow": 0.017, "green": 0.006}[tier]
    sign = -1 if number % 7 == 0 else 1
    return sign * size * (1 + 0.4 * wobble) if tier != "green" else size * wobble


def _assessment(run_id: int, number: int, back: int, as_of: datetime) -> dict[str, Any]:
    tier = tier_of(number)
    grey = tier == "grey"
    u = 0.0021 + 0.0004 * back
    verdict = {"red": "nonconforming", "green": "conforming", "grey": "not_identifiable"}
    parts = {"statistics": 0.8, "reference_meter": 0.5, "register_resolution": 0.2}
    rest = math.sqrt(1 - sum(share**2 for share in parts.values()))
    budget = [
        {"component": name, "standard_uncertainty": u * share}
        for name, share in {**parts, "synchronisation": rest}.items()
    ]
    drift = {"alarm": True, "statistic": 9.1, "changed_at": None, "interval": None}
    return {
        "run_id": run_id,
        "connector_id": number + 1,
        "relative_error": _error_of(number) * (1 - 0.01 * back),
        "standard_uncertainty": math.nan if grey else u,
        "common_uncertainty": math.nan if grey else u * 0.5,
        "mpe": 0.01 if number % 3 == 0 else 0.02,
        "p_nonconforming": math.nan
        if grey
        else {"red": 0.9991, "orange": 0.62, "yellow": 0.31, "green": 0.004}[tier],
        "verdict": verdict.get(tier, "undecided"),
        "tier": tier,
        "priority_money": 0.0 if grey else 1000 * abs(_error_of(number)) * (2 + number % 5),
        "overcharge_error": 1e4 * max(_error_of(number), 0.0) if not grey else math.nan,
        "undercharge_error": 1e4 * max(-_error_of(number), 0.0) if not grey else math.nan,
        "overcharge_billing": 31.5 if number % 12 == 0 else 0.0,
        "undercharge_billing": 0.0,
        "data_from": as_of - timedelta(days=30),
        "data_to": as_of - timedelta(minutes=20),
        "n_intervals": 0 if grey else 2500 + number,
        "n_sessions": 0 if grey else 140 + number,
        "n_vehicles": 0 if grey else 37,
        "n_direct": 1 if number % 12 == 0 else 0,
        "method": "none" if grey else "balance",
        "reason": encode((reason("too_little", sessions=3, least=8),)) if grey else "",
        "budget": [] if grey else budget,
        "drift": drift if tier == "yellow" else None,
        "relative_error_light": 0.0512 if tier == "red" else math.nan,
        "standard_uncertainty_light": 0.0101 if tier == "red" else math.nan,
    }


async def _seed_registry(connection: AsyncConnection, now: datetime) -> None:
    operators = [
        {"operator_id": "OP1", "name": "津充运营", "credit_code": "91120A", "contact": ""},
        {"operator_id": "OP2", "name": "Haihe Charging", "credit_code": "91120B", "contact": ""},
    ]
    await connection.execute(insert(tables.operator), operators)
    stations, connectors, meters, verifications = [], [], [], []
    for s in range(STATIONS):
        operator_id = "OP1" if s % 3 else "OP2"
        station_id = f"TJ{s + 1:04d}"
        stations.append(
            {
                "station_id": station_id,
                "operator_id": operator_id,
                "name": f"{NAMES[s % 6]} {s + 1}",
                "district": DISTRICTS[s % 6],
                "longitude": 117.1 + s / 50,
                "latitude": 39.0 + s / 50,
                "address": f"{s + 1} Binjiang Road",
            }
        )
        meters.append(
            {
                "meter": f"{station_id}-M1",
                "operator_id": operator_id,
                "station_id": station_id,
                "registered": True,
                "scope": "station",
                "current": "AC",
                "relative_uncertainty": 0.002,
                "coverage_factor": 2,
                "resolution_wh": 10,
                "certificate": f"M-{s}",
                "valid_until": date(2027, 1, 1),
            }
        )
        for p in range(PILES_PER_STATION):
            number = s * PILES_PER_STATION + p
            dc = s % 4 == 0
            connectors.append(
                {
                    "connector": f"{station_id}-{p + 1:02d}-1",
                    "pile": f"{station_id}-{p + 1:02d}",
                    "operator_id": operator_id,
                    "station_id": station_id,
                    "registered": True,
                    "current": "DC" if dc else "AC",
                    "accuracy_class": "1" if number % 3 == 0 else "2",
                    "rated_power_w": 120_000 if dc else 7_000,
                    "min_current_a": 0.5,
                    "max_current_a": 32,
                    "model": "DC-120" if dc else "AC-7",
                    "manufacturer": "Tianda",
                    "serial": f"SN{number:05d}",
                    "resolution_wh": 1,
                    "in_service_on": date(2024, 5, 10),
                    "signing_key": public_key_hex(7) if number == 0 else None,
                }
            )
            if number % 10 != 9:
                verifications.append(
                    {
                        "connector_id": number + 1,
                        "verified_on": (now - timedelta(days=9 + number)).date(),
                        "valid_until": (now + timedelta(days=1000 - 12 * number)).date(),
                        "result": "pass",
                        "relative_error": -0.0021,
                        "expanded_uncertainty": 0.0015,
                        "coverage_factor": 2,
                        "certificate": f"V-{number}",
                        "institute": "Tianjin Institute of Metrology",
                    }
                )
    await connection.execute(insert(tables.station), stations)
    await connection.execute(insert(tables.connector), connectors)
    await connection.execute(insert(tables.reference_meter), meters)
    await connection.execute(insert(tables.verification), verifications)


async def _seed_runs(connection: AsyncConnection, now: datetime) -> int:
    run_id = 0
    n = STATIONS * PILES_PER_STATION
    for back in reversed(range(RUNS)):
        as_of = now - timedelta(days=back, hours=1)
        rows = [_assessment(0, number, back, as_of) for number in range(n)]
        tiers: dict[str, int] = {}
        for row in rows:
            tiers[row["tier"]] = tiers.get(row["tier"], 0) + 1
        summary = {
            "tiers": tiers,
            "expected_false_flags": 0.2,
            "expected_missed": 1.4,
            "money_at_risk": sum(row["priority_money"] for row in rows),
            "rules": {
                "name": "CN-2022",
                "regulation": "JJG 1148-2022",
                "valid_from": "2022-12-28",
                "valid_until": "2023-12-28",
                "in_force": False,
                "checked_against_source": False,
            },
        }
        run = {
            "state": "finished",
            "mode": "full",
            "as_of": as_of,
            "data_from": as_of,
            "data_to": as_of,
            "started_at": as_of,
            "finished_at": as_of + timedelta(seconds=4),
            "version": "0.1.0",
            "configuration": {"half_life_days": 14.0},
            "result_digest": "0f" * 32,
            "summary": summary,
        }
        statement = insert(tables.risk_run).values(**run).returning(tables.risk_run.c.run_id)
        run_id = int((await connection.execute(statement)).scalar_one())
        await connection.execute(
            insert(tables.assessment), [{**row, "run_id": run_id} for row in rows]
        )
    # A run that is under way is nobody's business yet.
    await connection.execute(
        insert(tables.risk_run).values(
            state="running",
            mode="full",
            as_of=now,
            started_at=now,
            version="0.1.0",
            configuration={},
        )
    )
    return run_id


async def _seed_signals(connection: AsyncConnection, now: datetime, run_id: int) -> None:
    rows = []
    for number, code, severity, closed in (
        (0, "loss_adjusted_billing", "severe", None),
        (0, "verification_expired", "mild", None),
        (0, "register_jump", "severe", run_id),
        (1, "stuck_register", "severe", None),
        (2, "clock_skew", "mild", None),
    ):
        name = f"TJ0001-{number + 1:02d}-1"
        rows.append(
            {
                "code": code,
                "severity": severity,
                "subject": f"connector:{name}",
                "connector": name,
                "station_id": "TJ0001",
                "operator_id": "OP2",
                "first_at": now - timedelta(days=3),
                "last_at": now - timedelta(hours=2),
                "count": 17,
                "value": 1.035,
                "limit": 1.001,
                "detail": f"{name}: billed / metered stays at 1.035 over 17 sessions",
                "evidence": {"sessions": ["S-1", "S-2"], "<b>": "escaped & shown"},
                "rule_version": 1,
                "opened_run": run_id,
                "last_run": run_id,
                "closed_run": closed,
            }
        )
    await connection.execute(insert(tables.signal), rows)


async def _seed_telemetry(connection: AsyncConnection, now: datetime) -> None:
    end = now.replace(minute=0, second=0, microsecond=0)
    readings, latest, intervals, meter_intervals, sessions = [], [], [], [], []
    for number in range(3 * PILES_PER_STATION):
        # One pile tells no power and has not been heard for days.
        quiet = number == 5
        last = end - timedelta(days=3) if quiet else end
        energy = 1_000_000.0
        for k in range(4 * 48):
            at = last - (4 * 48 - 1 - k) * QUARTER
            power = math.nan if quiet else 6_800.0 * (k % 16 < 9)
            energy += 0 if math.isnan(power) else power / 4
            row = {"at": at, "connector_id": number + 1, "energy_wh": energy, "power_w": power}
            if number < PILES_PER_STATION:
                readings.append(
                    {
                        **row,
                        "voltage_v": 231.0,
                        "current_a": 30.0,
                        "soc_pct": math.nan,
                        "session_key": 0,
                        "context": 0,
                    }
                )
            step = 0 if math.isnan(power) else power / 4
            intervals.append(
                {
                    "slot_at": at,
                    "connector_id": number + 1,
                    "energy_wh": step,
                    "u_wh": 1.0,
                    "quality": 0,
                }
            )
        latest.append(
            {
                "connector_id": number + 1,
                "at": last,
                "energy_wh": energy,
                "power_w": power,
                "received_at": last,
            }
        )
    for s in range(3):
        for k in range(4 * 48):
            meter_intervals.append(
                {
                    "slot_at": end - (4 * 48 - 1 - k) * QUARTER,
                    "meter_id": s + 1,
                    "energy_wh": 9.5 * 1700.0 * (k % 16 < 9) + 120,
                    "u_wh": 5.0,
                    "quality": 0,
                }
            )
    for k in range(60):
        ended = end - timedelta(hours=8 * k)
        sessions.append(
            {
                "operator_id": "OP2",
                "station_id": "TJ0001",
                "connector_id": 1,
                "session": f"S-{k:04d}",
                "vehicle": f"v-{k % 7:08x}",
                "started_at": ended - timedelta(hours=2),
                "ended_at": ended,
                "start_wh": 1_000_000.0 + 13_000 * k,
                "stop_wh": 1_012_345.0 + 13_000 * k,
                "billed_wh": 12_777.0,
                "currency": "CNY",
                "total_fee": "15.33",
                "soc_start_pct": 31.0,
                "soc_stop_pct": 74.0,
                "content_hash": bytes([k]) * 32,
                "received_at": ended,
                **_signed(k, ended),
            }
        )
    await connection.execute(insert(tables.register_reading), readings)
    await connection.execute(insert(tables.latest_reading), latest)
    await connection.execute(insert(tables.connector_interval), intervals)
    await connection.execute(insert(tables.meter_interval), meter_intervals)
    await connection.execute(insert(tables.charging_session), sessions)
    # Every station opened a seal; every first connector got another meter.
    events = [
        {
            "operator_id": row.operator_id,
            "station_id": row.station_id,
            "connector_id": connector_id,
            "meter_id": 0,
            "kind": kind,
            "at": now - timedelta(days=days),
            "detail": "by the institute",
            "serial": serial,
            "start_wh": start_wh,
            "stop_wh": stop_wh,
            "received_at": now,
        }
        for row in await connection.execute(
            select(
                tables.connector.c.operator_id,
                tables.connector.c.station_id,
                func.min(tables.connector.c.connector_id).label("connector_id"),
            ).group_by(tables.connector.c.operator_id, tables.connector.c.station_id)
        )
        for kind, connector_id, days, serial, start_wh, stop_wh in (
            ("meter_replaced", row.connector_id, 2, "B-77", 0.0, 1_254_310.0),
            ("seal_opened", 0, 3, None, None, None),
        )
    ]
    await connection.execute(insert(tables.instrument_event), events)


def _signed(k: int, ended: datetime) -> dict[str, Any]:
    """Return the signed record of every ninth session: genuine, forged, of another charge, odd."""
    if k % 9:
        return {"signed_format": None, "signed_data": None, "signed_public_key": None}

    def at(moment: datetime) -> str:
        return moment.strftime("%Y-%m-%dT%H:%M:%S,000+0000")

    kwh = 1_000 + 13 * k
    grown = 12.345 if k != 18 else 7.5
    readings = (
        Reading(at=at(ended - timedelta(hours=2)), energy_kwh=kwh, kind="B"),
        Reading(at=at(ended), energy_kwh=kwh + grown, kind="E"),
    )
    data = ocmf_record("SN00000", readings, page=k + 1, secret=7)
    return {
        "signed_format": "ALFEN" if k == 27 else "OCMF",
        "signed_data": data.replace('"PG":"T', '"PG":"T9') if k == 9 else data,
        "signed_public_key": None,
    }


async def _seed_ingest(connection: AsyncConnection, now: datetime) -> None:
    for s in range(STATIONS):
        for topic in ("registers", "reference", "sessions"):
            await connection.execute(
                insert(tables.ledger_stream).values(
                    operator_id="OP1" if s % 3 else "OP2",
                    station_id=f"TJ{s + 1:04d}",
                    topic=topic,
                    messages=100,
                    received=5000,
                    stored=4980,
                    duplicate=15,
                    rejected=5,
                    unknown_keys=0,
                    last_received_at=now - timedelta(minutes=s * 4),
                    first_received_at=now - timedelta(days=30),
                    last_sent_at=now,
                )
            )
    gap = {"stream_id": 1, "first_seq": 40, "last_seq": 43, "found_at": now - timedelta(hours=5)}
    closed = {**gap, "first_seq": 9, "last_seq": 9, "closed_at": now - timedelta(hours=4)}
    await connection.execute(insert(tables.ledger_gap), [{**gap, "closed_at": None}, closed])
    items = []
    for number, (code, payload) in enumerate(
        (
            ("naive_time", b'{"seq": 7, "readings": [{"at": "2026-03-01T08:15:00"}]}'),
            ("malformed", b"\xff\xfe<script>alert(1)</script>"),
            ("conflict", b'{"seq": 8}'),
        )
    ):
        items.append(
            {
                "received_at": now - timedelta(minutes=number),
                "topic": "registers",
                "operator_id": "OP2",
                "station_id": "TJ0001",
                "seq": number or None,
                "code": code,
                "codes": [code],
                "errors": [
                    {"index": number or None, "code": code, "detail": f"readings[0]: {code}"}
                ],
                "payload": payload,
                "content_type": "application/json",
            }
        )
    await connection.execute(insert(tables.quarantine), items)
    await connection.execute(
        insert(tables.station_status),
        [
            {
                "operator_id": "OP2",
                "station_id": "TJ0001",
                "online": True,
                "received_at": now,
                "clock_offset_ms": 120.0,
                "backlog": 0,
                "firmware": "2.4.1",
            },
            {
                "operator_id": "OP1",
                "station_id": "TJ0002",
                "online": False,
                "received_at": now - timedelta(hours=9),
                "clock_offset_ms": None,
                "backlog": None,
                "firmware": None,
            },
        ],
    )


async def seed_city(database: Database, *, now: datetime | None = None) -> None:
    """Fill an empty migrated database with 12 stations, 120 connectors and 14 finished runs."""
    now = now or datetime.now(UTC)
    async with database.begin() as connection:
        await _seed_registry(connection, now)
        run_id = await _seed_runs(connection, now)
        await seed_money(
            connection, now, run_id, [_error_of(n) for n in range(STATIONS * PILES_PER_STATION)]
        )
        await _seed_signals(connection, now, run_id)
        await _seed_telemetry(connection, now)
        await _seed_ingest(connection, now)
        await seed_credit(connection, {"OP1": "津充运营", "OP2": "Haihe"}, now=now)
        await rebuild(await driver_of(connection))
