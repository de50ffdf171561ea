"""Two operators that claim the same stations, connectors, meters and sessions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.storage.pile_index import driver_of, rebuild
from credit_city import seed_credit

CONNECTORS = ("C-1", "D-1")
STATIONS = ("ST", "SU")
OPERATORS = ("OP1", "OP2")


def mark(operator_id: str) -> str:
    """Return what stands in every text of an operator."""
    return {"OP1": "ONE", "OP2": "TWO"}[operator_id]


def number(operator_id: str) -> int:
    """Return what every count of an operator is."""
    return {"OP1": 1_357_911, "OP2": 2_468_102}[operator_id]


async def _seed_registry(connection: AsyncConnection) -> None:
    await connection.execute(
        insert(tables.operator),
        [{"operator_id": name, "name": f"{mark(name)}-operator"} for name in OPERATORS],
    )
    await connection.execute(
        insert(tables.station),
        [
            {
                "station_id": station_id,
                "operator_id": operator_id,
                "name": f"{mark(operator_id)}-station",
                "address": f"{mark(operator_id)}-address",
                "district": district,
                "longitude": number(operator_id) / 1e4,
                "latitude": number(operator_id) / 1e5,
            }
            for station_id, operator_id, district in zip(
                STATIONS, OPERATORS, ("120101", "120116"), strict=True
            )
        ],
    )


async def _seed_instruments(connection: AsyncConnection) -> list[tuple[int, str, str, str]]:
    """Return connector_id, connector, station_id, operator_id of all claims."""
    found = []
    for place, (name, station_id) in enumerate(zip(CONNECTORS, STATIONS, strict=True)):
        for operator_id in OPERATORS:
            registered = operator_id == OPERATORS[place]
            told = mark(operator_id)
            connector_id = await connection.scalar(
                insert(tables.connector)
                .values(
                    connector=name,
                    operator_id=operator_id,
                    station_id=station_id,
                    registered=registered,
                    pile=f"{told}-pile",
                    model=f"{told}-model",
                    serial=f"{told}-serial",
                    manufacturer=f"{told}-maker",
                )
                .returning(tables.connector.c.connector_id)
            )
            meter_id = await connection.scalar(
                insert(tables.reference_meter)
                .values(
                    meter=f"M-{place}",
                    operator_id=operator_id,
                    station_id=station_id,
                    registered=registered,
                    scope="station",
                    certificate=f"{told}-certificate",
                )
                .returning(tables.reference_meter.c.meter_id)
            )
            await connection.execute(
                insert(tables.reference_meter_connector).values(
                    meter_id=meter_id, connector_id=connector_id
                )
            )
            found.append((connector_id, name, station_id, operator_id))
    return found


def _assessment(
    connector_id: int, operator_id: str, run_id: int | None, now: datetime
) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "connector_id": connector_id,
        "relative_error": number(operator_id) / 1e8,
        "standard_uncertainty": 0.001,
        "common_uncertainty": 0.001,
        "mpe": 0.02,
        "p_nonconforming": 0.99,
        "verdict": "nonconforming",
        "tier": "red",
        "priority_money": float(number(operator_id)),
        "data_from": now,
        "data_to": now,
        "n_intervals": number(operator_id),
        "n_sessions": number(operator_id),
        "n_vehicles": number(operator_id),
        "n_direct": 0,
        "method": "balance",
        "reason": f"{mark(operator_id)}-reason",
        "budget": [],
    }


async def _seed_claim(
    connection: AsyncConnection, claim: tuple[int, str, str, str], run_id: int, now: datetime
) -> None:
    connector_id, name, station_id, operator_id = claim
    told, count = mark(operator_id), number(operator_id)
    await connection.execute(
        insert(tables.assessment).values(_assessment(connector_id, operator_id, run_id, now))
    )
    await connection.execute(
        insert(tables.verification).values(
            connector_id=connector_id,
            verified_on=date(2026, 1, 1),
            result="pass",
            certificate=f"{told}-verified",
        )
    )
    await connection.execute(
        insert(tables.charging_session).values(
            operator_id=operator_id,
            station_id=station_id,
            connector_id=connector_id,
            session="S-1",
            vehicle=f"{told}-vehicle",
            started_at=now - timedelta(hours=1),
            ended_at=now,
            start_wh=0,
            stop_wh=count,
            billed_wh=count,
            content_hash=b"",
            received_at=now,
        )
    )
    reading = {"connector_id": connector_id, "at": now, "energy_wh": count, "power_w": 1}
    await connection.execute(
        insert(tables.register_reading).values(
            **reading, voltage_v=230, current_a=1, soc_pct=1, session_key=0, context=0
        )
    )
    # Ahead of every clock, so that a live view always finds it new.
    await connection.execute(
        insert(tables.latest_reading).values(**reading, received_at=now + timedelta(days=1))
    )
    await connection.execute(
        insert(tables.signal).values(
            code="register_jump" if operator_id == "OP1" else "clock_skew",
            severity="severe",
            subject=f"connector:{name}",
            connector=name,
            station_id=station_id,
            operator_id=operator_id,
            first_at=now,
            last_at=now,
            count=17,
            value=count,
            limit=1.0,
            detail=f"{told}-detail",
            evidence={"record": f"{told}-evidence"},
            rule_version=1,
            opened_run=run_id,
            last_run=run_id,
        )
    )


async def _seed_complaints(connection: AsyncConnection, now: datetime) -> None:
    for place, operator_id in enumerate(OPERATORS):
        await connection.execute(
            insert(tables.complaint).values(
                reference=f"{place:05}-00000-00000",
                received_at=now,
                connector=CONNECTORS[place],
                station_id=STATIONS[place],
                operator_id=operator_id,
                kind="price",
                text=f"{mark(operator_id)}-complaint",
                session_text=f"{mark(operator_id)}-order",
                bill_cny=number(operator_id) / 100,
                language="en",
                state="answered",
                clocks="CN-2020",
                accept_by=now.date(),
                end_by=now.date(),
                answer=f"{mark(operator_id)}-answer",
            )
        )


async def _seed_money(
    connection: AsyncConnection, claims: list[tuple[int, str, str, str]], run_id: int
) -> None:
    """Every amount of an operator is its number."""
    now = datetime.now(UTC)
    told = {"month": now.date().replace(day=1), "run_id": run_id}
    await connection.execute(
        insert(tables.money_month).values(**told, counted_from=now, counted_to=now)
    )
    sides = ("overcharge", "undercharge")
    names = [f"{side}{end}_cny" for side in sides for end in ("", "_low", "_high")]
    for connector_id, _, station_id, operator_id in claims:
        amounts = dict.fromkeys([*names, "energy_wh", "paid_cny"], float(number(operator_id)))
        counts = {"sessions": number(operator_id), "sessions_unknown": 0}
        for cause in ("error", "billing"):
            await connection.execute(
                insert(tables.money_owed).values(
                    **told,
                    **amounts,
                    **counts,
                    connector_id=connector_id,
                    operator_id=operator_id,
                    station_id=station_id,
                    cause=cause,
                )
            )
    for operator_id in (*OPERATORS, ""):
        count = sum(number(name) for name in OPERATORS if operator_id in ("", name))
        amounts = dict.fromkeys([*names, "energy_wh", "paid_cny"], float(count))
        net = {"net_cny": 0.0, "net_low_cny": -1.0, "net_high_cny": 1.0}
        for cause in ("error", "billing"):
            await connection.execute(
                insert(tables.money_total).values(
                    **told,
                    **amounts,
                    **net,
                    operator_id=operator_id,
                    cause=cause,
                    sessions=count,
                    sessions_unknown=0,
                    connectors=count,
                    connectors_unknown=0,
                )
            )


async def _seed_messages(connection: AsyncConnection, now: datetime) -> None:
    for operator_id in OPERATORS:
        told, count = mark(operator_id), number(operator_id)
        for station_id in STATIONS:
            place = {"operator_id": operator_id, "station_id": station_id}
            stream_id = await connection.scalar(
                insert(tables.ledger_stream)
                .values(
                    **place,
                    topic="registers",
                    messages=count,
                    received=count,
                    stored=count,
                    first_received_at=now,
                    last_received_at=now,
                )
                .returning(tables.ledger_stream.c.stream_id)
            )
            await connection.execute(
                insert(tables.ledger_gap).values(
                    stream_id=stream_id, first_seq=count, last_seq=count, found_at=now
                )
            )
            await connection.execute(
                insert(tables.quarantine).values(
                    **place,
                    received_at=now,
                    topic=f"{told}-topic",
                    code="conflict",
                    codes=["conflict"],
                    errors=[{"index": 0, "code": "conflict", "detail": f"{told}-rejected"}],
                    payload=f"{told}-payload".encode(),
                )
            )
            await connection.execute(
                insert(tables.station_status).values(
                    **place, online=True, received_at=now, firmware=f"{told}-firmware"
                )
            )


async def seed_shared_names(database: Database) -> None:
    """Fill a migrated database; each operator has one of the two stations registered."""
    now = datetime.now(UTC)
    async with database.begin() as connection:
        await _seed_registry(connection)
        claims = await _seed_instruments(connection)
        run_id = await connection.scalar(
            insert(tables.risk_run)
            .values(
                state="finished",
                mode="full",
                as_of=now,
                started_at=now,
                finished_at=now,
                version="0",
                configuration={"secret": "ONE-TWO-configuration"},
                summary={"secret": "ONE-TWO-summary"},
            )
            .returning(tables.risk_run.c.run_id)
        )
        for claim in claims:
            await _seed_claim(connection, claim, int(run_id or 0), now)
        await _seed_complaints(connection, now)
        await _seed_money(connection, claims, int(run_id or 0))
        await _seed_messages(connection, now)
        marks = {operator_id: mark(operator_id) for operator_id in OPERATORS}
        await seed_credit(connection, marks, now=now)
        await rebuild(await driver_of(connection))
