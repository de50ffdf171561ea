"""Statements on verifications that are entered in the office."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import watched

COLUMNS = (
    "connector_id", "verified_on", "valid_until", "result", "relative_error",
    "expanded_uncertainty", "coverage_factor", "certificate", "institute", "kind", "rule_set",
    "decision_rule", "reference", "note", "file_id", "inspection_id", "case_id", "entered_at",
    "entered_by",
)  # fmt: skip
POINT_COLUMNS = (
    "verification_id", "place", "load", "current_a", "power_w", "relative_error",
    "expanded_uncertainty", "coverage_factor", "limit", "basis", "clause", "verdict",
)  # fmt: skip

ADD = sql.statement(
    "verifications: add",
    f"INSERT INTO verification ({', '.join(COLUMNS)}) "  # noqa: S608 - columns
    f"VALUES ({', '.join(f':{name}' for name in COLUMNS)}) RETURNING verification_id",
)
_QUOTED = ", ".join('"limit"' if name == "limit" else name for name in POINT_COLUMNS)
ADD_POINT = sql.statement(
    "verifications: add point",
    f"INSERT INTO verification_point ({_QUOTED}, detail) "  # noqa: S608 - columns
    f"VALUES ({', '.join(f':{name}' for name in POINT_COLUMNS)}, CAST(:detail AS jsonb))",
)
# Waits for who enters one of the same connector, day and certificate at the same moment.
STANDING = sql.statement(
    "verifications: standing",
    "SELECT verification_id FROM verification WHERE connector_id = :connector_id "
    "AND verified_on = :verified_on AND certificate = :certificate AND withdrawn_at IS NULL",
)
LOCK_CONNECTOR = sql.statement(
    "verifications: lock connector",
    "SELECT connector_id FROM connector WHERE connector_id = :connector_id FOR NO KEY UPDATE",
)
ONE = sql.statement(
    "verifications: one",
    "SELECT v.*, c.connector, c.operator_id, c.station_id, c.accuracy_class, c.current, c.model, "
    "c.manufacturer, c.serial, c.resolution_wh, s.name AS station_name, s.address, "
    "o.name AS operator_name "
    "FROM verification v JOIN connector c USING (connector_id) "
    "LEFT JOIN station s ON s.station_id = c.station_id AND s.operator_id = c.operator_id "
    "LEFT JOIN operator o ON o.operator_id = c.operator_id "
    "WHERE v.verification_id = :verification_id "
    "AND (CAST(:scope AS text) IS NULL OR c.operator_id = :scope)",
)
POINTS = sql.statement(
    "verifications: points",
    "SELECT * FROM verification_point WHERE verification_id = :verification_id ORDER BY place",
)
WITHDRAW = sql.statement(
    "verifications: withdraw",
    "UPDATE verification SET withdrawn_at = :at, withdrawn_by = :by, withdrawn_why = :why "
    "WHERE verification_id = :verification_id AND withdrawn_at IS NULL",
)
ENTERED = sql.statement(
    "verifications: entered",
    "SELECT v.verification_id, c.connector, v.verified_on, v.valid_until, v.result, "
    "v.relative_error, v.expanded_uncertainty, v.certificate, v.kind, v.entered_at, v.entered_by, "
    "v.withdrawn_at FROM verification v JOIN connector c USING (connector_id) "
    "WHERE v.entered_at IS NOT NULL "
    "AND (CAST(:before AS bigint) IS NULL OR v.verification_id < :before) {where} "
    "ORDER BY v.verification_id DESC LIMIT :limit",
)
OF_SCOPE = "AND c.operator_id = :scope"
CASE = sql.statement(
    "verifications: case",
    "SELECT case_id, number, connector, operator_id, station_id FROM office_case "
    "WHERE case_id = :case_id",
)


async def add_verification(
    connection: AsyncConnection, values: Mapping[str, Any], points: Sequence[Mapping[str, Any]]
) -> int:
    """Keep a verification with its loads and return its verification_id."""
    verification_id = int(await sql.value(connection, ADD, **values))
    for place, point in enumerate(points):
        await sql.run(connection, ADD_POINT, verification_id=verification_id, place=place, **point)
    return verification_id


async def standing(
    connection: AsyncConnection, connector_id: int, *, verified_on: Any, certificate: str
) -> int | None:
    """Return the verification that stands under a key, None where there is none.

    Others who enter one of the same connector wait until this transaction ends.
    """
    await sql.value(connection, LOCK_CONNECTOR, connector_id=connector_id)
    found = await sql.value(
        connection,
        STANDING,
        connector_id=connector_id,
        verified_on=verified_on,
        certificate=certificate,
    )
    return None if found is None else int(found)


@watched({"verifications: one": lambda s: {"verification_id": 1, "scope": None}})
async def verification(
    connection: AsyncConnection, verification_id: int, *, scope: str | None
) -> RowMapping | None:
    """Return a verification with its connector; None when there is none or it is another's."""
    return await sql.row(connection, ONE, verification_id=verification_id, scope=scope)


@watched({"verifications: points": lambda s: {"verification_id": 1}})
async def points(connection: AsyncConnection, verification_id: int) -> Sequence[RowMapping]:
    """Return the loads of a verification, in their order."""
    return await sql.rows(connection, POINTS, verification_id=verification_id)


async def withdraw(
    connection: AsyncConnection, verification_id: int, *, at: Any, by: str, why: str
) -> bool:
    """Mark a verification as withdrawn; False when it was before."""
    changed = await sql.run(
        connection, WITHDRAW, verification_id=verification_id, at=at, by=by, why=why
    )
    return changed > 0


@watched(
    {
        "verifications: entered": lambda s: {"scope": None, "before": None, "limit": 50},
        "verifications: entered: scope": lambda s: {
            "scope": s.operator_id,
            "before": None,
            "limit": 50,
        },
    }
)
async def entered(
    connection: AsyncConnection, *, scope: str | None, before: int | None, limit: int
) -> Sequence[RowMapping]:
    """Return verifications that were entered in the office, the newest first."""
    if scope is None:
        return await sql.rows(connection, ENTERED.filled(where=""), before=before, limit=limit)
    wanted = ENTERED.filled(where=OF_SCOPE)
    return await sql.rows(connection, wanted, scope=scope, before=before, limit=limit)


async def case(connection: AsyncConnection, case_id: int) -> RowMapping | None:
    """Return what a case is of; None when there is none."""
    return await sql.row(connection, CASE, case_id=case_id)
