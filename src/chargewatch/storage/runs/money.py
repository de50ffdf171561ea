"""What a risk run keeps of money owed, and what it must know of the months counted before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import asyncpg
import numpy as np

from chargewatch.storage import sql
from chargewatch.storage.bulk import Records, copy_records_in
from chargewatch.storage.tables.money import CAUSES, money_total

_REALS = (
    *(
        f"{side}{end}_cny"
        for side in ("overcharge", "undercharge")
        for end in ("", "_low", "_high")
    ),
    "energy_wh",
    "paid_cny",
    "undelivered_share",
    "undelivered_share_before",
)
OWED = np.dtype(
    [
        ("month", "M8[D]"),
        ("connector_id", "i4"),
        ("cause", "i2"),  # its place in CAUSES
        *((name, "f8") for name in _REALS),
        ("sessions", "i4"),
        ("sessions_unknown", "i4"),
        ("changed_at", "M8[us]"),
        ("settled_at", "M8[us]"),
        ("known_from", "M8[us]"),
    ]
)
"""A row of `money_owed`; whose connector it is, the registry says."""
TOTAL_COLUMNS = tuple(column.name for column in money_total.columns)

_NAMES = ", ".join(name for name in OWED.names or () if name not in ("connector_id", "cause"))
_COUNTED = sql.statement("money: counted", "SELECT month, counted_from FROM money_month")
_STAGE = sql.statement(
    "money: stage",
    "CREATE TEMP TABLE money_stage ON COMMIT DROP AS SELECT month, connector_id, "  # noqa: S608
    f"smallint '0' AS cause, {', '.join(_REALS)}, sessions, sessions_unknown, changed_at, "
    "settled_at, known_from FROM money_owed LIMIT 0",
)
_EMPTY = {
    table: sql.statement(
        f"money: empty {table}",
        f"DELETE FROM {table} WHERE month = ANY(CAST(:months AS date[]))",  # noqa: S608
    )
    for table in ("money_owed", "money_total", "money_month")
}
# Claims that were merged away meanwhile are gone.
_FILL = sql.statement(
    "money: fill",
    f"""
INSERT INTO money_owed (connector_id, operator_id, station_id, cause, run_id, {_NAMES})
SELECT c.connector_id, c.operator_id, c.station_id,
  (CAST(:causes AS text[]))[s.cause + 1], :run_id,
  {", ".join(f"s.{name}" for name in _NAMES.split(", "))}
FROM money_stage s JOIN connector c USING (connector_id)
""",  # noqa: S608 - names of columns
)


async def counted_months(connection: asyncpg.Connection) -> dict[date, datetime]:
    """Return from when on each month was counted that was."""
    return {row["month"]: row["counted_from"] for row in await sql.rows(connection, _COUNTED)}


async def save_money(
    connection: asyncpg.Connection,
    *,
    run_id: int,
    months: Sequence[tuple[Any, ...]],
    owed: Records,
    totals: Sequence[tuple[Any, ...]],
) -> None:
    """Put what a run says of some months into the place of what was said before.

    Args:
        connection: in the run's transaction.
        run_id: the run.
        months: month, counted_from, counted_to, run_id.
        owed: dtype OWED.
        totals: in TOTAL_COLUMNS.
    """
    for statement in _EMPTY.values():
        await sql.run(connection, statement, months=[month[0] for month in months], timeout_s=600)
    await sql.run(connection, _STAGE)
    await copy_records_in(connection, "money_stage", owed)
    await sql.run(connection, _FILL, run_id=run_id, causes=list(CAUSES), timeout_s=600)
    await connection.copy_records_to_table(
        "money_total", records=totals, columns=TOTAL_COLUMNS, timeout=600
    )
    await connection.copy_records_to_table(
        "money_month",
        records=months,
        columns=("month", "counted_from", "counted_to", "run_id"),
        timeout=600,
    )
