"""How many instruments have a valid verification."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from chargewatch.storage import sql
from chargewatch.storage.pages.watched import watched

By = Literal["district", "operator", "city"]

# What `instrument_validity` held on a day: of the verifications that stood by then.
_THEN = """(
SELECT w.connector_id, coalesce(p.valid_until, f.verified_on - 1) AS until,
  p.valid_until IS NULL AND f.verified_on IS NOT NULL AS failed
FROM (SELECT DISTINCT connector_id FROM verification
  WHERE verified_on <= :on AND withdrawn_at IS NULL) w
LEFT JOIN LATERAL (SELECT verified_on, verification_id FROM verification
  WHERE connector_id = w.connector_id AND result = 'fail' AND withdrawn_at IS NULL
    AND verified_on <= :on ORDER BY verified_on DESC, verification_id DESC LIMIT 1) f ON true
LEFT JOIN LATERAL (SELECT valid_until FROM verification
  WHERE connector_id = w.connector_id AND result = 'pass' AND valid_until IS NOT NULL
    AND withdrawn_at IS NULL AND verified_on <= :on AND (f.verified_on IS NULL
      OR (verified_on, verification_id) > (f.verified_on, f.verification_id))
  ORDER BY valid_until DESC LIMIT 1) p ON true)"""

COVERAGE = sql.statement(
    "coverage",
    "SELECT {name} AS name, {title} AS title, count(*) AS instruments, "
    "count(*) FILTER (WHERE v.until >= :on) AS valid, "
    "count(*) FILTER (WHERE v.until < :on) AS expired, "
    "count(*) FILTER (WHERE v.until < :on AND v.failed) AS failed, "
    "count(*) FILTER (WHERE v.until IS NULL) AS never "
    "FROM connector c JOIN station s ON s.station_id = c.station_id "
    "JOIN operator o ON o.operator_id = c.operator_id "
    "LEFT JOIN {validity} v ON v.connector_id = c.connector_id "
    "WHERE c.registered{where} GROUP BY 1, 2 ORDER BY 1",
)
_NAMES: dict[By, tuple[str, str]] = {
    "district": ("coalesce(s.district, '')", "''"),
    "operator": ("c.operator_id", "o.name"),
    "city": ("''", "''"),
}


@watched(
    {
        "coverage: district": lambda s: {
            "on": s.now.date(), "by": "district", "scope": None, "is_past": False,
        },
        "coverage: operator": lambda s: {
            "on": s.now.date(), "by": "operator", "scope": None, "is_past": False,
        },
    }
)  # fmt: skip
async def coverage_rows(
    connection: AsyncConnection, *, on: date, by: By, scope: str | None, is_past: bool
) -> Sequence[RowMapping]:
    """Return the registered instruments of each district or operator by their verification.

    Args:
        connection: to the registry.
        on: the day whose validity is asked for.
        by: what a row is of.
        scope: the one operator whose instruments may be seen; None: everybody's.
        is_past: whether later verifications must be left out.
    """
    name, title = _NAMES[by]
    where = "" if scope is None else " AND c.operator_id = :scope"
    values: dict[str, Any] = {} if scope is None else {"scope": scope}
    validity = _THEN if is_past else "instrument_validity"
    statement = COVERAGE.filled(name=name, title=title, validity=validity, where=where)
    return await sql.rows(connection, statement, on=on, **values)
