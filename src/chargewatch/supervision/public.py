"""What everybody may know of a pile, put together for its page and for the open data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage.office import public as rows
from chargewatch.supervision.credit.public import public_grade

PILE_COLUMNS = (
    "connector", "current", "station_id", "station_name", "district", "address", "operator_id",
    "operator_name", "status", "verified_on", "valid_until", "certificate", "institute",
)  # fmt: skip
"""The stable columns of the open data on piles, in the order of the CSV file."""
STATION_COLUMNS = (
    "station_id", "station_name", "district", "address", "operator_id", "operator_name", "piles",
    *rows.STATUSES,
)  # fmt: skip
DISTRICT_COLUMNS = ("district", "piles", *rows.STATUSES)


@dataclass(frozen=True, kw_only=True)
class PublicPile:
    """A registered connector as everybody may know it."""

    pile: dict[str, Any]
    inspection: dict[str, Any] | None
    grade: dict[str, Any] | None

    def document(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {**self.pile, "last_inspection": self.inspection, "operator_grade": self.grade}


async def public_pile(
    connection: AsyncConnection, connector: str, *, today: date
) -> PublicPile | None:
    """Return what everybody may know of a connector; None when it is not in the register.

    A connector that somebody merely sends data of looks like one that nobody has heard of.
    """
    row = await rows.pile(connection, connector, today=today)
    if row is None:
        return None
    inspection = await rows.last_inspection(
        connection, connector, station_id=row["station_id"], operator_id=row["operator_id"]
    )
    credit = await public_grade(connection, row["operator_id"])
    grade = None if credit is None else credit["grade"]
    return PublicPile(
        pile={name: row[name] for name in PILE_COLUMNS},
        inspection=None if inspection is None else dict(inspection),
        grade={name: grade[name] for name in ("month", "grade")}
        if grade is not None and grade["grade"]
        else None,
    )
