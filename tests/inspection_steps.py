"""A draw of the small city, step by step, for the tests that need one."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import insert, select, text

from chargewatch.storage import tables
from chargewatch.storage.database import Database
from chargewatch.supervision.audit import Actor
from chargewatch.supervision.draw_bundle import DrawBundle
from chargewatch.supervision.inspections import draws, results
from chargewatch.supervision.inspections.draw_state import DrawClock
from chargewatch.supervision.inspections.eligible import DrawWanted

CERTIFICATES = itertools.count(1)
ZHAO, QIAN = Actor(name="zhao", role="supervisor"), Actor(name="qian", role="supervisor")


def clock_after(minutes: float) -> DrawClock:
    """Return the clock so long after now."""
    return DrawClock(
        now=datetime.now(UTC) + timedelta(minutes=minutes), zone=ZoneInfo("Asia/Shanghai")
    )


def wanted_draw(**changed: Any) -> DrawWanted:
    """Return an order for a draw of twelve."""
    values: dict[str, Any] = {
        "draw_id": "2026-12", "size": 12, "uniform": Decimal("0.5"), "crew": 2, "due_days": 30,
        "lately_days": 0,
    }  # fmt: skip
    return DrawWanted(**values | changed)


async def add_inspectors(database: Database, *names: str) -> None:
    """Register inspectors; li is recused from OP1."""
    rows = [
        {"name": name, "recused_operators": ["OP1"] if name == "li" else []}
        for name in names or ("li", "wang wei", "陈芳", "sun")
    ]
    async with database.begin() as connection:
        await connection.execute(insert(tables.inspector), rows)


async def drawn_city(database: Database, *, uniform: str = "0.5", size: int = 12) -> DrawBundle:
    """Freeze, publish, throw and draw."""
    await add_inspectors(database)
    await draws.freeze(
        database,
        wanted_draw(uniform=Decimal(uniform), size=size),
        actor=ZHAO,
        clock=clock_after(-60),
    )
    await draws.publish(database, "2026-12", actor=ZHAO, clock=clock_after(-50))
    for minute, who, witness, digits in (
        (-40, ZHAO, "wu", "3141592653"), (-30, QIAN, "he", "2718281828"),
    ):  # fmt: skip
        await draws.throw(
            database, "2026-12", witness=witness, digits=digits, actor=who,
            clock=clock_after(minute),
        )  # fmt: skip
    return await draws.run(database, "2026-12", actor=QIAN, clock=clock_after(-20))


async def verify_inspection(database: Database, row: Any, result: str) -> None:
    """Enter a verification of today for an inspection."""
    async with database.begin() as connection:
        number = await connection.scalar(
            select(tables.connector.c.connector_id).where(
                tables.connector.c.connector == row["connector"],
                tables.connector.c.operator_id == row["operator_id"],
            )
        )
        verification_id = await connection.scalar(
            insert(tables.verification)
            .values(
                connector_id=number, verified_on=date(2030, 1, 1), result=result,
                certificate=f"V-{next(CERTIFICATES)}",
            )
            .returning(tables.verification.c.verification_id)
        )  # fmt: skip
        await results.record_result(
            connection, ZHAO, row["inspection_id"], int(verification_id or 0), result,
            datetime.now(UTC),
        )  # fmt: skip


async def audited(database: Database, subject: str) -> list[str]:
    """Return the actions of the audit trail on a subject, the oldest first."""
    async with database.connect() as connection:
        found = await connection.execute(
            text("SELECT action FROM audit_entry WHERE subject = :s ORDER BY entry"),
            {"s": subject},
        )
        return [str(one) for one in found.scalars()]
