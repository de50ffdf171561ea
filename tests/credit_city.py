"""Credit of two operators: published grades with a recount, a draft, commitments, sums of days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import tables
from chargewatch.supervision.credit.arithmetic import Fact, compute
from chargewatch.supervision.credit.grading import month_now, months_later
from chargewatch.supervision.credit.rules import rules_for

MONTH = date(2026, 1, 1)
"""Published with a recount, whatever the present time."""


def fact(bad: int | str, whole: int | str, rows: int = 7, **more: Fraction) -> Fact:
    return Fact(bad=Fraction(bad), all=Fraction(whole), rows=rows, **more)


def some_facts(step: int, *, count: int = 400) -> dict[str, Fact]:
    """Return facts that are the worse the larger the step, of `count` connectors."""
    return {
        "inspections": fact(step, 40),
        "confirmed": fact(step // 2, count),
        "owed": fact(
            f"{120.5 * step:.2f}",
            "900000",
            estimate=Fraction(200 * step),
            most=Fraction(300 * step),
        ),
        "silence": fact(12 * step, 7_200),
        "lost": fact(f"{2.25 * step:.2f}", 7_200),
        "rejected": fact(10 * step, 1_000_000),
        "coverage": fact(8 * step, count),
        "complaints": fact(step, 118_000),
    }


def _row(operator_id: str, month: date, facts: dict[str, Fact], now: datetime) -> dict[str, Any]:
    told = compute(rules_for(month), facts, operator_id=operator_id, month=month)
    return {
        "operator_id": operator_id,
        "month": month,
        "grade": told["grade"],
        "score": None if told["score"] is None else Decimal(told["score"]),
        "worst": told["worst"],
        "arithmetic": told,
        "rule_version": told["rules"]["version"],
        "made_at": now,
    }


async def seed_credit(
    connection: AsyncConnection, marks: dict[str, str], *, now: datetime, count: int = 400
) -> None:
    """Fill the tables of credit for operators, each with a mark in its texts."""
    running = month_now(now, UTC)  # type: ignore[arg-type]
    for place, (operator_id, mark) in enumerate(marks.items()):
        grades = []
        for back in range(6, 0, -1):
            month = months_later(running, -back)
            if month > MONTH:
                facts = some_facts(1 + back // 2 + 2 * place, count=count)
                row = _row(operator_id, month, facts, now)
                grades.append({**row, "revision": 1, "made_by": "admin", "why": ""})
        for revision, why in ((1, ""), (2, f"{mark}: messages were read again")):
            row = _row(operator_id, MONTH, some_facts(3 + revision, count=count), now)
            grades.append({**row, "revision": revision, "made_by": "admin", "why": why})
        await connection.execute(insert(tables.credit_grade), grades)
        draft = _row(operator_id, running, some_facts(2 + 2 * place, count=count), now)
        await connection.execute(insert(tables.credit_draft).values(draft))
        today = now.date()
        promise = {"operator_id": operator_id, "made_by": f"{mark}-user"}
        for text, kept, published in (
            ("every pile verified before it is due", None, True),
            ("defects repaired within 48 hours", True, True),
            ("receipts show the meter's reading", False, False),
        ):
            decided = {} if kept is None else {
                "kept": kept, "decided_on": today, "decided_by": "admin", "why": f"{mark}: seen",
            }  # fmt: skip
            await connection.execute(
                insert(tables.self_commitment).values(
                    **promise, text=f"{mark}: {text}", made_on=today - timedelta(days=90),
                    until=today + timedelta(days=30), published=published, **decided,
                )
            )  # fmt: skip
        days = [
            {
                "operator_id": operator_id, "day": today - timedelta(days=n), "station_hours": 240,
                "heard_hours": 240 - (n % 5) * (place + 1), "messages": 14_400, "items": 144_000,
                "rejected": 12 * (n % 3), "sessions": 900 + n, "summed_at": now,
            }
            for n in range(40)
        ]  # fmt: skip
        await connection.execute(insert(tables.operator_day), days)
