"""What an operator or the registry may leave out, told: every column of the seeded city filled."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, update

from chargewatch.domain.assessment import ASSESSMENT_COLUMNS
from chargewatch.domain.columns import ValueKind
from chargewatch.domain.session import SESSION_COLUMNS
from chargewatch.storage import tables
from chargewatch.storage.database import Database

OF_SESSIONS: dict[ValueKind, Any] = {
    ValueKind.PSEUDONYM: "v-00000001",
    ValueKind.CURRENCY: "CNY",
    ValueKind.MONEY: "9.96",
    ValueKind.DISCOUNT: "0.74",
    ValueKind.PERCENT: 54.0,
    ValueKind.CAPACITY: 75_000.0,
    ValueKind.FREE_TEXT: "EVDisconnected",
    ValueKind.PERIODS: [
        {
            "from": "2026-03-01T08:00:00+00:00",
            "to": "2026-03-01T09:00:00+00:00",
            "energy_wh": 6_000.0,
            "energy_price": "0.7800",
            "service_price": "0.4000",
        },
        {
            "from": "2026-03-01T09:00:00+00:00",
            "to": "2026-03-01T10:00:00+00:00",
            "energy_wh": 6_777.0,
        },
    ],
}
SESSION = {
    column.name: OF_SESSIONS[column.kind]
    for column in SESSION_COLUMNS
    if column.optional and column.kind != ValueKind.SIGNED
}
FINDINGS = {column.name: 0.5 for column in ASSESSMENT_COLUMNS if column.kind == ValueKind.FINDING}


async def fill_rarities(database: Database) -> None:
    """Tell of station TJ0001 and its first connector whatever can be told."""
    now = datetime.now(UTC)
    drift = {
        "alarm": True,
        "statistic": 9.1,
        "changed_at": "2026-03-01T08:00:00+00:00",
        "interval": ["2026-02-27T08:00:00+00:00", None],
    }
    stream = tables.ledger_stream.c
    quarantined = select(tables.quarantine.c.quarantine_id).limit(1).scalar_subquery()
    async with database.begin() as connection:
        for statement in (
            update(tables.connector)
            .where(tables.connector.c.connector_id == 1)
            .values(cable_loss_compensated=False),
            update(tables.assessment)
            .where(tables.assessment.c.connector_id == 1)
            .values(drift=drift, **FINDINGS),
            update(tables.register_reading)
            .where(tables.register_reading.c.connector_id == 1)
            .values(soc_pct=54.0),
            update(tables.charging_session)
            .where(tables.charging_session.c.connector_id == 1)
            .values(SESSION),
            update(tables.station).values(opened_on=date(2024, 5, 1)),
            update(tables.reference_meter).values(calibrated_on=date(2025, 11, 2)),
            insert(tables.reference_meter_connector).values(meter_id=1, connector_id=1),
            update(tables.ledger_gap).values(from_at=now - timedelta(hours=6), to_at=now),
            update(tables.ledger_stream)
            .where(stream.station_id == "TJ0001")
            .values(last_seq=2**62, restarts=1, restarted_at=[now]),
            insert(tables.quarantine_day).values(
                day=now.date(), operator_id="OP2", station_id="", kept=1000, more=7, more_rejected=9
            ),
            insert(tables.quarantine_replay).values(
                quarantine_id=quarantined,
                replayed_at=now,
                version="0.1.0",
                stored=1,
                duplicate=0,
                rejected=0,
                errors=[],
            ),
            *_inspections(now),
        ):
            await connection.execute(statement)


def _inspections(now: datetime) -> list[Any]:
    """Return what keeps a draw and an inspection of which everything is told."""
    place = {"connector": "TJ0001-01-1", "station_id": "TJ0001", "operator_id": "OP2"}
    return [
        insert(tables.inspection_draw).values(
            draw_id="2026-12", state="withdrawn", list_text="-", list_sha256="0" * 64, piles=7,
            lots={"OP2": 7}, excluded={"verified_lately": 2}, lot={"operator_id": "OP2"},
            plan={"size": 5, "allowed": 0}, weights_rule="weights-2026-1", size=3,
            uniform_share="0.2", crew=2, due_days=30, frozen_at=now, made_by="admin",
            beacon_source="drand round 5", published_at=now, drawn_at=now, opens_on=now.date(),
            opened_at=now, withdrawn_at=now, withdrawn_why="a mistake",
        ),
        insert(tables.draw_throw).values(
            draw_id="2026-12", witness="wu", entered_by="admin", digits="1234567890", at=now
        ),
        insert(tables.draw_recusal).values(
            draw_id="2026-12", inspector="li", operator_id="OP2", why="kin", at=now,
            entered_by="admin",
        ),
        insert(tables.inspection).values(
            draw_id="2026-12", case_id=1, inspector="wang", crew=["wang", "chen"], part="uniform",
            rank=1, ticket="0" * 64, planned_at=now, due_on=now.date(), state="done",
            result="pass", done_on=now.date(), cancelled_why="",
            verification_id=select(tables.verification.c.verification_id).limit(1)
            .scalar_subquery(), **place,
        ),
    ]  # fmt: skip
